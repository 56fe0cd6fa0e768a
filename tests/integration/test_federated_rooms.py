"""Two bots on two real homeservers that federate: one room where it can be one, all rooms read, nothing lost, whoever has the power."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest

from matrix_pypi_bot.adapters.clock import SystemClock
from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.adapters.matrix.side import MatrixSide
from matrix_pypi_bot.ports import RoomRow, Store
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.services.intake import Intake, ledger_row
from matrix_pypi_bot.services.latecomers import TIE
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.keyrings import known_members
from tests.support.matrix import MatrixRefusal
from tests.support.statements import Organisation
from tests.support.synapse import Synapse, federating_synapses

pytestmark = pytest.mark.integration

T = TypeVar("T")
ATTESTATION = "io.matrix_pypi.attestation.v1"
TIMEOUT_SECONDS = 60
CATCH_UP_SECONDS = 300  # a homeserver on a busy machine resolves the state of a room four times a second
_numbers = count(1)


@pytest.fixture(scope="module")
def synapses() -> Iterator[tuple[Synapse, ...]]:
    with federating_synapses(2) as running:
        yield running


@pytest.fixture
def project() -> str:
    """A project that no other test uses."""
    return f"fed{next(_numbers)}"


@dataclass
class Bot:
    """The Matrix half of an organisation's bot."""

    organisation: Organisation
    synapse: Synapse
    side: MatrixSide
    store: Store

    @property
    def peer(self) -> Peer:
        return Peer(self.organisation.name, self.synapse.bot.user_id)

    async def until(
        self, condition: Callable[[], Awaitable[T | None]], what: str, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> T:
        """The first true result, waited for."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not (found := await condition()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"waited in vain until {what}") from None
        assert found
        return found

    async def attest(self, project: str, *files: str) -> None:
        """Signed, kept and queued, as the attester does it."""
        async with self.store.transaction() as t:
            for file in files:
                await t.ledger.keep(ledger_row(self.organisation.attest(file), via="own", at_ms=1))
                post = self.organisation.post(file)
                await t.mail.send(f"project:{project}", post.type, post.state_key, json.dumps(post.content).encode(), 1)
        self.side.poke()

    async def until_sent(self) -> None:
        async def empty() -> bool:
            async with self.store.transaction() as t:
                return (await t.mail.backlog()).queued == 0

        await self.until(empty, "the outbox is empty")

    async def until_kept(self, project: str, files: set[str], *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Waits as long as there is more every now and then: hundreds of statements take their time on a busy machine."""
        kept = await self.kept(project)
        while not kept >= files:
            before = kept

            async def more() -> bool:
                nonlocal kept
                kept = await self.kept(project)
                return kept != before  # noqa: B023 - awaited at once

            missing = (
                f"{len(files - before)} of {len(files)} statements about {project} come to {self.organisation.name}"
            )
            await self.until(more, missing, timeout_seconds=timeout_seconds)

    async def kept(self, project: str) -> set[str]:
        """The files of the project that it knows attestations of."""
        async with self.store.transaction() as t:
            return {str(row.file) for row in await t.ledger.attestations(ProjectName(project))}

    async def room(self, key: str, *, lost: bool = False) -> RoomRow:
        """The room with this key, waited for."""

        async def known() -> RoomRow | None:
            async with self.store.transaction() as t:
                row = await t.mail.room(key)
            return row if row is not None and row.lost == lost else None

        return await self.until(known, f"{self.organisation.name} has the room {key}")

    async def slots(self, room_id: str) -> dict[str, JsonObject]:
        return await asyncio.to_thread(self.synapse.bot.state_of, room_id, ATTESTATION)

    async def call(self, method: str, path: str, content: JsonObject | None = None) -> Any:
        return await asyncio.to_thread(self.synapse.bot._call, method, path, content)


@contextlib.asynccontextmanager
async def running_bot(
    organisation: Organisation, synapse: Synapse, database: Path, pinned: Sequence[tuple[Organisation, Synapse]]
) -> AsyncIterator[Bot]:
    """A bot whose alias queries find every project that a test made up."""

    async def project_exists(name: ProjectName) -> bool:
        return name.startswith("fed")

    async def mail_may_leave(trust_room: Sequence[JsonObject]) -> bool:
        return True

    keys = dict(organisation.keys)
    for other, _ in pinned:
        keys |= other.keys
    settings = replace(synapse.settings(), grant_seconds=3.0, neighbour_pause_seconds=0.5)
    async with open_store(f"sqlite:{database}") as store:
        side = MatrixSide(
            settings,
            store=store,
            clock=SystemClock(),
            intake=Intake(known_members(keys, own=organisation.name)),
            own_keyids=lambda: frozenset({organisation.keyid}),
            project_exists=project_exists,
            on_trust_room=mail_may_leave,
            peers=[Peer(other.name, server.bot.user_id) for other, server in pinned],
        )
        await side.start()
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(side.run())
                yield Bot(organisation, synapse, side, store)
                running.cancel()
        finally:
            await side.stop()


@contextlib.asynccontextmanager
async def two_bots(
    synapses: tuple[Synapse, ...], folder: Path, *, b_pins_a: bool = True
) -> AsyncIterator[tuple[Bot, Bot]]:
    """`orga` on the first homeserver and `orgb` on the second; the one whose user id sorts first is `orga`."""
    one, two = sorted(synapses, key=lambda synapse: synapse.name)
    a, b = Organisation("orga"), Organisation("orgb")
    async with (
        running_bot(a, one, folder / "a.db", [(b, two)]) as bot_a,
        running_bot(b, two, folder / "b.db", [(a, one)] if b_pins_a else []) as bot_b,
    ):
        yield bot_a, bot_b


def wheels(project: str, number: int) -> list[str]:
    return [f"{project}-{n}.0-py3-none-any.whl" for n in range(number)]


def in_room(room_id: str, rest: str) -> str:
    return f"/rooms/{quote(room_id, safe='')}/{rest}"


async def test_two_organisations_share_one_room_with_equal_power_and_read_each_others_trust_rooms(
    synapses: tuple[Synapse, ...], tmp_path: Path, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = wheels(project, 2)
    caplog.set_level(logging.INFO, "matrix_pypi_bot.services.postman")
    async with two_bots(synapses, tmp_path) as (a, b):
        await b.attest(project, first)
        await a.attest(project, second)  # about when the homeserver of orgb joins, which then may not get it
        for bot in (a, b):
            await bot.until_kept(project, {first, second})
        ours, theirs = await a.room(f"project:{project}"), await b.room(f"project:{project}")
        assert (ours.room_id, ours.made_by, theirs.made_by) == (theirs.room_id, "", "orga")
        create = (await asyncio.to_thread(a.synapse.bot.content, ours.room_id, "m.room.create")) or {}
        assert create["additional_creators"] == [b.peer.user]
        for synapse in synapses:
            assert await asyncio.to_thread(synapse.bot.resolve, f"#pypi_{project}:{synapse.name}") == ours.room_id
        assert (await a.room("trust@orgb")).room_id == (await b.room("trust")).room_id
        assert (await b.room("trust@orga")).room_id == (await a.room("trust")).room_id

        async def tied() -> bool:
            sent = {(getattr(record, "room", ""), getattr(record, "type", "")) for record in caplog.records}
            return (f"project:{project}", TIE) in sent

        await a.until(tied, "what was said in the moment of the join is followed by one event more")
    assert not [message for message in caplog.messages if message.endswith("alarm")]


async def test_who_is_no_creator_is_let_in_by_who_is(
    synapses: tuple[Synapse, ...], tmp_path: Path, project: str
) -> None:
    async with two_bots(synapses, tmp_path, b_pins_a=False) as (_, b):
        await b.attest(project, *wheels(project, 1))
        room = await b.room(f"project:{project}")
        await b.until_sent()
    async with two_bots(synapses, tmp_path) as (a, b):
        await a.attest(project, "".join(wheels(project, 1)).replace("0.0", "7.0"))
        await b.until_kept(project, {f"{project}-7.0-py3-none-any.whl"})
        assert (await a.room(f"project:{project}")).room_id == room.room_id
        levels = (await asyncio.to_thread(b.synapse.bot.content, room.room_id, "m.room.power_levels")) or {}
        assert levels["users"] == {a.peer.user: 25}


async def test_who_is_not_let_in_speaks_in_a_room_of_his_own_and_the_union_is_read(
    synapses: tuple[Synapse, ...], tmp_path: Path, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = wheels(project, 2)
    async with two_bots(synapses, tmp_path, b_pins_a=False) as (a, b):
        await b.attest(project, first)
        theirs = await b.room(f"project:{project}")
        await a.attest(project, second)
        assert (await a.room(f"project:{project}@orgb")).room_id == theirs.room_id
        await a.until_sent()
        await a.until_kept(project, {first, second})
        ours = await a.room(f"project:{project}")
        assert ours.room_id != theirs.room_id
        assert caplog.messages.count("own room instead of one of others") == 1
    async with two_bots(synapses, tmp_path) as (a, b):
        b.side.follow(ProjectName(project))
        await b.until_kept(project, {first, second})
        assert (await b.room(f"project:{project}@orga")).room_id == ours.room_id
        again = f"{project}-7.0-py3-none-any.whl"
        await a.attest(project, again)  # after a restart it still speaks in its own
        await b.until_kept(project, {again})


async def test_what_another_creator_redacts_is_said_again_three_times_and_stays_known(
    synapses: tuple[Synapse, ...], tmp_path: Path, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    [file] = wheels(project, 1)
    async with two_bots(synapses, tmp_path) as (a, b):
        await b.attest(project, file)
        await a.until_kept(project, {file})
        room = await a.room(f"project:{project}")
        slot = str(b.organisation.post(file).state_key)

        async def standing() -> JsonObject | None:
            state = await asyncio.to_thread(a.synapse.bot.state, room.room_id)
            return next(
                (e for e in state if e["state_key"] == slot and e["type"] == ATTESTATION and e["content"]), None
            )

        for n in range(4):
            event = await a.until(standing, f"the statement stands, time {n}")
            await a.call("PUT", in_room(room.room_id, f"redact/{quote(event['event_id'])}/{project}-{n}"), {})

        async def given_up() -> bool:
            return "own statement given up alarm" in caplog.messages

        await b.until(given_up, "it is given up")
        assert (await a.slots(room.room_id))[slot] == {}
        await a.until_kept(project, {file})
        [record] = [r for r in caplog.records if r.message == "own statement redacted alarm"][:1]
        assert record.__dict__["room"] == f"project:{project}"


async def test_who_is_banned_or_shut_out_by_an_acl_speaks_where_he_is_heard(
    synapses: tuple[Synapse, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    banned, silenced = f"fed{next(_numbers)}", f"fed{next(_numbers)}"
    async with two_bots(synapses, tmp_path, b_pins_a=False) as (a, b):
        for project in (banned, silenced):
            await b.attest(project, *wheels(project, 1))
            await b.room(f"project:{project}")
            a.side.follow(ProjectName(project))
            await a.room(f"project:{project}")
        old = {project: (await a.room(f"project:{project}")).room_id for project in (banned, silenced)}
        await b.call("POST", in_room(old[banned], "ban"), {"user_id": a.peer.user})
        acl = {"allow": ["*"], "deny": ["localhost"]}
        await b.call("PUT", in_room(old[silenced], "state/m.room.server_acl/"), acl)
        await a.room(f"project:{banned}", lost=True)
        for project in (banned, silenced):
            await a.attest(project, f"{project}-7.0-py3-none-any.whl")
            await a.room(f"project:{project}@orgb", lost=project == banned)
        await a.until_sent()
        new = {project: (await a.room(f"project:{project}")).room_id for project in (banned, silenced)}
        assert {old[project] != new[project] for project in (banned, silenced)} == {True}
        assert {"put out of a room alarm", "constitution changed alarm"} <= set(caplog.messages)
        with pytest.raises(MatrixRefusal):
            await a.call("POST", f"/join/{quote(old[banned], safe='')}?via={b.synapse.name}", {})
    async with two_bots(synapses, tmp_path) as (a, b):
        for project in (banned, silenced):
            b.side.follow(ProjectName(project))
            await b.until_kept(project, {f"{project}-7.0-py3-none-any.whl"})


async def test_nothing_is_missing_after_an_outage_in_which_hundreds_of_statements_were_made(
    synapses: tuple[Synapse, ...], tmp_path: Path, project: str
) -> None:
    files = wheels(project, 420)
    async with two_bots(synapses, tmp_path) as (a, b):
        await a.attest(project, files[0])
        await b.attest(project, f"{project}-9.9.9.tar.gz")
        await b.until_kept(project, {files[0]})
        # Only then is the join done to its end: a homeserver killed before needs minutes of its own to mend it.
        await a.until_kept(project, {f"{project}-9.9.9.tar.gz"})
        await asyncio.to_thread(b.synapse.stop, signal.SIGKILL)
        await a.attest(project, *files[1:])
        await a.until_sent()
        await asyncio.to_thread(b.synapse.start)
        await b.until_kept(project, set(files), timeout_seconds=CATCH_UP_SECONDS)
