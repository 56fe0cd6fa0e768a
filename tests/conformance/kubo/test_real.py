"""Over real Kubo: the CIDs that it finds are ours, and what it keeps can be had by its own means."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index_frontend.dag.car import CarReader, car_header
from index_frontend.storage.api import (
    ContentId,
    NotFound,
    Stat,
    StorageFull,
    Unauthorised,
    Unavailable,
    Usage,
    WrongContent,
)
from index_frontend.storage.gateway import GatewayBackend
from index_frontend.storage.kubo import rpc as rpc_module
from index_frontend.storage.kubo.backend import KuboBackend
from index_frontend.storage.kubo.packing import as_car
from index_frontend.storage.kubo.rpc import KuboRpc
from index_frontend.storage.kubo.settings import KuboSettings
from index_frontend.storage.registry import read_section
from index_frontend.storage.verified import Verified, opened
from matrix_pypi_bot.wire.cids import Cid, raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from tests.conformance.kubo.expected import MIB, File, read_all
from tests.support.cid_vectors import CIDS, counted
from tests.support.kubo import Kubo, nodes

pytestmark = pytest.mark.integration

PROFILE = "unixfs-v1-2025"
LARGE = 20 * MIB


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all vectors are about: each is as much of the beginning of this as its size says."""
    path = tmp_path_factory.mktemp("vectors") / "data"
    with path.open("wb") as file:
        file.writelines(counted(max(vector["size"] for vector in CIDS["vectors"])))
    return path


async def _in_pieces(data: Path, size: int) -> AsyncGenerator[bytes, None]:
    with data.open("rb") as file:
        while block := file.read(min(MIB, size - file.tell())):
            yield block


def _id(vector: dict[str, Any]) -> ContentId:
    return ContentId(sha256=Sha256(vector["sha256"]), size=vector["size"], cid=Cid(vector["cids"][PROFILE]))


@asynccontextmanager
async def _rpc(kubo: Kubo, **more: Any) -> AsyncIterator[KuboRpc]:
    rpc = KuboRpc("kubo", read_section(KuboSettings, kubo.settings(**more), backend="kubo"))
    try:
        yield rpc
    finally:
        await rpc.close()


@asynccontextmanager
async def _backend(kubo: Kubo, **more: Any) -> AsyncIterator[KuboBackend]:
    backend = KuboBackend(
        "kubo", read_section(KuboSettings, kubo.settings(**({"fetch_timeout_seconds": 0} | more)), backend="kubo")
    )
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture
async def rpc(kubo: Kubo) -> AsyncGenerator[KuboRpc, None]:
    async with _rpc(kubo) as rpc:
        yield rpc


@pytest.fixture
async def backend(kubo: Kubo) -> AsyncGenerator[KuboBackend, None]:
    async with _backend(kubo) as backend:
        yield backend


VECTORS = [pytest.param(vector, id=str(vector["size"])) for vector in CIDS["vectors"]]


@pytest.mark.parametrize("vector", VECTORS)
async def test_kubo_adds_a_file_under_the_cid_that_we_computed(
    rpc: KuboRpc, data: Path, vector: dict[str, Any]
) -> None:
    assert await rpc.add(_in_pieces(data, vector["size"]), only_hash=True) == vector["cids"][PROFILE]


@pytest.mark.parametrize("vector", VECTORS)
async def test_kubo_pins_what_our_car_holds(rpc: KuboRpc, data: Path, vector: dict[str, Any]) -> None:
    content = _id(vector)
    async with aclosing(as_car(content, _in_pieces(data, content.size), backend="test")) as car:
        assert await rpc.dag_import(car, pin_roots=True) == {content.cid}
    assert await rpc.pinned(content.cid) == ""
    assert await rpc.unpin(content.cid)


async def test_a_node_that_drops_one_parameter_finds_another_cid(
    rpc: KuboRpc, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = next(vector for vector in CIDS["vectors"] if vector["size"] == 200 * MIB)
    monkeypatch.setattr(
        rpc_module, "ADD", {key: value for key, value in rpc_module.ADD.items() if key != "max-file-links"}
    )
    wrong = await rpc.add(_in_pieces(data, vector["size"]), only_hash=True)
    # The node's own configuration names the profile too; the old default must be asked for to be met.
    monkeypatch.setattr(rpc_module, "ADD", rpc_module.ADD | {"max-file-links": "174"})
    trap = await rpc.add(_in_pieces(data, vector["size"]), only_hash=True)
    assert (wrong, trap) == (vector["cids"][PROFILE], "bafybeiatj4kvbr3a4pagtmnpivue6yx5raekwddzhzeolsbzchuzwo4hn4")


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, LARGE])
async def test_a_file_comes_back_as_it_was_stored(backend: KuboBackend, size: int) -> None:
    file = File.of(f"round trip {size}", size)
    assert await backend.stat(file.content) is None
    await backend.put(file.content, file.chunks())
    assert await backend.stat(file.content) == Stat(content=file.content)
    assert await read_all(backend, file.content) == file.data


