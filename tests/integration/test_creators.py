"""A room's creator is an enemy, somebody begins anew, somebody has an old backup: what was said is known, and decided the same.

What the creator does is done at its homeserver, with the bot's own token. Its bot goes on working as it should.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dists import Dist, wheel
from tests.support.federated import (
    LEARNT_SECONDS,
    bot_user,
    decision,
    judged,
    room_of,
    rule,
    serve,
    told,
    wait_until_attested,
    wait_until_rule,
)
from tests.support.ledgers import attestations, copied, leaves, ledger_of
from tests.support.matrix import MatrixRefusal, MatrixUser
from tests.support.member import Member
from tests.support.organisations import Organisations
from tests.support.verifying import ATTESTATION
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


class Malice:
    """What a room's creator does to the others in it."""

    def __init__(self, organisations: Organisations, room: str) -> None:
        [created] = [
            event for event in bot_user(organisations.members[0]).state(room) if event["type"] == "m.room.create"
        ]
        self.room = room
        self.creator = next(member for member in organisations.members if member.org.bot == created["sender"])
        self.others = [member for member in organisations.members if member.name != self.creator.name]
        self.user: MatrixUser = bot_user(self.creator)

    def cannot_put_anybody_out(self) -> None:
        """The others are creators too: no rule of the room can be turned against them."""
        levels = self.user.content(self.room, "m.room.power_levels")
        assert levels is not None
        for member in self.others:
            for how in ("kick", "ban"):
                with pytest.raises(MatrixRefusal) as refusal:
                    self.user.put_out(self.room, how, member.org.bot)
                assert refusal.value.status == 403
            with pytest.raises(MatrixRefusal) as refusal:
                users = {**levels.get("users", {}), member.org.bot: 0}
                self.user.put_state(self.room, "m.room.power_levels", "", {**levels, "users": users})
            assert refusal.value.status in (400, 403)

    def redact_all(self) -> None:
        """Every statement of the others is redacted, and what is in its place then is overwritten."""
        for event in self.user.state(self.room):
            if event["type"] == ATTESTATION and event["sender"] != self.creator.org.bot:
                self.user.redact(self.room, event["event_id"])
                self.user.put_state(self.room, ATTESTATION, event["state_key"], {"v": 1, "dsse": "mine"})

    def shut_out_and_close(self) -> None:
        """The servers of the others are denied, and the room says that it went elsewhere."""
        elsewhere = self.user.create_room(f"pypi-elsewhere-{self.room[1:8].lower()}", [])
        self.user.put_state(self.room, "m.room.tombstone", "", {"body": "gone", "replacement_room": elsewhere})
        hosts = [member.org.server_name for member in self.others]
        self.user.put_state(self.room, "m.room.server_acl", "", {"allow": ["*"], "deny": ["localhost", *hosts]})


def decisions(member: Member, *dists: Dist) -> list[tuple[object, object]]:
    """What is served at an organisation, and by which rule."""
    return [(found.get("rule"), found.get("sha256")) for found in (decision(member, dist) for dist in dists)]


def alarms(organisations: Organisations, member: Member) -> str:
    """What the organisation's bot logged."""
    return (organisations.stack.home / "logs" / f"{member.name}-bot.log").read_text()


@contextlib.contextmanager
def upstream_away(organisations: Organisations, *members: Member) -> Iterator[None]:
    """None of these reaches the upstream."""
    for member in members:
        organisations.doors[member.name].off()
    yield
    for member in members:
        organisations.doors[member.name].on()


def test_a_malicious_creator_changes_no_decision_of_who_was_there_and_none_of_who_comes_after(
    three_orgs: Organisations, name: str
) -> None:
    before, later = wheel(name), wheel(name, "2.0")
    a, b, c = three_orgs.members
    three_orgs.upstream.publish(before)
    for member in (a, b, c):
        serve(member, before)
    for member in (a, b, c):
        wait_until_attested(member, before, a, b, c)
    malice = Malice(three_orgs, room_of(a, before))
    newcomer = malice.others[-1]
    with upstream_away(three_orgs, newcomer):
        three_orgs.upstream.publish(later)
        for member in (malice.creator, malice.others[0]):
            serve(member, later)
        wait_until_rule(newcomer, later, "R19")
        wait_until_rule(newcomer, before, "R13")
        held = decisions(newcomer, before, later)

        malice.cannot_put_anybody_out()
        malice.redact_all()
        malice.shut_out_and_close()
        for member in malice.others:
            wait_until(
                lambda member=member: (
                    "own statement redacted alarm" in alarms(three_orgs, member)
                    and "constitution changed alarm" in alarms(three_orgs, member)
                ),
                f"{member.name} noticed it",
                timeout_seconds=LEARNT_SECONDS,
            )
        assert decisions(newcomer, before, later) == held
        assert decisions(malice.others[0], before, later) == [("R8", before.sha256), ("R8", later.sha256)]

        # It begins anew: its keys are files, everything else it learns from the others.
        with newcomer.down("bot"):
            forget(newcomer)
        wait_until_rule(newcomer, later, "R19")
        wait_until_rule(newcomer, before, "R13")
        assert decisions(newcomer, before, later) == held
        assert newcomer.get(str(decision(newcomer, later)["path"])).body == later.content

    # What is said now reaches everybody as before.
    after = wheel(name, "3.0")
    three_orgs.upstream.publish(after)
    for member in malice.others:
        serve(member, after)
    for member in (a, b, c):
        wait_until_attested(member, after, *malice.others)
    for member in (a, b, c):
        assert not any("its key is suspended" in told(member, dist) for dist in (before, later, after))


def test_who_is_restored_from_an_old_backup_says_nothing_new_in_the_place_of_what_it_said(
    three_orgs: Organisations, name: str, tmp_path: Path
) -> None:
    old, lost, new = wheel(name), wheel(name, "2.0"), wheel(name, "3.0")
    a, b, c = three_orgs.members
    three_orgs.upstream.publish(old, lost, new)
    serve(b, old)
    with b.down("bot"):
        copy(ledger_of(b), tmp_path)
    serve(b, lost)
    for member in (a, c):
        wait_until_attested(member, lost, b)
        wait_until(
            lambda member=member: len(attestations(ledger_of(member), name, "orgb")) == 2, f"{member.name} has it"
        )
        # What a room alone has cannot be put back into a log: nobody else has seen its place there.
        wait_until(
            lambda member=member: copied(ledger_of(member), "orgb") == leaves(ledger_of(b)),
            f"{member.name} has a copy of the log",
            timeout_seconds=LEARNT_SECONDS,
        )
    with b.down("bot"):
        forget(b)
        copy(tmp_path / "bot.db", ledger_of(b).parent)
    wait_until_attested(b, lost, b)
    serve(b, new)
    for member in (a, b, c):
        wait_until_attested(member, new, b)
        assert len(attestations(ledger_of(member), name, "orgb")) == 3
    for member in (a, c):
        assert not judged(member, new, "log-fork", "UPHELD", of=b)
        assert rule(member, new) == "R8"


def forget(member: Member) -> None:
    """The organisation's bot, which does not run, has no database any more."""
    for file in ledger_of(member).parent.glob("bot.db*"):
        file.unlink()


def copy(database: Path, folder: Path) -> None:
    """A copy of the database of a bot that does not run."""
    for file in database.parent.glob(f"{database.name}*"):
        shutil.copy2(file, folder / file.name)
