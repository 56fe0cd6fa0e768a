"""Copies in another backend: of everything that clients were given and that may be served, and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from index_frontend.digest_gate import Tally
from index_frontend.fill import copier as module
from index_frontend.fill.copier import Copier
from index_frontend.ports import Held
from index_frontend.storage.api import ContentId, Health, Stat, Unavailable
from index_frontend.storage.filestore import FileStore, open_filestore
from index_frontend.storage.memory import MemoryStore
from index_frontend.storage.store_backend import StoreBackend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import Change, Decision, Stored
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.file_side import ScriptedOracle


class Elsewhere(StoreBackend):
    """A backend that is away when a test says so."""

    def __init__(self, name: str = "elsewhere") -> None:
        store = MemoryStore()
        super().__init__(name, lambda: nullcontext(store))
        self.is_away = False
        self.never: Sha256 | None = None
        self.asked = 0

    async def health(self) -> Health:
        return Health(state="down") if self.is_away else await super().health()

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        if content.sha256 == self.never:
            raise Unavailable("not this one", backend=self.name)
        await super().put(content, chunks)

    async def stat(self, content: ContentId) -> Stat | None:
        self.asked += 1
        if self.is_away:
            raise Unavailable("is away", backend=self.name)
        return await super().stat(content)


class Asked(ScriptedOracle):
    """An oracle to whom things happen while it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0
        self._happens: dict[str, Callable[[], None]] = {}

    def when_asked(self, file: str, happens: Callable[[], None]) -> None:
        """Once: after the answer about `file` is decided, before it is given."""
        self._happens[file] = happens

    async def standing_of(self, project: ProjectName, file: FileName) -> Decision:
        """See ports.Oracle."""
        decision = await super().standing_of(project, file)
        self.answers += 1
        if happens := self._happens.pop(file, None):
            happens()
        return decision


@dataclass(slots=True)
class World:
    """A store with its copier, as one process has them."""

    store: FileStore
    oracle: ScriptedOracle
    elsewhere: Elsewhere
    copier: Copier

    async def given(self, name: str, data: bytes, action: str = "serve+attest") -> Held:
        """A client was given the file, and the bot was told of it, and says since what `action` is."""
        sha256 = sha256_of(data)
        self.say(name, sha256, action)
        tally = Tally(sha256, size=len(data), max_bytes=len(data))
        tally.update(data)
        async with self.store.writer(sha256) as writer:
            held = writer if isinstance(writer, Held) else await writer.commit(tally.finish(), data)
        report = Stored(project="mxa", file=name, sha256=sha256, size=len(data), cid=held.cid, source="upstream")
        await self.store.note_asked(report)
        await self.store.reported(report)
        return held

    def say(self, name: str, sha256: Sha256, action: str) -> None:
        """What the bot says of a file from now on."""
        serves = action == "serve+attest"
        decision = Decision(
            action=action, http=200 if serves else 403, rule="R8", project="mxa", file=name, path=f"/packages/{name}"
        )
        self.oracle.say(msgspec.structs.replace(decision, sha256=sha256 if serves else None))

    async def has_copy(self, held: Held) -> bool:
        return await StoreBackend.stat(self.elsewhere, content(held)) is not None


def content(held: Held) -> ContentId:
    return ContentId(sha256=held.sha256, size=held.size, cid=held.cid)


async def until(condition: Callable[[], object]) -> None:
    """Returns when `condition` (or what it awaits) is true."""
    async with asyncio.timeout(10):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.002)
    monkeypatch.setattr(module, "RECHECKED_APART_SECONDS", 0.0)


@asynccontextmanager
async def living(folder: Path, elsewhere: Elsewhere, oracle: ScriptedOracle | None = None) -> AsyncIterator[World]:
    """One life of the process; `elsewhere` outlives it."""
    oracle = oracle or ScriptedOracle()
    async with open_filestore(folder) as store:
        embedded = Verified(StoreBackend("file", lambda: nullcontext(store)))
        target = Verified(elsewhere)
        await embedded.open()
        await target.open()
        world = World(store, oracle, elsewhere, Copier(store, embedded, target, oracle))
        running = asyncio.create_task(world.copier.run())
        try:
            yield world
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await target.close()


