"""The Matrix half of the bot against a real Synapse: whatever dies when, nothing that was said in a room is missed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import pytest

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.adapters.matrix.side import MatrixSettings, MatrixSide
from matrix_pypi_bot.core.events import Post
from matrix_pypi_bot.ports import EnvelopeRow, Store, StoreAway
from matrix_pypi_bot.services.constitution import constitution_hash, read_constitution
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.services.link import Misregistered
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem
from tests.support.keyrings import known_members
from tests.support.matrix import MatrixRefusal, MatrixUser
from tests.support.statements import Organisation
from tests.support.synapse import Synapse, running_synapse

pytestmark = pytest.mark.integration

T = TypeVar("T")
HOME, PEER, STRANGER = Organisation("home"), Organisation("peer"), Organisation("stranger")
TIMEOUT_SECONDS = 60
_numbers = count(1)


@pytest.fixture(scope="module")
def synapse() -> Iterator[Synapse]:
    with running_synapse() as running:
        yield running


@pytest.fixture
def project() -> str:
    """A project that no other test uses."""
    return f"mx{next(_numbers)}"


class FixedClock:
    """It is always the same moment."""

    def now_ms(self) -> int:
        return 1_000


@dataclass
class Bot:
    """The Matrix half of a bot whose database is `store`."""

    side: MatrixSide
    store: Store
    existing: set[str]

    async def until(self, condition: Callable[[], Awaitable[T | None]], what: str) -> T:
        """The first true result, waited for."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not (found := await condition()):
                await asyncio.sleep(0.02)
        assert found, what
        return found

    async def until_ready(self) -> None:
        async def ready() -> bool:
            return self.side.ready

        await self.until(ready, "the homeserver accepts us")

    async def queue(self, project: str, *posts: Post) -> None:
        async with self.store.transaction() as t:
            for post in posts:
                await t.mail.send(f"project:{project}", post.type, post.state_key, json.dumps(post.content).encode(), 1)
        self.side.poke()

    async def kept(self, project: str) -> list[EnvelopeRow]:
        async with self.store.transaction() as t:
            return await t.ledger.attestations(ProjectName(project))

    async def until_kept(self, project: str, files: set[str]) -> None:
        async def all_there() -> bool:
            return {str(row.file) for row in await self.kept(project)} >= files

        await self.until(all_there, f"{len(files)} statements about {project} are kept")

    async def until_sent(self) -> None:
        async def empty() -> bool:
            async with self.store.transaction() as t:
                return (await t.mail.backlog()).queued == 0

        await self.until(empty, "the outbox is empty")

    async def until_read(self) -> None:
        async def empty() -> bool:
            async with self.store.transaction() as t:
                return (await t.mail.backlog()).unread == 0

        await self.until(empty, "the inbox is empty")

    async def room(self, project: str) -> str:
        found = await self.side.room_id(f"project:{project}")
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def running_bot(
    settings: MatrixSettings,
    database: Path | str,
    *existing: str,
    failing: Callable[[], None] = lambda: None,
    mail_may_leave: Callable[[Sequence[JsonObject]], bool] = lambda trust_room: True,
) -> AsyncIterator[Bot]:
    """A bot that knows its own key and that of `PEER`. `failing()` is called at the beginning of every transaction,
    `mail_may_leave()` with the state of the trust room.
    """
    names = set(existing)

    async def project_exists(name: ProjectName) -> bool:
        return name in names

    async def look(trust_room: Sequence[JsonObject]) -> bool:
        return mail_may_leave(trust_room)

    async with open_store(database if isinstance(database, str) else f"sqlite:{database}") as opened:
        store = FailingStore(opened, failing)
        side = MatrixSide(
            settings,
            store=store,
            clock=FixedClock(),
            intake=Intake(known_members({**HOME.keys, **PEER.keys})),
            own_keyids=lambda: frozenset({HOME.keyid}),
            project_exists=project_exists,
            on_trust_room=look,
        )
        await side.start()
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(side.run())
                yield Bot(side, store, names)
                running.cancel()
        finally:
            await side.stop()


