"""What arrives from Matrix is checked, kept once and marked as seen; nothing that arrives stops what comes after it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix_pypi_bot.core.events import Post
from matrix_pypi_bot.ports import Backlog, RoomRow, StoreAway
from matrix_pypi_bot.services import ingest as ingest_module
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.ingest import Ingest
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.services.own import Own
from matrix_pypi_bot.services.reassert import Reasserter
from tests.support.homeserver import BOT
from tests.support.keyrings import known_members
from tests.support.mailbox import MemoryStore
from tests.support.statements import Organisation

HOME, PEER, STRANGER = Organisation("home"), Organisation("peer"), Organisation("stranger")
WHEEL = "flask-3.1.3-py3-none-any.whl"
ROOMS = {"project:flask": "!flask", "project:django": "!django", "trust": "!trust", "space": "!space"}


class FixedClock:
    """It is always the same moment."""

    def now_ms(self) -> int:
        return 7_000


class Door:
    """An inbox with rooms, and what its services hear."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        for key, room_id in ROOMS.items():
            row = RoomRow(key=key, room_id=room_id, alias=f"#{key}", constitution="", created_ms=0)
            self.store.mail.by_key[key] = row
        self.heard: list[tuple[str, str]] = []
        self.rooms_heard: list[str] = []
        own = Own(mxid=BOT, keyids=lambda: frozenset({HOME.keyid}))
        self.members = known_members({**HOME.keys, **PEER.keys})
        self.messages: list[tuple[str, str]] = []
        self.ingest = Ingest(
            store=self.store,
            clock=FixedClock(),
            intake=Intake(self.members, on_statement=self.hear_statement),
            own=own,
            reasserter=Reasserter(
                own=own, clock=FixedClock(), keys=lambda: HOME.keys, peers=[Peer("peer", "@peer:other.example")]
            ),
            bots=frozenset({"@peer:other.example"}),
            on_constitution=self.hear("constitution"),
            on_invited=lambda room_id, sender: self.heard.append(("invited", f"{room_id} by {sender}")),
            on_heard=lambda key, event: self.rooms_heard.append(key),
            on_put_out=lambda: self.heard.append(("put out", "")),
            on_mail=lambda: self.heard.append(("mail", "")),
            on_head=self.hear("head"),
            on_message=lambda room, event: self.messages.append((room, event["event_id"])),
        )

    def hear_statement(self, project: str, org: str) -> None:
        self.heard.append(("statement", project))

    def hear(self, what: str) -> Callable[[str], None]:
        return lambda about: self.heard.append((what, about))

    async def bring(self, *events: dict[str, Any]) -> None:
        """Delivers and works off."""
        await self.ingest.receive("1", [(e["event_id"], e["room_id"], json.dumps(e).encode()) for e in events])
        await self.ingest.drain()

    async def backlog(self) -> Backlog:
        async with self.store.transaction() as t:
            return await t.mail.backlog()

    @property
    def files(self) -> list[tuple[str, str | None]]:
        """(organisation, file) of everything in the ledger."""
        return [(row.org, row.file) for row in self.store.ledger.envelopes.values()]


def event(post: Post | None = None, *, id: str = "$1", room: str = "!flask", **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"event_id": id, "room_id": room, "sender": "@peer:other.example"}
    if post is not None:
        made |= {"type": post.type, "content": post.content}
        made |= {} if post.state_key is None else {"state_key": post.state_key}
    return made | changes


async def test_a_statement_is_kept_once_and_every_event_that_carried_it_is_marked() -> None:
    door = Door()
    await door.bring(event(PEER.post(WHEEL), id="$1"), event(PEER.post(WHEEL), id="$2"))
    checked = PEER.attest(WHEEL)
    [row] = door.store.ledger.envelopes.values()
    assert (row.id, row.kind, row.project, row.file, row.sha256, row.keyid, row.org, row.seq, row.first_seen_ms) == (
        checked.statement.id, "attestation", "flask", WHEEL, checked.statement.subject.sha256, PEER.keyid, "peer", 1, 7_000,
    )  # fmt: skip
    assert json.loads(row.envelope) == checked.envelope.to_json()
    assert door.store.ledger.sightings == [
        (row.id, "!flask", "$1", "@peer:other.example"),
        (row.id, "!flask", "$2", "@peer:other.example"),
    ]
    assert door.heard == [("statement", "flask")]


@pytest.mark.parametrize(
    ("made", "outcome"),
    [
        (event(STRANGER.post(WHEEL)), "E_KEY_UNKNOWN"),
        (event(PEER.post(WHEEL), room="!django"), "E_WRONG_ROOM"),
        (event(PEER.post(WHEEL), room="!trust"), "E_WRONG_ROOM"),
        (event(PEER.post(WHEEL), content={}), "E_REDACTED_OR_EMPTY"),
        (event(PEER.post(WHEEL), state_key="elsewhere"), "E_STATE_KEY"),
        (event(PEER.post(WHEEL), type="io.matrix_pypi.unheard_of"), "E_EVENT"),
        (event(PEER.post(WHEEL), type="io.matrix_pypi.head.v1", room="!trust"), "head of a log"),
        (event(PEER.post(WHEEL), room="!space"), "other"),
        (event(PEER.post(WHEEL), room="!nowhere"), "elsewhere"),
        (event(PEER.post(WHEEL), type=["m.room.message"]), "other"),
        (event(type="m.room.message", content={"body": "hello"}), "other"),
    ],
)
async def test_everything_else_is_counted_and_keeps_nothing(made: dict[str, Any], outcome: str) -> None:
    door = Door()
    await door.bring(made)
    assert (door.ingest.outcomes, door.files, door.heard) == ({outcome: 1}, [], [])


