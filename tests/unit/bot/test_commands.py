"""Commands in rooms: what counts as one, what it is answered, and how little anybody can make the bot do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.keyring import PinnedOrg
from matrix_pypi_bot.core.signers import MIRROR, WATCHER, SigningKey
from matrix_pypi_bot.services.commands import ALL_PER_MINUTE, PER_SENDER, PER_SERVER, Command, Commands, read_command
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.services.keys import ensure_manifest
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.relay import Relay, read_blob, write_blob
from matrix_pypi_bot.services.room_answers import RoomAnswers
from matrix_pypi_bot.services.trust_pages import TrustPages
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem
from tests.support.bot_world import MXA, ONE, START_MS, TWO, World
from tests.support.plain_statements import EVIL, ORGA, ROOTB, attestation, envelope_of
from tests.support.trust_world import ORGANISATION
from tests.unit.bot.test_log import BOT, keeper_of

MAINT = SigningKey(b"\x0a" * 32)
ROOM = "project:mxa"
ALICE = "@alice:other.example"


def event(body: str, **changes: Any) -> dict[str, Any]:
    content = {"msgtype": "m.text", "body": body, **changes.pop("content", {})}
    return {
        "type": "m.room.message",
        "event_id": "$asked",
        "sender": ALICE,
        "origin_server_ts": START_MS,
        "content": content,
        **changes,
    }


def read(told: dict[str, Any]) -> Command | None:
    return read_command(ROOM, told, bot=BOT, now_ms=START_MS)


def built(sha256: str = ONE.sha256, *, key: Any = MAINT, project: str = "mxa") -> dict[str, Any]:
    """A maintainer's statement about the first file."""
    told = attestation(
        key,
        "maint",
        sha256=sha256,
        project=project,
        version="1.0",
        size=10,
        source={"kind": "build", "method": "bytes"},
    )
    told["subject"][0]["name"] = ONE.filename
    return envelope_of(told, key)


@pytest.fixture
async def members(world: World) -> Members:
    """One organisation that knows a maintainer and has pinned another organisation."""
    other = PinnedOrg(name="orgb", roots=(ROOTB.public,), threshold=1, roles=frozenset({MIRROR, WATCHER}))
    made = Members(
        store=world.store,
        clock=world.clock,
        own=ORGANISATION.pinned,
        pinned=[other],
        maintainers={MXA: frozenset({MAINT.public.hex()})},
    )
    made.learn_own(await ensure_manifest(world.store, world.clock, ORGANISATION, bot_mxid=BOT))
    return made


@pytest.fixture
async def commands(world: World, members: Members) -> Commands:
    """Who answers for a bot that attested one of two files."""
    await world.mirror(ONE, TWO, stored=[ONE])
    await world.settled()
    return commands_of(world, members)


def commands_of(world: World, members: Members, *, is_public: bool = True) -> Commands:
    keeper, _ = keeper_of(world)
    pages = TrustPages(
        explainer=world.explainer, projects=world.projects, store=world.store, clock=world.clock, log=keeper, org="orga",
        log_origin="orga/matrix-pypi", orgs=lambda: ["orga"], is_public=is_public,
    )  # fmt: skip
    relay = Relay(store=world.store, clock=world.clock, intake=Intake(members), postman=world.postman)
    answers = RoomAnswers(
        org="orga", explainer=world.explainer, pages=pages, members=members, relay=relay, clock=world.clock
    )
    return Commands(answers=answers, store=world.store, clock=world.clock, postman=world.postman, bot=BOT)


async def outbox(world: World, room: str = ROOM) -> list[tuple[str, str | None, dict[str, Any]]]:
    """What waits for the room, taken out: (type, state key, content)."""
    found = []
    async with world.store.transaction() as tables:
        while (row := await tables.mail.next_to(room)) is not None:
            found.append((row.type, row.state_key, json.loads(row.content)))
            await tables.mail.sent(row.n, f"$sent{row.n}")
    return found


async def answer(world: World, commands: Commands, body: str, room: str = ROOM) -> list[str]:
    """The lines of the notice, after the reaction's sign."""
    await outbox(world, room)
    command = read_command(room, event(body), bot=BOT, now_ms=START_MS)
    assert command is not None
    await commands.answer(command)
    *_, (_, _, reaction), (_, _, notice) = await outbox(world, room)
    return [reaction["m.relates_to"]["key"], *notice["body"].split("\n")]


# ---- what is a command ----------------------------------------------------------------------------------------------


def test_text_that_begins_with_the_prefix_is_a_command_in_any_case() -> None:
    told = read(event("  !PyPI  why\n flask.whl "))
    assert told == Command(room=ROOM, event_id="$asked", sender=ALICE, words=("why", "flask.whl"), thread=None)
    assert told.project == ProjectName("mxa")


