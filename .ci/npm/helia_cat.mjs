// Prints a file that Helia got from one trustless gateway and verified by itself: node helia_cat.mjs GATEWAY CID [OFFSET LENGTH]
// Helia of this generation uses what Node has from version 22 on.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
const { createHeliaHTTP } = await import('@helia/http')
const { trustlessGateway } = await import('@helia/block-brokers')
const { httpGatewayRouting } = await import('@helia/routers')
const { unixfs } = await import('@helia/unixfs')
const { CID } = await import('multiformats/cid')

const [gateway, cid, offset, length] = process.argv.slice(2)
const helia = await createHeliaHTTP({
  blockBrokers: [trustlessGateway({ allowInsecure: true, allowLocal: true })],
  routers: [httpGatewayRouting({ gateways: [gateway] })]
})
const part = length === undefined ? {} : { offset: Number(offset), length: Number(length) }
// Helia goes on looking for a block that nobody gives, whatever signal it is passed.
setTimeout(() => {
  console.error('not got within 20 s')
  process.exit(1)
}, 20_000).unref()
for await (const chunk of unixfs(helia).cat(CID.parse(cid), part)) {
  if (!process.stdout.write(chunk)) await new Promise((resolve) => process.stdout.once('drain', resolve))
}
await helia.stop()