async def test_storing_it_again_reads_nothing(backend: KuboBackend) -> None:
    file = File.of("again", 3 * MIB)
    await backend.put(file.content, file.chunks())
    unread = file.chunks()
    await backend.put(file.content, unread)
    assert await anext(unread) == file.data[:300_000]
    await unread.aclose()


async def test_every_block_of_a_file_is_had_by_its_cid(backend: KuboBackend) -> None:
    file = File.of("blocks", 2 * MIB + 5)
    await backend.put(file.content, file.chunks())
    leaf = file.data[MIB : 2 * MIB]
    assert await backend.get_block(raw_cid(sha256_of(leaf))) == leaf
    assert len(await backend.get_block(file.content.cid)) < 1000
    with pytest.raises(NotFound):
        await backend.get_block(raw_cid(sha256_of(b"nobody has this")))


async def test_other_bytes_are_refused_and_leave_nothing_pinned(backend: KuboBackend) -> None:
    file, other = File.of("right", 3 * MIB), File.of("wrong", 3 * MIB)
    with pytest.raises(WrongContent):
        await backend.put(file.content, other.chunks())
    assert (await backend.stat(file.content), await backend.stat(other.content)) == (None, None)


async def test_what_the_source_raises_goes_through_and_leaves_nothing(backend: KuboBackend) -> None:
    file = File.of("breaks off", 3 * MIB)

    class Broken(Exception): ...

    async def broken() -> AsyncGenerator[bytes, None]:
        yield file.data[: 2 * MIB]
        raise Broken

    with pytest.raises(Broken):
        await backend.put(file.content, broken())
    assert await backend.stat(file.content) is None


async def test_a_car_that_lacks_its_root_is_not_pinned(rpc: KuboRpc) -> None:
    file = File.of("lacks its root", 3 * MIB)

    async def without_root() -> AsyncGenerator[bytes, None]:
        async for part in as_car(file.content, file.chunks(), backend="test"):
            if not 40 < len(part) < 1000 or part.startswith(car_header(file.content.cid)):
                yield part

    with pytest.raises(WrongContent, match="does not pin"):
        await rpc.dag_import(without_root(), pin_roots=True)


async def test_what_lacks_a_block_is_not_searched_for_without_end(
    rpc: KuboRpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_module, "PIN_STALL_SECONDS", 0.7)
    file = File.of("lacks a block", 3 * MIB)

    async def without_leaf() -> AsyncGenerator[bytes, None]:
        async for part in as_car(file.content, file.chunks(), backend="test"):
            if file.data[MIB : MIB + 100] not in part:
                yield part

    await rpc.dag_import(without_leaf(), pin_roots=False)
    with pytest.raises(Unavailable, match="in vain"):
        await rpc.pin(file.content.cid, "name")
    assert await rpc.pinned(file.content.cid) is None


async def test_pins_have_names_that_its_operator_can_read(kubo: Kubo, backend: KuboBackend) -> None:
    file = File.of("pins", 10)
    await backend.put(file.content, file.chunks())
    assert f"{file.content.sha256} 10" in kubo.cli("pin", "ls", "--names", "--type=recursive").decode()
    await backend.pin(file.content, "demo-1.0-py3-none-any.whl")
    assert f"{file.content.sha256} 10 demo-1.0-py3-none-any.whl" in kubo.cli("pin", "ls", "--names").decode()
    assert await backend.stat(file.content) == Stat(content=file.content, pin="demo-1.0-py3-none-any.whl")
    assert not await backend.delete(file.content)
    await backend.unpin(file.content)
    assert await backend.stat(file.content) == Stat(content=file.content)
    assert await backend.delete(file.content)
    assert await backend.stat(file.content) is None
    with pytest.raises(NotFound):
        await read_all(backend, file.content)
    with pytest.raises(NotFound):
        await backend.pin(file.content, "again")
    assert not await backend.delete(file.content)