def test_the_thread_in_which_it_was_asked_is_known() -> None:
    relation = {"rel_type": "m.thread", "event_id": "$root", "m.in_reply_to": {"event_id": "$x"}}
    told = read(event("!pypi help", content={"m.relates_to": relation}))
    assert told is not None
    assert told.thread == "$root"


@pytest.mark.parametrize(
    "told",
    [
        event("hello"),
        event("!pypistatus"),
        event("say !pypi help"),
        event(""),
        event("!pypi help", content={"msgtype": "m.notice"}),
        event("!pypi help", content={"msgtype": "m.emote"}),
        event("!pypi help", sender=BOT),
        event("!pypi help", state_key=""),
        event("!pypi help", type="m.room.encrypted"),
        event("!pypi help", origin_server_ts=START_MS - 600_001),
        event("!pypi help", origin_server_ts="now"),
        event("!pypi help", content={"m.relates_to": {"rel_type": "m.replace", "event_id": "$old"}}),
        event("!pypi help", content={"body": 5}),
        event("!pypi help", event_id=None),
        event("!pypi help", sender=None),
        {"type": "m.room.message"},
        {},
    ],
)
def test_everything_else_is_none(told: dict[str, Any]) -> None:
    assert read(told) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["type", "content", "sender", "event_id", "origin_server_ts", "state_key"])
PARTS = st.sampled_from(["msgtype", "body", "m.relates_to", "m.mentions"])


@given(st.dictionaries(NAMES, JSON, max_size=4), st.dictionaries(PARTS, JSON, max_size=3))
def test_no_event_whatever_makes_reading_fail(changes: dict[str, Any], parts: dict[str, Any]) -> None:
    told = event("!pypi help", content=parts) | changes
    assert read(told) is None or isinstance(read(told), Command)


# ---- manners --------------------------------------------------------------------------------------------------------