async def test_what_clients_were_given_is_copied_with_its_cid(tmp_path: Path) -> None:
    async with living(tmp_path, Elsewhere()) as world:
        for name, data in (("mxa-1.zip", b"one"), ("mxa-2.zip", bytes(3 << 20))):
            held = await world.given(name, data)
            await until(lambda held=held: world.has_copy(held))


async def test_a_refused_file_is_not_copied_and_does_not_hold_up_the_next(tmp_path: Path) -> None:
    async with living(tmp_path, Elsewhere()) as world:
        refused = await world.given("mxa-1.zip", b"one", "refuse")
        served = await world.given("mxa-2.zip", b"two")
        await until(lambda: world.has_copy(served))
        assert not await world.has_copy(refused)


async def test_a_file_of_which_nobody_knows_how_it_stands_is_copied_when_somebody_does(tmp_path: Path) -> None:
    async with living(tmp_path, Elsewhere()) as world:
        first = await world.given("mxa-1.zip", b"one", "contested")
        second = await world.given("mxa-2.zip", b"two")
        await until(lambda: world.has_copy(second))
        assert not await world.has_copy(first)
        world.say("mxa-1.zip", first.sha256, "serve+attest")
        await until(lambda: world.has_copy(first))


async def test_the_copy_of_a_file_that_is_withdrawn_is_taken_back(tmp_path: Path) -> None:
    async with living(tmp_path, Elsewhere()) as world:
        held = await world.given("mxa-1.zip", b"one")
        await until(lambda: world.has_copy(held))
        world.say("mxa-1.zip", held.sha256, "refuse")
        world.copier.hear(Change(seq=2, project="mxa", revision="2", withdrawn=("mxa-1.zip",)))
        await until(lambda: not_now(world.has_copy(held)))


async def test_the_same_bytes_under_a_name_that_is_served_keep_their_copy(tmp_path: Path) -> None:
    async with living(tmp_path, Elsewhere()) as world:
        held = await world.given("mxa-1.zip", b"one")
        await world.given("mxa-2.zip", b"one")
        await until(lambda: world.has_copy(held))
        world.say("mxa-1.zip", held.sha256, "refuse")
        world.copier.hear(Change(seq=2, project="mxa", revision="2", withdrawn=("mxa-1.zip",)))
        other = await world.given("mxa-3.zip", b"three")  # by when it is copied the other was dealt with
        await until(lambda: world.has_copy(other))
        assert await world.has_copy(held)


async def test_what_was_contested_before_a_restart_is_copied_when_it_is_served(tmp_path: Path) -> None:
    elsewhere, oracle = Elsewhere(), ScriptedOracle()
    async with living(tmp_path, elsewhere, oracle) as world:
        held = await world.given("mxa-1.zip", b"one", "contested")
        await until(lambda: is_zero(world.store.left_to_copy("elsewhere")))
    world.say("mxa-1.zip", held.sha256, "serve+attest")
    async with living(tmp_path, elsewhere, oracle) as world:
        await until(lambda: world.has_copy(held))


async def test_a_file_that_was_refused_and_is_released_is_copied_again(tmp_path: Path) -> None:
    async with living(tmp_path, Elsewhere()) as world:
        held = await world.given("mxa-1.zip", b"one")
        await until(lambda: world.has_copy(held))
        world.say("mxa-1.zip", held.sha256, "refuse")
        world.copier.hear(Change(seq=2, project="mxa", revision="2", withdrawn=("mxa-1.zip",)))
        await until(lambda: not_now(world.has_copy(held)))
        world.say("mxa-1.zip", held.sha256, "serve+attest")
        await until(lambda: world.has_copy(held))


