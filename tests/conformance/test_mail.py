"""What `ports.Mail` promises, on SQLite, on PostgreSQL, and by the fake that unit tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.ports import Backlog, OutboxRow, RoomRow, Store
from tests.support.mailbox import MemoryStore

ATTESTATION = "io.matrix_pypi.attestation.v1"
FLASK = "project:flask"
FLASK_ROOM = RoomRow(
    key=FLASK, room_id="!flask", alias="#pypi_flask:hs.example", constitution="c1", created_ms=1, listed=False
)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else f"sqlite:{tmp_path}/bot.db"
    async with open_store(url) as opened:
        yield opened


async def next_to(store: Store, room: str = FLASK) -> OutboxRow:
    async with store.transaction() as t:
        row = await t.mail.next_to(room)
    assert row is not None
    return row


async def empty_outbox(store: Store, room: str = FLASK) -> list[tuple[str, str | None, bytes]]:
    """What is queued for the room, in the order in which it would be sent; all of it is sent."""
    sent: list[tuple[str, str | None, bytes]] = []
    async with store.transaction() as t:
        while (row := await t.mail.next_to(room)) is not None:
            sent.append((row.type, row.state_key, row.content))
            await t.mail.sent(row.n, f"$event{row.n}")
    return sent


async def test_an_event_delivered_again_under_any_transaction_id_is_kept_once(store: Store) -> None:
    async with store.transaction() as t:
        first = await t.mail.receive("1", [("$a", "!r", b"A"), ("$b", "!r", b"B")], 10)
        again = await t.mail.receive("1", [("$a", "!r", b"A"), ("$c", "!r", b"C"), ("$c", "!r", b"C")], 11)
        late = await t.mail.receive("7", [("$b", "!r", b"B")], 12)
        unread = await t.mail.unread(10)
    assert (first, again, late) == (2, 1, 0)
    assert [(row.event_id, row.room_id, row.raw) for row in unread] == [
        ("$a", "!r", b"A"),
        ("$b", "!r", b"B"),
        ("$c", "!r", b"C"),
    ]


async def test_an_event_once_read_stays_read_even_when_it_is_delivered_again(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.receive("1", [("$a", "!r", b"A"), ("$b", "!r", b"B")], 10)
        for row in await t.mail.unread(1):
            await t.mail.read(row.n)
    async with store.transaction() as t:
        assert await t.mail.receive("1", [("$a", "!r", b"A")], 11) == 0
        assert [row.event_id for row in await t.mail.unread(10)] == ["$b"]


async def test_an_event_that_was_forgotten_is_new_when_it_comes_again(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.receive("1", [("$a", "!r", b"A"), ("$b", "!r", b"B")], 10)
        [a, _] = await t.mail.unread(10)
        await t.mail.forget(a.n)
        assert await t.mail.receive("2", [("$a", "!r", b"A"), ("$b", "!r", b"B")], 11) == 1
        assert [row.event_id for row in await t.mail.unread(10)] == ["$b", "$a"]


async def test_an_event_that_cannot_be_worked_off_is_put_away_and_counted(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.receive("1", [("$poison", "!r", b"P"), ("$b", "!r", b"B")], 10)
        poison, _ = await t.mail.unread(10)
        await t.mail.unreadable(poison.n, "ValueError: \x00\u202e" + "x" * 1_000)
        assert [row.event_id for row in await t.mail.unread(10)] == ["$b"]
        assert await t.mail.backlog() == Backlog(unread=1, unreadable=1, queued=0, aside=0)


async def test_nothing_of_a_transaction_that_failed_is_kept(store: Store) -> None:
    with pytest.raises(RuntimeError, match="midway"):
        async with store.transaction() as t:
            await t.mail.receive("1", [("$a", "!r", b"A")], 10)
            await t.mail.send(FLASK, ATTESTATION, "k", b"{}", 10)
            raise RuntimeError("midway")
    async with store.transaction() as t:
        assert await t.mail.backlog() == Backlog(unread=0, unreadable=0, queued=0, aside=0)


async def test_mail_of_a_room_leaves_in_the_order_in_which_it_was_queued(store: Store) -> None:
    async with store.transaction() as t:
        for number in range(3):
            await t.mail.send(FLASK, ATTESTATION, f"k{number}", b"%d" % number, 10 + number)
        await t.mail.send(FLASK, "m.notice", None, b"notice", 14)
        await t.mail.send(FLASK, "m.notice", None, b"notice", 15)
    assert await empty_outbox(store) == [
        (ATTESTATION, "k0", b"0"),
        (ATTESTATION, "k1", b"1"),
        (ATTESTATION, "k2", b"2"),
        ("m.notice", None, b"notice"),
        ("m.notice", None, b"notice"),
    ]


async def test_newer_content_of_a_state_event_takes_the_place_of_the_unsent_one(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.send(FLASK, ATTESTATION, "k0", b"old", 10)
        await t.mail.send(FLASK, ATTESTATION, "k1", b"other", 11)
        await t.mail.send(FLASK, ATTESTATION, "k0", b"new", 12)
        await t.mail.send("project:django", ATTESTATION, "k0", b"django", 13)
        await t.mail.send(FLASK, "io.matrix_pypi.withdrawal.v1", "k0", b"withdrawn", 14)
    assert await empty_outbox(store) == [
        (ATTESTATION, "k0", b"new"),
        (ATTESTATION, "k1", b"other"),
        ("io.matrix_pypi.withdrawal.v1", "k0", b"withdrawn"),
    ]


async def test_news_of_a_replaced_event_is_no_news_of_what_replaced_it(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.send(FLASK, ATTESTATION, "k0", b"old", 10)
    on_its_way = await next_to(store)
    async with store.transaction() as t:
        await t.mail.send(FLASK, ATTESTATION, "k0", b"new", 11)
        await t.mail.sent(on_its_way.n, "$old")
    replacement = await next_to(store)
    assert (replacement.content, replacement.txn_id != on_its_way.txn_id) == (b"new", True)


async def test_the_same_content_queued_again_is_the_same_event_on_its_way(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.send(FLASK, ATTESTATION, "k0", b"same", 10)
    before = await next_to(store)
    async with store.transaction() as t:
        await t.mail.send(FLASK, ATTESTATION, "k0", b"same", 11)
    assert await next_to(store) == before


async def test_a_failed_attempt_changes_nothing_but_the_count(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.send(FLASK, ATTESTATION, "k0", b"{}", 10)
    before = await next_to(store)
    async with store.transaction() as t:
        await t.mail.failed(before.n, "the homeserver is away")
    after = await next_to(store)
    assert (after.attempts, after.txn_id, after.content) == (1, before.txn_id, before.content)


async def test_an_event_set_aside_lets_the_next_one_through_and_is_counted(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.send(FLASK, ATTESTATION, "k0", b"too large", 10)
        await t.mail.send(FLASK, ATTESTATION, "k1", b"fine", 11)
    large = await next_to(store)
    async with store.transaction() as t:
        await t.mail.set_aside(large.n, "413 M_TOO_LARGE")
        assert await t.mail.backlog() == Backlog(unread=0, unreadable=0, queued=1, aside=1)
    assert (await next_to(store)).content == b"fine"


async def test_rooms_with_mail_come_longest_waiting_first_and_go_when_they_are_empty(store: Store) -> None:
    async with store.transaction() as t:
        for room in ("project:b", "project:a", "trust", "project:a", "project:b"):
            await t.mail.send(room, "m.notice", None, b"{}", 10)
        assert await t.mail.rooms_with_mail() == ["project:b", "project:a", "trust"]
    await empty_outbox(store, "project:b")
    async with store.transaction() as t:
        assert await t.mail.rooms_with_mail() == ["project:a", "trust"]
        assert await t.mail.next_to("project:b") is None


async def test_what_was_sent_is_found_by_its_event_id(store: Store) -> None:
    async with store.transaction() as t:
        await t.mail.send(FLASK, ATTESTATION, "k0", b"{}", 10)
    row = await next_to(store)
    async with store.transaction() as t:
        await t.mail.sent(row.n, "$sent")
        assert await t.mail.sent_as("$sent") == replace(row, content=b"")
        assert await t.mail.sent_as("$foreign") is None


async def test_a_room_is_known_by_its_key_and_by_its_id_and_can_move(store: Store) -> None:
    moved = RoomRow(key=FLASK, room_id="!new", alias=FLASK_ROOM.alias, constitution="c2", created_ms=2, listed=True)
    async with store.transaction() as t:
        assert await t.mail.room(FLASK) is None
        await t.mail.keep_room(FLASK_ROOM)
        assert (await t.mail.room(FLASK), await t.mail.room_by_id("!flask")) == (FLASK_ROOM, FLASK_ROOM)
        await t.mail.keep_room(moved)
        assert (await t.mail.room_by_id("!flask"), await t.mail.rooms()) == (None, [moved])