async def test_an_answer_is_one_reaction_and_a_notice_that_replies_and_wakes_nobody(
    world: World, commands: Commands
) -> None:
    await outbox(world)
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": "$root"}}
    assert commands.hear(ROOM, event("!pypi why <b>&", content=thread))
    await commands.answer(commands._waiting.popleft())
    (first, _, reaction), (second, state_key, notice) = await outbox(world)
    assert (first, reaction) == (
        "m.reaction",
        {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$asked", "key": "\u274c"}},
    )
    assert (second, state_key, notice["msgtype"], notice["m.mentions"]) == ("m.room.message", None, "m.notice", {})
    assert notice["m.relates_to"] == {
        "rel_type": "m.thread",
        "event_id": "$root",
        "is_falling_back": False,
        "m.in_reply_to": {"event_id": "$asked"},
    }
    assert "&lt;b&gt;&amp;" in notice["formatted_body"]
    assert world.postman.pokes > 0


async def test_nobody_gets_more_than_a_few_answers_a_minute(world: World, commands: Commands) -> None:
    heard = [commands.hear(ROOM, event("!pypi help")) for _ in range(PER_SENDER + 3)]
    others = [commands.hear(ROOM, event("!pypi help", sender=f"@{name}:x")) for name in "abcdefghijkl"]
    assert (heard.count(True), others.count(True)) == (PER_SENDER, 12 - PER_SENDER)
    world.clock.pass_seconds(60)
    assert commands.hear(ROOM, event("!pypi help", origin_server_ts=world.clock.ms))


async def test_nor_do_many_accounts_of_one_homeserver_in_many_rooms_nor_all_homeservers_together(
    world: World, commands: Commands
) -> None:
    def hear(number: int, server: str) -> bool:
        heard = commands.hear(f"project:p{number}", event("!pypi help", sender=f"@user{number}:{server}"))
        commands._waiting.clear()
        return heard

    assert [hear(n, "evil.example") for n in range(PER_SERVER + 5)].count(True) == PER_SERVER
    others = [hear(n, f"s{n}.example") for n in range(100, 100 + ALL_PER_MINUTE)]
    assert others.count(True) == ALL_PER_MINUTE - PER_SERVER


async def test_in_rooms_that_the_bot_only_reads_it_says_nothing(commands: Commands) -> None:
    assert not commands.hear(f"{ROOM}@orgb", event("!pypi help"))
    assert not commands.hear(ROOM, event("hello"))
    assert commands.hear(ROOM, event("!pypi help"))


async def test_a_bug_in_an_answer_is_told_as_one_and_ends_nothing(
    world: World, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(world.projects, "load", bug)
    assert await answer(world, commands, "!pypi status") == [
        "\u274c",
        "that failed here; the bot's log knows it as $asked",
    ]


# ---- the answers ----------------------------------------------------------------------------------------------------


async def test_help_names_every_command_there_is(world: World, commands: Commands) -> None:
    good, *lines = await answer(world, commands, "!pypi")
    assert (good, lines[0]) == ("\u2705", "orga: I answer for one organisation:")
    for line in lines[1:]:
        name = line.split()[1].rstrip(":")
        assert "there is no command" not in "".join(await answer(world, commands, f"!pypi {name}"))
    assert "there is no command frobnicate" in (await answer(world, commands, "!pypi frobnicate"))[1]


async def test_status_counts_the_files_and_shows_those_of_a_version(world: World, commands: Commands) -> None:
    assert (await answer(world, commands, "!pypi status"))[
        1
    ] == "orga: mxa, upstream live, page 0 s old: 2 files, 2 serve+attest R8"
    assert (await answer(world, commands, "!pypi status 1.0"))[2:] == [
        f"{ONE.filename}: serve+attest R8, attested by orga"
    ]
    assert (await answer(world, commands, f"!pypi status {TWO.filename}"))[2:] == [f"{TWO.filename}: serve+attest R8"]
    assert (await answer(world, commands, "!pypi status 9"))[0] == "\u274c"


async def test_why_tells_the_rule_and_the_evidence(world: World, commands: Commands) -> None:
    good, *lines = await answer(world, commands, f"!pypi why {ONE.filename}")
    assert (good, lines[0], lines[-1]) == (
        "\u2705",
        f"orga: {ONE.filename}: serve+attest R8",
        f"/trust/mxa/{ONE.filename} has the statements",
    )
    assert any(line.startswith(f"- upstream {ONE.sha256[:12]} upstream names it") for line in lines)
    assert (await answer(world, commands, f"!pypi why {ONE.filename}", room="trust"))[1] == lines[0]
    for wrong in ("!pypi why", "!pypi why mxa-9.tar.gz", "!pypi why ../x", "!pypi why a b"):
        assert (await answer(world, commands, wrong))[0] == "\u274c"


async def test_of_a_private_index_rooms_are_told_nothing_either(world: World, members: Members) -> None:
    await world.mirror(ONE)
    private = commands_of(world, members, is_public=False)
    for asked in ("!pypi status", f"!pypi why {ONE.filename}"):
        told = await answer(world, private, asked)
        assert (told[0], ONE.sha256[:12] in "".join(told)) == ("\u274c", False)


async def test_keys_and_peers_are_told(world: World, commands: Commands) -> None:
    keys = await answer(world, commands, "!pypi keys")
    assert f"{ORGA.keyid[:16]} (mirror, watcher)" in keys[2]
    assert keys[3:] == ["orgb: no manifest is known", f"maintainers of mxa: {MAINT.keyid[:16]}"]
    assert await answer(world, commands, "!pypi peers") == [
        "\u2705",
        "orga: trusts 1 other organisations",
        "orgb: no manifest is known",
    ]


# ---- what maintainers paste -----------------------------------------------------------------------------------------


async def test_a_pasted_statement_is_published_in_the_room_once(world: World, commands: Commands) -> None:
    await outbox(world)
    command = read(event(f"!pypi attest {write_blob(built())}"))
    assert command is not None
    await commands.answer(command)
    (type, state_key, content), *_ = await outbox(world)
    assert (type, state_key, content["dsse"]) == (
        "io.matrix_pypi.attestation.v1",
        f"{MAINT.keyid[:16]}/{ONE.filename}",
        built(),
    )
    again = await answer(world, commands, f"!pypi attest {write_blob(built())}")
    assert (again[0], "known already" in again[1]) == ("\u2705", True)
    async with world.store.transaction() as tables:
        assert [claim.word for claim in await tables.ledger.claims(MXA)] == ["bytes", "build"]


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        ("nonsense!", "not what"),
        ("e30", "E_ENVELOPE"),
        ("{}", "E_ENVELOPE"),
        (write_blob(built(key=EVIL)), "E_KEY_UNKNOWN"),
        (write_blob(built(project="mxb")), "E_NAME_MISMATCH"),
        (write_blob(envelope_of(attestation(), ORGA)), "only what maintainers"),
        ("A" * 60_000, "not what"),
        ("", "BLOB"),
    ],
)
async def test_what_no_maintainer_said_is_not_published(world: World, commands: Commands, blob: str, why: str) -> None:
    told = await answer(world, commands, f"!pypi attest {blob}")
    assert (told[0], why in " ".join(told[1:])) == ("\u274c", True)
    async with world.store.transaction() as tables:
        assert [claim.word for claim in await tables.ledger.claims(MXA)] == ["bytes"]


async def test_a_statement_belongs_to_its_own_room(world: World, commands: Commands) -> None:
    for room in ("project:mxb", "trust"):
        assert (await answer(world, commands, f"!pypi attest {write_blob(built())}", room=room))[0] == "\u274c"


def test_a_blob_is_one_word_and_reads_back() -> None:
    blob = write_blob(built())
    assert (read_blob(blob), read_blob(json.dumps(built()))) == (built(), built())
    assert set(blob) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text(max_size=100))
def test_any_text_is_a_blob_or_a_problem(text: str) -> None:
    try:
        read_blob(text)
    except Problem:
        return