async def test_a_file_that_the_backend_never_takes_does_not_hold_up_the_others(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    async with living(tmp_path, elsewhere) as world:
        elsewhere.never = sha256_of(b"one")
        first, second = await world.given("mxa-1.zip", b"one"), await world.given("mxa-2.zip", b"two")
        await until(lambda: world.has_copy(second))
        assert not await world.has_copy(first)
        elsewhere.never = None
        await until(lambda: world.has_copy(first))


async def test_what_was_refused_while_nobody_listened_is_taken_back_at_the_next_start(tmp_path: Path) -> None:
    elsewhere, oracle = Elsewhere(), ScriptedOracle()
    async with living(tmp_path, elsewhere, oracle) as world:
        held = await world.given("mxa-1.zip", b"one")
        await until(lambda: world.has_copy(held))
    world.say("mxa-1.zip", held.sha256, "refuse")
    async with living(tmp_path, elsewhere, oracle) as world:
        await until(lambda: not_now(world.has_copy(held)))


async def test_a_backend_that_was_away_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    elsewhere.is_away = True
    async with living(tmp_path, elsewhere) as world:
        held = [await world.given(f"mxa-{number}.zip", b"%d" % number) for number in range(5)]
        await until(lambda: elsewhere.asked > 2)
        assert await world.store.left_to_copy("elsewhere") == 5
        elsewhere.is_away = False
        for one in held:
            await until(lambda one=one: world.has_copy(one))
        await until(lambda: is_zero(world.store.left_to_copy("elsewhere")))


async def test_what_one_process_left_uncopied_the_next_one_copies(tmp_path: Path) -> None:
    elsewhere, oracle = Elsewhere(), ScriptedOracle()
    elsewhere.is_away = True
    async with living(tmp_path, elsewhere, oracle) as world:
        held = await world.given("mxa-1.zip", b"one")
        await until(lambda: elsewhere.asked)
    elsewhere.is_away = False
    async with living(tmp_path, elsewhere, oracle) as world:
        await until(lambda: world.has_copy(held))


async def test_an_evicted_file_is_passed_over(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    elsewhere.is_away = True
    async with living(tmp_path, elsewhere) as world:
        gone, here = await world.given("mxa-1.zip", b"one"), await world.given("mxa-2.zip", b"two")
        await world.store.delete(gone.sha256)
        elsewhere.is_away = False
        await until(lambda: world.has_copy(here))
        assert not await world.has_copy(gone)


async def test_what_was_refused_while_copies_were_looked_through_is_taken_back_too(tmp_path: Path) -> None:
    elsewhere, oracle = Elsewhere(), Asked()
    async with living(tmp_path, elsewhere, oracle) as world:
        first, second = await world.given("mxa-1.zip", b"one"), await world.given("mxa-2.zip", b"two")
        await until(lambda: world.has_copy(second))
        await until(lambda: is_zero(world.store.left_to_copy("elsewhere")))
    async with living(tmp_path, elsewhere, oracle) as world:

        def refuse_the_first_and_tell_nobody() -> None:
            world.say("mxa-1.zip", first.sha256, "refuse")
            world.copier.hear(Change(seq=9, reset=True))

        oracle.when_asked("mxa-2.zip", refuse_the_first_and_tell_nobody)
        await until(lambda: not_now(world.has_copy(first)))
        assert await world.has_copy(second)


async def test_what_is_withdrawn_again_while_it_is_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    oracle = Asked()
    async with living(tmp_path, Elsewhere(), oracle) as world:
        held = await world.given("mxa-1.zip", b"one")
        await until(lambda: oracle.answers >= 2)  # it was copied, and asked about again
        withdrawn = Change(seq=2, project="mxa", revision="2", withdrawn=("mxa-1.zip",))

        def withdraw() -> None:
            world.say("mxa-1.zip", held.sha256, "refuse")
            world.copier.hear(withdrawn)

        oracle.when_asked("mxa-1.zip", withdraw)
        world.copier.hear(withdrawn)
        await until(lambda: not_now(world.has_copy(held)))


async def test_so_many_withdrawals_are_remembered_by_who_does_not_copy_and_none_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WITHDRAWN", 2)
    async with living(tmp_path, Elsewhere()) as world:
        held = [await world.given(f"mxa-{number}.zip", b"%d" % number) for number in range(4)]
        await until(lambda: is_zero(world.store.left_to_copy("elsewhere")))
        for number, one in enumerate(held):
            world.say(f"mxa-{number}.zip", one.sha256, "refuse")
            world.copier.hear(Change(seq=number, project="mxa", withdrawn=(f"mxa-{number}.zip",)))
        for one in held:
            await until(lambda one=one: not_now(world.has_copy(one)))


async def not_now(found: Awaitable[bool]) -> bool:
    """The opposite of what is awaited."""
    return not await found


async def is_zero(found: Awaitable[int]) -> bool:
    """Of what is awaited."""
    return await found == 0