async def test_what_its_operator_pinned_is_held_and_not_ours_to_delete(kubo: Kubo, backend: KuboBackend) -> None:
    file = File.of("the operator's", 10)
    kubo.cli("add", "--cid-version=1", "--pin-name=mine", "-Q", data=file.data)
    assert await backend.stat(file.content) == Stat(content=file.content, pin="mine")
    assert not await backend.delete(file.content)
    await backend.pin(file.content, "other")
    assert await backend.stat(file.content) == Stat(content=file.content, pin="mine")


async def test_files_are_listed_by_sha256_from_anywhere_on(
    backend: KuboBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index_frontend.storage.kubo.holdings.RUN", 2)
    files = [File.of(f"listed {number}", 100 + number) for number in range(7)]
    for file in files:
        await backend.put(file.content, file.chunks())
    listed = [stat.content async for stat in backend.list()]
    assert listed == sorted(listed, key=lambda content: content.sha256)
    assert {file.content for file in files} <= {*listed}
    assert [stat.content async for stat in backend.list(after=listed[3].sha256)] == listed[4:]


async def test_a_car_that_kubo_exports_holds_the_blocks_we_stored(rpc: KuboRpc, backend: KuboBackend) -> None:
    file = File.of("exported", 3 * MIB + 1)
    await backend.put(file.content, file.chunks())
    reader, leaves = CarReader(max_bytes=2 * len(file.data)), []
    async with rpc.dag_export(file.content.cid) as chunks:
        async for chunk in chunks:
            leaves += [data for cid, data in reader.feed(chunk) if cid == raw_cid(sha256_of(data))]
    reader.finish()
    assert (reader.roots, b"".join(leaves)) == ((file.content.cid,), file.data)


async def test_a_part_of_a_file_is_had(rpc: KuboRpc, backend: KuboBackend) -> None:
    file = File.of("a part", 3 * MIB)
    await backend.put(file.content, file.chunks())
    async with rpc.cat(file.content.cid, offset=MIB - 10, length=20) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == file.data[MIB - 10 : MIB + 10]


async def test_kubo_gives_what_we_stored_to_its_own_clients(kubo: Kubo, backend: KuboBackend, tmp_path: Path) -> None:
    file = File.of("own clients", 3 * MIB)
    await backend.put(file.content, file.chunks())
    assert kubo.cli("cat", file.content.cid) == file.data
    assert kubo.cli("block", "get", file.content.cid) == await backend.get_block(file.content.cid)


async def test_a_car_of_ours_is_a_file_for_anybody_who_has_kubo(kubo: Kubo, tmp_path: Path) -> None:
    file = File.of("a car", 3 * MIB + 5)
    car, got = tmp_path / "file.car", tmp_path / "got"
    car.write_bytes(b"".join([piece async for piece in as_car(file.content, file.chunks(), backend="kubo")]))

    def ipfs(*arguments: str) -> None:
        """The program as anybody runs it, without a daemon."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "IPFS_PATH": str(tmp_path / "repo")}
        subprocess.run(
            [str(kubo.node.binary), *arguments], env=environment, check=True, capture_output=True, timeout=60
        )

    ipfs("init", "--profile=unixfs-v1-2025")
    ipfs("--offline", "dag", "import", str(car))
    ipfs("--offline", "get", file.content.cid, "--output", str(got))
    assert got.read_bytes() == file.data


async def test_kubos_gateway_is_a_peer_like_any_other(kubo: Kubo, backend: KuboBackend) -> None:
    file, other = File.of("by its gateway", 3 * MIB + 5), File.of("not there", 10)
    await backend.put(file.content, file.chunks())
    async with opened(Verified(GatewayBackend("kubo", kubo.gateway))) as gateway:
        assert (await gateway.health()).state == "ok"
        assert await gateway.stat(file.content) is not None
        assert await gateway.stat(other.content) is None
        assert await read_all(gateway, file.content) == file.data
        with pytest.raises(NotFound):
            await gateway.get_block(other.content.cid)


async def test_a_block_comes_from_a_peer_once_they_have_met(kubo_swarm: list[Kubo]) -> None:
    there, here = kubo_swarm
    file = File.of("from a peer", 2 * MIB)
    async with _rpc(there) as rpc:
        (address,) = (await rpc.identity()).addresses or ()
    async with _backend(there) as far:
        await far.put(file.content, file.chunks())
    async with _backend(here) as alone:
        with pytest.raises(NotFound):
            await alone.get_block(file.content.cid)
    async with _backend(here, peers=[address], fetch_timeout_seconds=10) as near:
        leaf = raw_cid(sha256_of(file.data[:MIB]))
        assert await near.get_block(leaf) == file.data[:MIB]
        assert await near.stat(file.content) is None


async def test_a_block_that_nobody_has_is_not_found_in_bounded_time(kubo_swarm: list[Kubo]) -> None:
    there, here = kubo_swarm
    async with _rpc(there) as far, _rpc(here) as near:
        (address,) = (await far.identity()).addresses or ()
        await near.connect(address)
    async with _backend(here, fetch_timeout_seconds=0.2) as backend:
        with pytest.raises(NotFound, match=r"within 0\.2 s"):
            await backend.get_block(raw_cid(sha256_of(b"nobody has that either")))


async def test_a_node_without_company_is_not_made_to_search(tmp_path: Path) -> None:
    with nodes(tmp_path) as (kubo,):
        async with _backend(kubo, fetch_timeout_seconds=600) as backend, asyncio.timeout(5):
            with pytest.raises(NotFound):
                await backend.get_block(raw_cid(sha256_of(b"nobody has that either")))


async def test_another_token_is_refused_everywhere(kubo: Kubo, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("another\n")
    file = File.of("unauthorised", 2 * MIB)
    async with _backend(kubo, token_file=str(tmp_path / "token")) as backend:
        for call in (
            backend.stat(file.content),
            backend.put(file.content, file.chunks()),
            backend.get_block(file.content.cid),
            read_all(backend, file.content),
            backend.usage(),
        ):
            with pytest.raises(Unauthorised, match="token"):
                await call
        assert "token" in (await backend.health()).detail


async def test_the_token_opens_nothing_but_what_is_needed(kubo: Kubo, rpc: KuboRpc) -> None:
    with pytest.raises(Unauthorised):
        await rpc._wire.answer(rpc._wire.url("config/show"), {})


async def test_it_is_well_and_says_how_full_it_is(backend: KuboBackend) -> None:
    health, usage = await backend.health(), await backend.usage()
    assert (health.state, health.detail.startswith("Kubo 0.")) == ("ok", True)
    assert usage == Usage(bytes=usage.bytes)
    assert usage.bytes > 0


async def test_a_full_node_takes_nothing_until_something_is_deleted(tmp_path: Path) -> None:
    with nodes(tmp_path) as (kubo,):
        first, second = File.of("first", 8 * MIB), File.of("second", 8 * MIB)
        async with _backend(kubo, max_bytes=12 * MIB) as backend:
            await backend.put(first.content, first.chunks())
            with pytest.raises(StorageFull, match="max_bytes"):
                await backend.put(second.content, second.chunks())
            assert await read_all(backend, first.content) == first.data
            assert await backend.delete(first.content)
            await backend.put(second.content, second.chunks())
            assert await read_all(backend, second.content) == second.data
            with pytest.raises(NotFound):
                await backend.get_block(first.content.cid)
            assert (await backend.usage()).limit_bytes == 12 * MIB
        async with _backend(kubo, max_bytes=MIB) as backend:
            assert (await backend.health()).state == "degraded"


async def test_a_node_that_was_away_is_used_again_with_its_peers(kubo_swarm: list[Kubo], tmp_path: Path) -> None:
    peer = f"/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW{'A' * 44}"
    async with _rpc(kubo_swarm[1]) as other:
        (peer,) = (await other.identity()).addresses or ()
    file = File.of("away", MIB)
    with nodes(tmp_path) as (kubo,):
        async with _backend(kubo, peers=[peer], connect_timeout_seconds=1) as backend:
            await backend.put(file.content, file.chunks())
            kubo.stop()
            for call in (backend.stat(file.content), backend.get_block(file.content.cid), backend.usage()):
                with pytest.raises(Unavailable):
                    await call
            assert (await backend.health()).state == "down"
            kubo.start()
            assert (await backend.health()).state == "ok"
            assert await read_all(backend, file.content) == file.data
            async with _rpc(kubo) as rpc:
                assert await rpc.peering() == {peer.rpartition("/")[2]}


async def test_a_name_too_long_for_kubo_is_cut(backend: KuboBackend) -> None:
    file = File.of("a long name", 10)
    await backend.put(file.content, file.chunks())
    await backend.pin(file.content, "ü" * 200)
    stat = await backend.stat(file.content)
    assert stat is not None
    assert stat == replace(stat, pin="ü" * len(stat.pin or ""))
    assert len((stat.pin or "").encode()) > 150
