"""Over a node that lies, breaks off, is silent, or says no: typed errors in bounded time, and nothing wrong kept."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from index_frontend.storage.api import (
    BackendProblem,
    Misconfigured,
    NotFound,
    StorageFull,
    Unauthorised,
    Unavailable,
    WrongContent,
)
from index_frontend.storage.kubo.backend import KuboBackend, backend
from index_frontend.storage.kubo.rpc import KuboRpc
from index_frontend.storage.kubo.settings import KuboSettings
from index_frontend.storage.registry import read_section
from tests.conformance.kubo.expected import MIB, File, read_all
from tests.support.fake_kubo import (
    TOKEN,
    FakeKubo,
    Fault,
    cut,
    deaf,
    error_line,
    says,
    silent,
    silent_after_half,
    too_long,
    truncated,
)

SILENCE_SECONDS = 0.4
BOUND_SECONDS = 5.0
HELD, NEW = File.of("held", 3 * MIB), File.of("new", 3 * MIB)

Call = Callable[[KuboBackend], Awaitable[Any]]


async def _list(backend: KuboBackend) -> list[Any]:
    return [stat async for stat in backend.list()]


CALLS: dict[str, tuple[str, Call]] = {
    "stat": ("pin/ls", lambda backend: backend.stat(HELD.content)),
    "read": ("cat", lambda backend: read_all(backend, HELD.content)),
    "import": ("dag/import", lambda backend: backend.put(NEW.content, NEW.chunks())),
    "pin": ("pin/add", lambda backend: backend.pin(HELD.content, "name")),
    "put": ("pin/add", lambda backend: backend.put(NEW.content, NEW.chunks())),
    "delete": ("pin/rm", lambda backend: backend.delete(HELD.content)),
    "block": ("block/get", lambda backend: backend.get_block(HELD.content.cid)),
    "list": ("pin/ls", _list),
    "usage": ("repo/stat", lambda backend: backend.usage()),
}
EVERYWHERE: dict[str, tuple[Fault, type[BackendProblem]]] = {
    "a page of a proxy": (says(502, b"<html>Bad gateway: could not find it</html>"), Unavailable),
    "an error that is not Kubo's": (says(502, b'{"Message":"could not find","Code":0,"Type":"error"}'), Unavailable),
    "too many requests": (says(429, b""), Unavailable),
    "a redirect": (says(302, b"", Location="http://127.0.0.1:9/"), Unavailable),
    "not logged in": (says(401, b""), Unauthorised),
    "forbidden": (says(403, b"403 - Forbidden"), Unauthorised),
    "an error of Kubo's": (says(500, b'{"Message":"the disk is on fire","Code":0,"Type":"error"}'), Unavailable),
    "silence": (silent, Unavailable),
}


@pytest.fixture
async def kubo() -> AsyncGenerator[FakeKubo, None]:
    async with FakeKubo() as fake:
        yield fake


def _settings(kubo: FakeKubo, folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "token").write_text(TOKEN)
    bounds = {"connect_timeout_seconds": 1, "silence_timeout_seconds": SILENCE_SECONDS, "fetch_timeout_seconds": 0}
    return {"url": kubo.url, "token_file": str(folder / "token"), **bounds, **more}


@pytest.fixture
async def store(kubo: FakeKubo, tmp_path: Path) -> AsyncGenerator[KuboBackend, None]:
    """A backend over the node, which holds HELD."""
    made = KuboBackend("kubo", read_section(KuboSettings, _settings(kubo, tmp_path), backend="kubo"))
    await made.open()
    await made.put(HELD.content, HELD.chunks())
    yield made
    await made.close()


@pytest.fixture
async def rpc(kubo: FakeKubo, tmp_path: Path) -> AsyncGenerator[KuboRpc, None]:
    made = KuboRpc("kubo", read_section(KuboSettings, _settings(kubo, tmp_path), backend="kubo"))
    yield made
    await made.close()


@pytest.mark.parametrize("fault", EVERYWHERE)
@pytest.mark.parametrize("name", CALLS)
async def test_every_fault_of_every_call_is_told_in_time(
    kubo: FakeKubo, store: KuboBackend, name: str, fault: str
) -> None:
    command, call = CALLS[name]
    broken, expected = EVERYWHERE[fault]
    kubo.fault(command, broken)
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(BackendProblem) as caught:
            await call(store)
    assert (type(caught.value), caught.value.backend) == (expected, "kubo")


@pytest.mark.parametrize("fault", [truncated, cut, silent_after_half, too_long], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", CALLS)
async def test_an_answer_that_is_not_whole_is_never_taken_for_one(
    kubo: FakeKubo, store: KuboBackend, name: str, fault: Fault
) -> None:
    command, call = CALLS[name]
    right = None if name in ("put", "import", "pin", "delete") else await call(store)
    kubo.fault(command, fault)
    async with asyncio.timeout(BOUND_SECONDS):
        try:
            told = await call(store)
        except (Unavailable, WrongContent):
            return
    # A block has no length to count: `storage.verified` hashes it. A list that ends early lists less. Blanks behind JSON mean nothing.
    assert name in ("block", "list", "import", "delete") or (fault, told) == (too_long, right)


async def test_what_a_node_adds_in_the_middle_of_a_file_is_counted(kubo: FakeKubo, store: KuboBackend) -> None:
    kubo.fault("cat", too_long)
    with pytest.raises(WrongContent, match="more than the 3145728 bytes"):
        await read_all(store, HELD.content)
    kubo.fault("cat", truncated)
    with pytest.raises(Unavailable, match="1572864 of 3145728"):
        await read_all(store, HELD.content)


async def test_an_error_under_a_status_200_is_one(kubo: FakeKubo, store: KuboBackend) -> None:
    kubo.fault("dag/import", error_line)
    with pytest.raises(Unavailable, match="on fire"):
        await store.put(NEW.content, NEW.chunks())
    assert await store.stat(NEW.content) is None
    kubo.mend()
    kubo.fault("pin/add", error_line)
    with pytest.raises(Unavailable, match="on fire"):
        await store.put(NEW.content, NEW.chunks())


async def test_a_pin_error_under_a_status_200_is_one(kubo: FakeKubo, store: KuboBackend) -> None:
    kubo.pin_error = "ipld: could not find bafy"
    with pytest.raises(WrongContent, match="does not pin"):
        await store.put(NEW.content, NEW.chunks())
    kubo.mend()
    assert await store.stat(NEW.content) is None


async def test_a_node_that_takes_nothing_is_given_up(kubo: FakeKubo, store: KuboBackend) -> None:
    kubo.fault("dag/import", deaf)
    large = File.of("large", 40 * MIB)
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(Unavailable, match="takes nothing more"):
            await store.put(large.content, large.chunks())


async def test_a_source_may_be_slower_than_a_node_may_be(kubo: FakeKubo, store: KuboBackend) -> None:
    async def slow() -> AsyncGenerator[bytes, None]:
        yield NEW.data[:MIB]
        await asyncio.sleep(2 * SILENCE_SECONDS)
        yield NEW.data[MIB:]

    await store.put(NEW.content, slow())
    assert await read_all(store, NEW.content) == NEW.data


async def test_a_cancelled_put_leaves_nothing(kubo: FakeKubo, store: KuboBackend) -> None:
    reached = asyncio.Event()

    async def waits() -> AsyncGenerator[bytes, None]:
        yield NEW.data[: 2 * MIB]
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put(NEW.content, waits()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.stat(NEW.content) is None


async def test_a_node_without_import_adds_and_its_cid_is_compared(kubo: FakeKubo, tmp_path: Path) -> None:
    kubo.absent = {"dag/import"}
    store = KuboBackend("kubo", read_section(KuboSettings, _settings(kubo, tmp_path), backend="kubo"))
    await store.open()
    try:
        await store.put(NEW.content, NEW.chunks())
        assert await read_all(store, NEW.content) == NEW.data
        kubo.adds = str(HELD.content.cid)
        other = File.of("other", 5)
        with pytest.raises(WrongContent, match=f"calls {other.content.cid} {HELD.content.cid}"):
            await store.put(other.content, other.chunks())
        assert kubo.pins.keys() == {NEW.content.cid}
    finally:
        await store.close()


async def test_a_full_disk_is_full(kubo: FakeKubo, store: KuboBackend) -> None:
    kubo.fault("dag/import", says(500, b'{"Message":"write /b: no space left on device","Code":0,"Type":"error"}'))
    with pytest.raises(StorageFull, match="no space left"):
        await store.put(NEW.content, NEW.chunks())


async def test_blocks_that_are_collected_before_they_are_pinned_make_it_try_again_later(
    kubo: FakeKubo, store: KuboBackend
) -> None:
    async def collected(_: Any, __: bytes) -> Any:
        kubo.blocks.clear()
        return await says(200, b"")(_, __)

    kubo.fault("dag/import", collected)
    with pytest.raises(Unavailable, match="does not have all"):
        await store.put(NEW.content, NEW.chunks())


def drips(*lines: bytes) -> Fault:
    """A status 200, and then the lines in turn, for ever, none of them late."""

    async def send(request: web.Request, _: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in itertools.cycle(lines):
            await response.write(line + b"\n")
            await asyncio.sleep(SILENCE_SECONDS / 20)
        raise AssertionError

    return send


@pytest.mark.parametrize("command", ["dag/import", "pin/add"])
@pytest.mark.parametrize("lines", [(b"",), (b'{"Progress":1}', b'{"Progress":2}')], ids=["blank", "to and fro"])
async def test_a_node_that_is_never_silent_and_never_done_is_given_up(
    kubo: FakeKubo, store: KuboBackend, command: str, lines: tuple[bytes, ...]
) -> None:
    kubo.fault(command, drips(*lines))
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(Unavailable):
            await store.put(NEW.content, NEW.chunks())


async def test_what_another_process_deletes_makes_room_in_a_full_node(kubo: FakeKubo, tmp_path: Path) -> None:
    settings = _settings(kubo, tmp_path, max_bytes=4 * MIB)
    one, other = (KuboBackend("kubo", read_section(KuboSettings, settings, backend="kubo")) for _ in range(2))
    await one.open()
    await other.open()
    try:
        await one.put(HELD.content, HELD.chunks())
        for _ in range(2):  # all there is of garbage has been collected
            with pytest.raises(StorageFull):
                await one.put(NEW.content, NEW.chunks())
        assert kubo.seen.count("repo/gc") == 1
        assert await other.delete(HELD.content)
        with pytest.raises(StorageFull):
            await one.put(NEW.content, NEW.chunks())
        assert kubo.seen.count("repo/gc") == 1  # not for each file that finds no room
        one._next_collection = 0.0  # ten minutes later
        await one.put(NEW.content, NEW.chunks())
        assert kubo.pins.keys() == {NEW.content.cid}
    finally:
        await one.close()
        await other.close()


async def test_nobody_there_is_never_called_absence(kubo: FakeKubo, store: KuboBackend) -> None:
    await kubo.off()
    for _, call in CALLS.values():
        with pytest.raises(Unavailable):
            await call(store)
    health = await store.health()
    assert (health.state, "is the Kubo node running" in health.detail) == ("down", True)


async def test_a_backend_opens_over_a_node_that_is_away(kubo: FakeKubo, tmp_path: Path) -> None:
    peer = f"/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW{'A' * 44}"
    await kubo.off()
    store = KuboBackend("kubo", read_section(KuboSettings, _settings(kubo, tmp_path, peers=[peer]), backend="kubo"))
    await store.open()
    await store.open()
    assert (await store.health()).state == "down"
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.stat(HELD.content)


async def test_a_silent_node_is_down_within_two_seconds(kubo: FakeKubo, tmp_path: Path) -> None:
    store = KuboBackend(
        "kubo", read_section(KuboSettings, _settings(kubo, tmp_path, silence_timeout_seconds=60), backend="kubo")
    )
    await store.open()
    kubo.fault("*", silent)
    async with asyncio.timeout(2):
        assert (await store.health()).state == "down"
    await store.close()


async def test_every_request_carries_the_token(kubo: FakeKubo, store: KuboBackend) -> None:
    for _, call in CALLS.values():
        await call(store)  # the node refuses whatever comes without it
    await store.unpin(HELD.content)
    assert await store.delete(HELD.content)
    assert {*kubo.seen} >= {command for command, _ in CALLS.values()}


async def test_no_answer_is_read_without_end(kubo: FakeKubo, rpc: KuboRpc, store: KuboBackend) -> None:
    kubo.fault("block/get", too_long)
    with pytest.raises(Unavailable, match="more than 2097152 bytes"):
        await rpc.block(HELD.content.cid)
    kubo.fault("pin/add", says(200, b'{"Progress":' + b"1" * 400_000))
    with pytest.raises(Unavailable):
        await store.pin(HELD.content, "name")


async def test_what_its_operator_pinned_without_a_name_stays_his_when_it_is_stored_too(
    kubo: FakeKubo, store: KuboBackend
) -> None:
    file = File.of("pinned by hand", 10)
    await store.put(file.content, file.chunks())
    kubo.pins[file.content.cid] = ""
    await store.put(file.content, file.chunks())
    assert (await store.delete(file.content), kubo.pins[file.content.cid]) == (False, "")


async def test_a_name_of_somebody_elses_pin_is_not_taken_for_ours(kubo: FakeKubo, store: KuboBackend) -> None:
    kubo.pins |= {"QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH": f"{'0' * 64} 5", HELD.content.cid: "\x1b[31m 3"}
    assert await _list(store) == []
    stat = await store.stat(HELD.content)
    assert stat is not None
    assert stat.pin == "\x1b[31m 3"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://user:secret@x"}, "url"),
        ({}, ""),
        ({"url": "http://x", "network": "open"}, "network"),
        ({"url": "http://x", "peers": ["12D3"]}, "peers"),
        ({"url": "http://x", "max_bytes": -1}, "max_bytes"),
        ({"url": "http://x", "mx_bytes": 1}, "mx_bytes"),
    ],
)
def test_a_wrong_section_names_its_key(section: dict[str, Any], key: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        backend("store", section)
    assert (caught.value.key, caught.value.backend) == (key, "store")


async def test_a_token_that_is_not_there_is_told(tmp_path: Path) -> None:
    store = backend("store", {"url": "http://127.0.0.1:9", "token_file": str(tmp_path / "none")})
    with pytest.raises(Misconfigured, match="does not exist"):
        await store.open()


async def test_absence_is_not_found(store: KuboBackend) -> None:
    assert await store.stat(NEW.content) is None
    assert not await store.delete(NEW.content)
    for call in (read_all(store, NEW.content), store.pin(NEW.content, "x"), store.get_block(NEW.content.cid)):
        with pytest.raises(NotFound):
            await call