async def test_what_came_from_a_room_before_it_was_known_is_new_when_the_room_is_read() -> None:
    door = Door()
    row = door.store.mail.by_key.pop("project:flask")
    await door.bring(event(PEER.post(WHEEL)))
    door.store.mail.by_key[row.key] = row
    await door.bring(event(PEER.post(WHEEL)))
    assert door.files == [("peer", WHEEL)]


async def test_a_statement_under_our_own_key_is_no_news_when_the_ledger_holds_it_and_an_alarm_when_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    door = Door()
    await door.bring(event(HOME.post(WHEEL), id="$1", sender=BOT))
    assert caplog.messages == ["own key alarm"]
    await door.bring(event(HOME.post(WHEEL), id="$2", sender=BOT))
    assert caplog.messages.count("own key alarm") == 1


async def test_a_slot_of_ours_that_somebody_else_wrote_or_emptied_is_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    door = Door()
    ours = HOME.post(WHEEL)
    await door.bring(
        event(ours, id="$1", content={"v": 1}),
        event(ours, id="$2", content={}, sender=BOT),
        event(PEER.post(WHEEL), id="$3", content={}),
    )
    assert caplog.messages == ["own statement overwritten alarm", "own statement redacted alarm"]


@pytest.mark.parametrize("shape", [{"content": {"redacts": "$ours"}}, {"content": {}, "redacts": "$ours"}])
async def test_a_redaction_of_what_we_sent_is_an_alarm_and_of_others_is_not(
    shape: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    door = Door()
    async with door.store.transaction() as t:
        await t.mail.send("project:flask", "io.matrix_pypi.attestation.v1", "k", b"{}", 1)
        row = await t.mail.next_to("project:flask")
        assert row is not None
        await t.mail.sent(row.n, "$ours")
    await door.bring(
        event(id="$1", type="m.room.redaction", **shape),
        event(id="$2", type="m.room.redaction", content={"redacts": "$theirs"}),
        event(id="$3", type="m.room.redaction", content={"redacts": ["$ours"]}),
    )
    assert caplog.messages == ["own statement redacted alarm"]


async def test_whoever_may_have_changed_a_constitution_is_looked_at_and_nobody_else() -> None:
    door = Door()
    await door.bring(
        event(id="$1", type="m.room.power_levels", state_key="", content={}),
        event(id="$2", type="m.room.server_acl", state_key="", content={}, room="!trust"),
        event(id="$3", type="m.room.server_acl", content={}),
        event(id="$4", type="m.room.topic", state_key="", content={}),
    )
    assert door.heard == [("constitution", "project:flask"), ("constitution", "trust")]


async def test_only_an_invitation_of_the_bot_to_a_room_that_is_not_ours_is_one() -> None:
    door = Door()
    invite = {"type": "m.room.member", "state_key": BOT, "content": {"membership": "invite"}}
    await door.bring(
        event(id="$1", room="!x", **invite),
        event(id="$2", room="!y", **{**invite, "content": {"membership": "join"}}),
        event(id="$3", room="!z", **{**invite, "state_key": "@else:hs.example"}),
        event(id="$4", room="!flask", **invite),
        event(id="$5", room="!a", **{**invite, "content": "invite"}),
    )
    assert door.heard == [("invited", "!x by @peer:other.example")]


async def test_an_event_that_our_own_code_cannot_stand_is_put_away_and_the_others_are_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door()
    row_of = ingest_module.ledger_row

    def buggy(checked: Any, **rest: Any) -> Any:
        if checked.statement.subject.name.startswith("flask-2"):
            raise ZeroDivisionError("a bug")
        return row_of(checked, **rest)

    monkeypatch.setattr(ingest_module, "ledger_row", buggy)
    files = [f"flask-{n}.0-py3-none-any.whl" for n in (1, 2, 3)]
    await door.bring(*(event(PEER.post(file), id=f"${file}") for file in files))
    assert door.files == [("peer", files[0]), ("peer", files[2])]
    assert await door.backlog() == Backlog(unread=0, unreadable=1, queued=0, aside=0)
    assert caplog.messages == ["event could not be worked off, put away"]


async def test_a_database_that_is_away_costs_time_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "STORE_PAUSE_SECONDS", 0)
    door = Door()
    failures = iter([False, True, True, False, True])

    def before_commit() -> None:
        if next(failures, False):
            raise StoreAway("the disk is full")

    door.store.before_commit = before_commit
    await door.bring(*(event(PEER.post(f"flask-{n}.0-py3-none-any.whl"), id=f"${n}") for n in range(120)))
    assert (len(door.files), door.ingest.outcomes, len(door.heard)) == (120, {"OK": 120}, 120)


HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["", BOT, "!flask", "$1", "invite"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["type", "state_key", "content", "sender", "redacts", "unsigned", "room_id", "content.dsse", "content.hint"]
)
TYPES = st.sampled_from(
    [
        "m.room.member",
        "m.room.redaction",
        "m.room.power_levels",
        "io.matrix_pypi.attestation.v1",
        "io.matrix_pypi.refutation.v1",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FIELDS, HOSTILE | TYPES), min_size=1, max_size=5))
def test_no_event_stops_the_inbox(mutations: list[tuple[str, Any]]) -> None:
    hostile = json.loads(json.dumps(event(PEER.post(WHEEL), id="$hostile")))
    for name, value in mutations:
        outer, _, inner = name.partition(".")
        if inner and isinstance(hostile.get(outer), dict):
            hostile[outer][inner] = value
        else:
            hostile[outer] = value
    hostile["room_id"] = hostile["room_id"] if hostile["room_id"] in ROOMS.values() else "!flask"

    async def live() -> None:
        door = Door()
        good = "flask-9.0-py3-none-any.whl"
        await door.bring(hostile, event(PEER.post(good), id="$good"))
        assert ("peer", good) in door.files
        assert await door.backlog() == Backlog(unread=0, unreadable=0, queued=0, aside=0)

    asyncio.run(live())


async def test_what_an_unknown_key_signed_is_new_when_the_key_is_known() -> None:
    door = Door()
    await door.bring(event(STRANGER.post(WHEEL)))
    assert door.files == []
    door.members.keyring.keys = {**door.members.keyring.keys, **STRANGER.keys}
    await door.bring(event(STRANGER.post(WHEEL)))
    assert door.files == [("stranger", WHEEL)]


async def test_what_stands_in_further_rooms_of_a_project_is_about_that_project() -> None:
    door = Door()
    row = door.store.mail.by_key["project:flask"]
    door.store.mail.by_key["project:flask@peer"] = replace(
        row, key="project:flask@peer", room_id="!theirs", made_by="peer"
    )
    await door.bring(event(PEER.post(WHEEL), room="!theirs"))
    assert (door.files, door.heard, door.rooms_heard) == (
        [("peer", WHEEL)],
        [("statement", "flask")],
        ["project:flask@peer"],
    )


async def test_the_trust_room_of_another_organisation_is_no_room_of_a_project() -> None:
    door = Door()
    row = door.store.mail.by_key["trust"]
    door.store.mail.by_key["trust@peer"] = replace(row, key="trust@peer", room_id="!theirs", made_by="peer")
    await door.bring(event(PEER.post(WHEEL), room="!theirs"))
    assert door.ingest.outcomes == {"E_WRONG_ROOM": 1}


@pytest.mark.parametrize("membership", ["leave", "ban"])
async def test_who_puts_us_out_of_a_room_is_named_and_the_room_counts_as_lost(
    membership: str, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door()
    member = {"type": "m.room.member", "state_key": BOT, "content": {"membership": membership}}
    await door.bring(event(id="$1", **{**member, "sender": BOT}), event(id="$2", **{**member, "state_key": "@x:y"}))
    assert not door.store.mail.by_key["project:flask"].lost
    await door.bring(event(id="$3", **member))
    assert door.store.mail.by_key["project:flask"].lost
    assert (door.heard, caplog.messages) == ([("put out", "")], ["put out of a room alarm"])


async def test_a_bot_of_a_pinned_organisation_that_joins_has_the_room_looked_at() -> None:
    door = Door()
    join = {"type": "m.room.member", "state_key": "@peer:other.example", "content": {"membership": "join"}}
    await door.bring(event(id="$1", **join), event(id="$2", **{**join, "state_key": "@someone:other.example"}))
    assert door.heard == [("constitution", "project:flask")]


async def test_the_note_of_a_head_is_told_of_whoever_sent_it_and_nothing_is_kept() -> None:
    door = Door()
    slot = {"type": "io.matrix_pypi.head.v1", "sender": "@b:there", "room_id": "!trust", "event_id": "$1"}
    content = {"v": 1, "note": "a note"}
    await door.bring(
        {**slot, "state_key": "@b:there", "content": content},
        {**slot, "event_id": "$2", "state_key": "@c:there", "content": content},  # not the sender's own slot
        {**slot, "event_id": "$3", "state_key": "@b:there", "content": {}},
        {**slot, "event_id": "$4", "state_key": "@b:there", "content": content, "room_id": "!elsewhere"},
    )
    assert (door.heard, door.files) == ([("head", "a note")], [])


async def test_what_people_write_in_a_room_of_ours_is_heard_once() -> None:
    door = Door()
    written = event(id="$said", type="m.room.message", content={"msgtype": "m.text", "body": "!pypi help"})
    await door.bring(written, event(id="$elsewhere", room="!unknown", type="m.room.message", content={}))
    await door.bring(written)
    assert door.messages == [("project:flask", "$said")]