class FailingStore:
    """A store that fails when it is told to."""

    def __init__(self, store: Store, failing: Callable[[], None]) -> None:
        self._store = store
        self._failing = failing

    @contextlib.asynccontextmanager
    async def transaction(self, *, reads_only: bool = False) -> AsyncIterator[Any]:
        self._failing()
        async with self._store.transaction(reads_only=reads_only) as t:
            yield t


async def elsewhere(call: Callable[..., T], *arguments: Any) -> T:
    """A blocking call in a thread: the bot under test lives in this event loop."""
    return await asyncio.to_thread(call, *arguments)


def put(user: MatrixUser, room_id: str, *posts: Post) -> None:
    for post in posts:
        assert post.state_key is not None
        user.put_state(room_id, post.type, post.state_key, dict(post.content))


async def deliver(
    synapse: Synapse, txn_id: str, body: bytes, *, token: str | None = None, path: str = "/_matrix/app/v1/transactions/"
) -> tuple[int, Any]:
    """A transaction as the homeserver sends one; the status and the JSON of the answer."""
    headers = {"Authorization": f"Bearer {synapse.hs_token if token is None else token}"}
    url = f"http://127.0.0.1:{synapse.appservice_port}{path}{txn_id}"
    async with aiohttp.ClientSession() as session, session.put(url, data=io.BytesIO(body), headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


def wheels(project: str, number: int) -> list[str]:
    return [f"{project}-{n}.0-py3-none-any.whl" for n in range(number)]


async def test_an_alias_query_makes_a_room_for_a_project_that_exists_and_for_no_other(
    synapse: Synapse, tmp_path: Path, project: str
) -> None:
    alice = synapse.user("alice")
    async with running_bot(synapse.settings(), tmp_path / "bot.db", project) as bot:
        await bot.until_ready()
        assert await elsewhere(alice.resolve, f"#pypi_nonesuch:{synapse.name}") is None
        joined = await elsewhere(alice.join, f"#pypi_{project}:{synapse.name}")
        assert joined == await bot.room(project)


async def test_the_room_that_synapse_makes_has_our_constitution_and_is_published(
    synapse: Synapse, tmp_path: Path, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    alice = synapse.user("alice")
    async with running_bot(synapse.settings(), tmp_path / "bot.db", project) as bot:
        await bot.until_ready()
        room_id = await elsewhere(alice.join, f"#pypi_{project}:{synapse.name}")
        state = {e["type"]: e["content"] for e in await elsewhere(alice.state, room_id) if e["state_key"] == ""}
        bot.side.reconcile()
        await bot.until_read()
    levels = state["m.room.power_levels"]
    assert state["m.room.create"]["room_version"] == "12"
    assert {name: levels[name] for name in ("users", "users_default", "events_default", "state_default")} == {
        "users": {},
        "users_default": 0,
        "events_default": 0,
        "state_default": 100,
    }
    assert set(levels["events"].values()) == {25}
    assert {name: levels[name] for name in ("ban", "kick", "invite", "redact")} == dict.fromkeys(
        ("ban", "kick", "invite", "redact"), 50
    )
    assert state["m.room.history_visibility"] == {"history_visibility": "world_readable"}
    assert state["m.room.join_rules"] == {"join_rule": "public"}
    assert state["m.room.canonical_alias"]["alias"] == f"#pypi_{project}:{synapse.name}"
    assert "constitution changed alarm" not in caplog.messages
    assert "rooms are not listed in the homeserver's directory" not in caplog.messages


async def test_only_the_bot_writes_state_and_anybody_may_speak(synapse: Synapse, tmp_path: Path, project: str) -> None:
    alice = synapse.user("alice")
    async with running_bot(synapse.settings(), tmp_path / "bot.db", project) as bot:
        await bot.until_ready()
        room_id = await elsewhere(alice.join, f"#pypi_{project}:{synapse.name}")
        await elsewhere(alice.say, room_id, "I accuse")
        post = STRANGER.post(wheels(project, 1)[0])
        with pytest.raises(MatrixRefusal) as refused:
            await elsewhere(put, alice, room_id, post)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_what_is_queued_arrives_in_a_new_room_and_comes_back_through_the_inbox(
    synapse: Synapse,
    tmp_path: Path,
    project: str,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
    engine: str,
) -> None:
    alice, files = synapse.user("alice"), wheels(project, 3)
    database = request.getfixturevalue("postgres_url") if engine == "postgres" else tmp_path / "bot.db"
    async with running_bot(synapse.settings(), database) as bot:
        await bot.queue(project, *(PEER.post(file) for file in files))
        await bot.until_kept(project, set(files))
        await bot.until_sent()
        room_id = await bot.room(project)
        await elsewhere(alice.join, room_id)
        slots = await elsewhere(alice.state_of, room_id, "io.matrix_pypi.attestation.v1")
        letter = await bot.side.room_id(f"space:{project[0]}")
        assert letter is not None
        await elsewhere(alice.join, letter)
        listed = await elsewhere(alice.state_of, letter, "m.space.child")
        assert [(row.via, row.org) for row in await bot.kept(project)] == [("room", "peer")] * 3
    assert slots == {post.state_key: post.content for post in map(PEER.post, files)}
    assert listed[room_id] == {"via": [synapse.name]}
    assert not [message for message in caplog.messages if message.endswith("alarm")]


async def test_a_statement_under_our_own_key_that_our_ledger_does_not_hold_is_an_alarm(
    synapse: Synapse, tmp_path: Path, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    [file] = wheels(project, 1)
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.queue(project, HOME.post(file))
        await bot.until_kept(project, {file})
    assert "own key alarm" in caplog.messages


async def test_redacting_or_overwriting_one_of_our_attestations_is_noticed(
    synapse: Synapse, tmp_path: Path, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    alice, (first, second) = synapse.user("alice"), wheels(project, 2)
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.queue(project, HOME.post(first), HOME.post(second))
        await bot.until_kept(project, {first, second})
        await bot.until_sent()
        room_id = await bot.room(project)
        await elsewhere(alice.join, room_id)
        state = await elsewhere(alice.state, room_id)
        levels = next(event["content"] for event in state if event["type"] == "m.room.power_levels")
        levels["users"][alice.user_id] = 50
        await elsewhere(synapse.bot.put_state, room_id, "m.room.power_levels", "", levels)
        event_id = next(e["event_id"] for e in state if e["state_key"] == HOME.post(first).state_key)
        await elsewhere(redact, alice, room_id, event_id)
        overwritten = replace(HOME.post(second), content={"v": 1})
        await elsewhere(put, alice, room_id, overwritten)

        async def noticed() -> bool:
            return {
                "own statement redacted alarm",
                "own statement overwritten alarm",
                "constitution changed alarm",
            } <= set(caplog.messages)

        await bot.until(noticed, "all three are noticed")
        assert {row.file for row in await bot.kept(project)} == {first, second}


def redact(user: MatrixUser, room_id: str, event_id: str) -> None:
    path = f"/rooms/{quote(room_id, safe='')}/redact/{quote(event_id, safe='')}/t{next(_numbers)}"
    user._call("PUT", path, {"reason": "because I can"})


async def test_a_room_that_nobody_is_left_in_is_replaced_by_a_new_one_under_its_alias(
    synapse: Synapse, tmp_path: Path, project: str
) -> None:
    alice, (first, second) = synapse.user("alice"), wheels(project, 2)
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.queue(project, PEER.post(first))
        await bot.until_kept(project, {first})  # what comes from a room after another took its place is passed over
        await bot.until_sent()
        old = await bot.room(project)
        await elsewhere(synapse.bot._call, "POST", f"/rooms/{quote(old, safe='')}/leave", {})
        await bot.queue(project, PEER.post(second))
        await bot.until_kept(project, {first, second})
        new = await bot.room(project)
        assert new != old
        assert await elsewhere(alice.resolve, f"#pypi_{project}:{synapse.name}") == new


async def test_no_mail_leaves_before_the_trust_room_was_looked_at(
    synapse: Synapse, tmp_path: Path, project: str
) -> None:
    looked: list[set[str]] = []

    def not_yet(trust_room: Sequence[JsonObject]) -> bool:
        looked.append({str(event["type"]) for event in trust_room})
        return False

    (name,) = wheels(project, 1)
    async with running_bot(synapse.settings(), tmp_path / "bot.db", mail_may_leave=not_yet) as bot:
        await bot.queue(project, PEER.post(name))
        await bot.until_ready()
        await bot.until_read()
        assert await bot.side.room_id(f"project:{project}") is None
        async with bot.store.transaction() as t:
            assert (await t.mail.backlog()).queued >= 1
    assert all("m.room.create" in types for types in looked)
    assert looked
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.until_kept(project, {name})


async def test_a_trust_room_that_the_bot_is_no_longer_in_is_regained(synapse: Synapse, tmp_path: Path) -> None:
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.until_ready()
        room = await bot.side.room_id("trust")
        assert room is not None
    await elsewhere(synapse.bot._call, "POST", f"/rooms/{quote(room, safe='')}/leave", {})
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.until_ready()
        again = await bot.side.room_id("trust")
        assert again is not None
        state = await elsewhere(synapse.bot.state, again)
        assert "m.room.create" in {event["type"] for event in state}


async def test_replayed_transactions_and_transaction_ids_that_start_again_lose_and_repeat_nothing(
    synapse: Synapse, tmp_path: Path, project: str
) -> None:
    files = wheels(project, 4)
    async with running_bot(synapse.settings(), tmp_path / "bot.db", project) as bot:
        await bot.until_ready()
        await elsewhere(synapse.bot.resolve, f"#pypi_{project}:{synapse.name}")
        room_id = await bot.room(project)
        events = [
            {
                "event_id": f"${project}-{n}",
                "room_id": room_id,
                "sender": "@peer:other.example",
                "type": post.type,
                "state_key": post.state_key,
                "content": post.content,
            }
            for n, post in enumerate(map(PEER.post, files))
        ]
        first, second = json.dumps({"events": events[:2]}).encode(), json.dumps({"events": events[2:]}).encode()
        answers = [
            await deliver(synapse, "1", first),
            await deliver(synapse, "1", first),
            await deliver(synapse, "1", second),
            await deliver(synapse, "2", second, path="/transactions/"),
        ]
        assert answers == [(200, {})] * 4
        await bot.until_kept(project, set(files))
        assert bot.side.figures["OK"] == 4


async def test_nothing_is_lost_when_synapse_is_killed_and_counts_its_transactions_from_one_again(
    synapse: Synapse, tmp_path: Path, project: str
) -> None:
    files = wheels(project, 30)
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.until_ready()
        for start in range(0, 30, 10):
            await bot.queue(project, *(PEER.post(file) for file in files[start : start + 10]))
            await bot.until_kept(project, set(files[start : start + 1]))
            await elsewhere(synapse.stop, signal.SIGKILL)
            await elsewhere(synapse.start)
        await bot.until_sent()
        await bot.until_kept(project, set(files))
        slots = await elsewhere(synapse.bot.state_of, await bot.room(project), "io.matrix_pypi.attestation.v1")
        timeline = await elsewhere(synapse.bot.timeline, await bot.room(project), "io.matrix_pypi.attestation.v1")
    assert (len(slots), len(timeline)) == (30, 30)


async def test_rooms_that_were_being_made_when_synapse_was_killed_are_made_whole(
    synapse: Synapse, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    projects = [f"mx{next(_numbers)}" for _ in range(12)]
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.until_ready()
        for project in projects:
            await bot.queue(project, PEER.post(wheels(project, 1)[0]))
        for made in (3, 6, 9):  # when so many are made, others are just being made

            async def so_many(made: int = made) -> bool:
                async with bot.store.transaction() as t:
                    return sum(row.key.startswith("project:") for row in await t.mail.rooms()) >= made

            await bot.until(so_many, f"{made} rooms are made")
            await elsewhere(synapse.stop, signal.SIGKILL)
            await elsewhere(synapse.start)
        await bot.until_sent()
        for project in projects:
            await bot.until_kept(project, set(wheels(project, 1)))
        async with bot.store.transaction() as t:
            rooms = await t.mail.rooms()
        for room in rooms:
            state = await elsewhere(synapse.bot.state, room.room_id)
            assert constitution_hash(read_constitution(state)) == room.constitution, room
    assert "constitution changed alarm" not in caplog.messages


async def test_everything_said_while_we_were_away_is_found_also_when_the_homeserver_never_delivers_it(
    synapse: Synapse, tmp_path: Path, project: str
) -> None:
    files = wheels(project, 420)
    async with running_bot(synapse.settings(), tmp_path / "bot.db", project) as bot:
        await bot.until_ready()
        await elsewhere(synapse.bot.resolve, f"#pypi_{project}:{synapse.name}")
        room_id = await bot.room(project)
    await elsewhere(put, synapse.bot, room_id, *(PEER.post(file) for file in files))
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.until_kept(project, set(files))
    # A bot that lost its database gets nothing by transactions any more: the state of the room has to do.
    async with running_bot(synapse.settings(), tmp_path / "other.db", project) as bot:
        await bot.until_ready()
        await bot.queue(project, PEER.post(files[0]))
        await bot.until_sent()
        assert await bot.room(project) == room_id
        await bot.until_kept(project, set(files))


async def test_a_database_that_is_away_means_500_and_delivery_as_soon_as_it_is_back(
    synapse: Synapse, tmp_path: Path, project: str
) -> None:
    [file] = wheels(project, 1)
    away = False

    def failing() -> None:
        if away:
            raise StoreAway("the disk is full")

    async with running_bot(synapse.settings(), tmp_path / "bot.db", project, failing=failing) as bot:
        await bot.until_ready()
        await elsewhere(synapse.bot.resolve, f"#pypi_{project}:{synapse.name}")
        room_id = await bot.room(project)
        away = True
        await elsewhere(put, synapse.bot, room_id, PEER.post(file))
        assert (await deliver(synapse, "x", b'{"events": [{"event_id": "$x", "room_id": "!x"}]}'))[0] == 500
        away = False
        await bot.until_kept(project, {file})


async def test_malformed_transactions_are_refused_and_malformed_events_cost_no_other_event(
    synapse: Synapse, tmp_path: Path, project: str
) -> None:
    [file] = wheels(project, 1)
    async with running_bot(synapse.settings(), tmp_path / "bot.db", project) as bot:
        await bot.until_ready()
        await elsewhere(synapse.bot.resolve, f"#pypi_{project}:{synapse.name}")
        post = PEER.post(file)
        good = {
            "event_id": f"${project}",
            "room_id": await bot.room(project),
            "sender": "@a:b",
            "content": post.content,
        }
        good |= {"type": post.type, "state_key": post.state_key}
        bad: list[Any] = [None, 5, [], {}, {"event_id": 5, "room_id": "!x"}, {"event_id": "$\x00", "room_id": "!x"}]
        bad += [{"event_id": "$" + "x" * 300, "room_id": "!x"}, {"event_id": "$\ud800", "room_id": "!x"}]
        assert [
            await deliver(synapse, "a", b"not JSON"),
            await deliver(synapse, "b", b"[]"),
            await deliver(synapse, "c", b'{"events": {}}'),
            await deliver(synapse, "d", b"[" * 100_000),
        ] == [
            (400, {"errcode": "M_NOT_JSON", "error": "the body is not JSON"}),
            (400, {"errcode": "M_BAD_JSON", "error": "the body has no list of events"}),
            (400, {"errcode": "M_BAD_JSON", "error": "the body has no list of events"}),
            (400, {"errcode": "M_NOT_JSON", "error": "the body is not JSON"}),
        ]
        assert await deliver(synapse, "%00", json.dumps({"events": [*bad, good]}).encode()) == (200, {})
        await bot.until_kept(project, {file})
        assert bot.side.figures["malformed"] == len(bad)


async def test_only_the_homeserver_is_let_in_and_a_body_of_16_mib_is_taken(synapse: Synapse, tmp_path: Path) -> None:
    event = {"event_id": "$large", "room_id": "!x:y", "content": {"body": "x" * (16 << 20)}}
    body = json.dumps({"events": [event]}).encode()
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.until_ready()
        base = f"http://127.0.0.1:{synapse.appservice_port}"
        async with aiohttp.ClientSession() as session:
            statuses = {}
            for what, path, headers in [
                ("no token", "/_matrix/app/v1/users/@x:y", {}),
                ("wrong token", "/_matrix/app/v1/users/@x:y", {"Authorization": "Bearer x"}),
                (
                    "wrong header, right query",
                    f"/users/@x:y?access_token={synapse.hs_token}",
                    {"Authorization": "Bearer x"},
                ),
                ("legacy query", f"/users/@x:y?access_token={synapse.hs_token}", {}),
                ("unknown path", "/_matrix/app/v1/thirdparty/protocol/x", {}),
                ("live", "/_matrix/mau/live", {}),
                ("ready", "/_matrix/mau/ready", {}),
            ]:
                async with session.get(base + path, headers=headers) as answer:
                    statuses[what] = answer.status
        assert statuses == {
            "no token": 401,
            "wrong token": 403,
            "wrong header, right query": 403,
            "legacy query": 404,
            "unknown path": 404,
            "live": 200,
            "ready": 200,
        }
        assert await deliver(synapse, "large", body) == (200, {})
        assert (await deliver(synapse, "larger", b" " * (33 << 20)))[0] == 413


async def test_the_bot_waits_for_a_homeserver_that_is_not_there_yet(synapse: Synapse, tmp_path: Path) -> None:
    await elsewhere(synapse.stop)
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        assert not bot.side.ready
        await elsewhere(synapse.start)
        await bot.until_ready()
        assert await bot.side.room_id("trust") is not None
        assert await bot.side.room_id("space") is not None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"as_token": "wrong"}, "does not accept the as_token"),
        ({"bot_localpart": "someone"}, "does not let this appservice be @someone:"),
        ({"server_name": "other.example"}, "does not let this appservice be @pypi:other.example"),
    ],
)
async def test_a_homeserver_that_does_not_know_us_ends_the_bot_with_a_reason_and_the_next_command(
    synapse: Synapse, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        async with running_bot(replace(synapse.settings(), **change), tmp_path / "bot.db"):
            await asyncio.sleep(TIMEOUT_SECONDS)
    [problem] = raised.value.exceptions
    assert isinstance(problem, Misregistered)
    assert told in problem.detail
    assert "matrix-pypi registration" in problem.hint


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hs_token": "wrong"}, "write the registration anew"),
        ({"port": 0}, "nothing answers at the `url`"),
        ({"id": "someone-else"}, "appservice.id is not the `id`"),
    ],
)
async def test_a_homeserver_that_cannot_reach_us_is_a_reason_not_to_be_ready_and_told_with_what_to_do(
    synapse: Synapse, tmp_path: Path, change: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_bot(replace(synapse.settings(), **change), tmp_path / "bot.db") as bot:

        async def complained() -> bool:
            hints = [getattr(record, "hint", "") for record in caplog.records]
            return any(told in hint for hint in hints)

        await bot.until(complained, told)
        assert not bot.side.ready


async def test_a_port_that_is_taken_is_told(synapse: Synapse, tmp_path: Path) -> None:
    async with running_bot(synapse.settings(), tmp_path / "bot.db"):
        with pytest.raises(Problem, match=r"cannot listen on 127\.0\.0\.1 port"):
            async with running_bot(synapse.settings(), tmp_path / "other.db"):
                pass


async def test_an_invitation_to_another_room_is_turned_down_with_a_word(synapse: Synapse, tmp_path: Path) -> None:
    alice = synapse.user("alice")
    async with running_bot(synapse.settings(), tmp_path / "bot.db") as bot:
        await bot.until_ready()
        room_id = await elsewhere(alice._call, "POST", "/createRoom", {"invite": [synapse.bot.user_id]})

        async def declined() -> bool:
            member = await elsewhere(alice.content, room_id["room_id"], "m.room.member", synapse.bot.user_id)
            return member is not None and member["membership"] == "leave" and "rooms of packages" in member["reason"]

        await bot.until(declined, "the invitation is turned down")
