"""What tests of several running organisations do and ask: files served and attested, lies told with an organisation's own key."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matrix_pypi_bot.core.events import Checked, check_envelope, post_of, sign_statement
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.signers import MIRROR, PinnedKey, SigningKey
from matrix_pypi_bot.core.statements.attestation import Attestation, Source
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, project_and_version
from tests.support.dists import Dist
from tests.support.http_client import ask
from tests.support.matrix import MatrixRefusal, MatrixUser
from tests.support.member import Member
from tests.support.waiting import wait_until

LEARNT_SECONDS = 60  # the promise; on an idle machine it is a tenth of that
Json = dict[str, Any]


def asked(member: Member, path: str) -> Json:
    """What the organisation's bot answers."""
    token = member.org.secret("bot_token_file")
    reply = ask(f"{member.org.told['bot']}/internal/v1{path}", Authorization=f"Bearer {token}")
    answer: Json = json.loads(reply.body)
    return answer


def decision(member: Member, dist: Dist) -> Json:
    """The decision of the organisation's bot on a file."""
    return asked(member, f"/decide/{dist.project}/{dist.filename}")


def rule(member: Member, dist: Dist) -> str:
    """Its rule; empty while nothing is known of the file."""
    return str(decision(member, dist).get("rule", ""))


def told(member: Member, dist: Dist) -> str:
    """Everything that the bot says of the file, as one text."""
    return json.dumps(asked(member, f"/explain/{dist.project}/{dist.filename}"))


def serve(member: Member, dist: Dist) -> None:
    """A client gets the file, once the organisation has seen that it is there, and the organisation attests it."""
    wait_until(
        lambda: member.file(dist).body == dist.content,
        f"{member.name} serves {dist.filename}",
        timeout_seconds=LEARNT_SECONDS,
    )
    wait_until(
        lambda: f"by {member.name}, signed here" in told(member, dist),
        f"{member.name} attests {dist.filename}",
        timeout_seconds=LEARNT_SECONDS,
    )


def judged(member: Member, dist: Dist, fault: str, verdict: str, of: Member) -> bool:
    """Whether this is the newest word at the organisation on such an accusation of what another one signed about the file."""
    return f"{fault}: {verdict}, signed by {of.name}" in told(member, dist)


def wait_until_judged(member: Member, dist: Dist, fault: str, verdict: str, of: Member) -> None:
    """Returns when it is."""
    wait_until(
        lambda: judged(member, dist, fault, verdict, of),
        f"{fault} of {of.name} is {verdict} at {member.name}",
        timeout_seconds=LEARNT_SECONDS,
    )


def wait_until_rule(member: Member, dist: Dist, *rules: str) -> Json:
    """The decision of the organisation's bot on a file, once it is by one of these rules."""

    def decided() -> Json | None:
        found = decision(member, dist)
        return found if found.get("rule") in rules else None

    what = f"{' or '.join(rules)} holds for {dist.filename} at {member.name}"
    return wait_until(decided, what, timeout_seconds=LEARNT_SECONDS)


def wait_until_attested(member: Member, dist: Dist, *by: Member) -> None:
    """Returns when the organisation knows that these attested the file."""
    wait_until(
        lambda: all(f"by {other.name}, " in told(member, dist) for other in by),
        f"{member.name} knows who attested {dist.filename}",
        timeout_seconds=LEARNT_SECONDS,
    )


def approve(member: Member, dist: Dist) -> None:
    """An operator of the organisation has the file served."""
    program = Path(sys.executable).with_name("matrix-pypi")
    command = [
        program,
        "approve",
        dist.filename,
        "--reason",
        "looked at it",
        "--home",
        member.home,
        "--org",
        member.name,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def lie(member: Member, dist: Dist) -> Checked:
    """A statement with the organisation's own key that the file is these bytes, which upstream never said."""
    key = SigningKey(bytes.fromhex(member.org.secret("mirror_key_file")))
    project, version = project_and_version(FileName(dist.filename))
    predicate = Attestation(
        signer=SignedBy(org=member.name, key=key.keyid),
        seq=1_000_000,
        prev=None,
        issued=Instant.parse("2026-11-22T12:00:00Z"),
        project=project,
        version=version,
        size=dist.size,
        source=Source(kind="pypi", method="bytes", serial=10**9),
        expires=None,
    )
    envelope = sign_statement({dist.filename: Sha256(dist.sha256)}, predicate, key)
    known = {key.keyid: PinnedKey(public=key.public, org=member.name, roles=frozenset({MIRROR}))}
    return check_envelope(envelope.to_json(), known, Attestation)


def post(member: Member, room: str, checked: Checked, *, heard_by: Iterable[Member]) -> str:
    """The event id: the organisation's own bot user says it in the room, as whoever has its tokens could.

    It waits until those who are to hear it are in the room: what is said while a homeserver joins may never reach it.
    """
    said = post_of(checked)
    assert said.state_key is not None
    user = bot_user(member)
    for hearer in (member, *heard_by):
        _wait_until_in(user, room, hearer)
    return user.put_state(room, said.type, said.state_key, said.content)


def bot_user(member: Member) -> MatrixUser:
    """The organisation's bot as anybody is who has its tokens: its homeserver's admin, for one."""
    return MatrixUser(member.org.told["homeserver"], member.org.bot, member.org.secret("as_token_file"))


def room_of(member: Member, dist: Dist) -> str:
    """The id of the room in which the organisation speaks about the project, once there is one."""
    return str(
        wait_until(
            lambda: asked(member, f"/explain/{dist.project}/{dist.filename}").get("room"),
            f"{member.name} has a room for {dist.project}",
            timeout_seconds=LEARNT_SECONDS,
        )
    )


def refutations(member: Member, room: str) -> list[Json]:
    """The refutations that the organisation's homeserver has in the room."""
    return [dict(event) for event in bot_user(member).timeline(room, "io.matrix_pypi.refutation.v1")]


def wait_until_refuted_in(room: str, *, by: Member, seen_at: Member) -> None:
    """Returns when a refutation by the organisation stands in the room, as another one's homeserver shows it."""
    wait_until(
        lambda: any(event["sender"] == by.org.bot for event in refutations(seen_at, room)),
        f"{seen_at.name} sees the refutation of {by.name} in the room",
        timeout_seconds=LEARNT_SECONDS,
    )


def _wait_until_in(user: MatrixUser, room: str, member: Member) -> None:
    def is_in() -> bool:
        try:
            said = user.content(room, "m.room.member", member.org.bot)
        except MatrixRefusal:  # the user is not in the room himself
            return False
        return said is not None and said["membership"] == "join"

    wait_until(is_in, f"{member.name} is in the room, as {user.user_id} sees it", timeout_seconds=LEARNT_SECONDS)
