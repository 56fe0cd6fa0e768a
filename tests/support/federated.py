"""What tests of several running organisations do and ask: files served and attested, lies told with an organisation's own key."""

from __future__ import annotations

import json
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
from tests.support.matrix import MatrixUser
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
    """A client gets the file, and the organisation attests it."""
    assert member.file(dist).body == dist.content
    wait_until(lambda: f"by {member.name}, signed here" in told(member, dist), f"{member.name} attests {dist.filename}")


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


def post(member: Member, room: str, checked: Checked) -> str:
    """The event id: the organisation's own bot user says it in the room, as whoever has its tokens could."""
    said = post_of(checked)
    assert said.state_key is not None
    user = MatrixUser(member.org.told["homeserver"], member.org.bot, member.org.secret("as_token_file"))
    return user.put_state(room, said.type, said.state_key, said.content)


def room_of(member: Member, dist: Dist) -> str:
    """The id of the room in which the organisation speaks about the project, once there is one."""
    return str(
        wait_until(lambda: json.loads(told(member, dist))["room"], f"{member.name} has a room for {dist.project}")
    )


def refutations(member: Member, room: str) -> list[Json]:
    """The refutations that a new user of the organisation's homeserver sees in the room."""
    reader = member.matrix_user(f"reader-{room[1:7].lower()}-{len(room)}-{id(room) % 10_000}")
    reader.join(room)
    return [dict(event) for event in reader.timeline(room, "io.matrix_pypi.refutation.v1")]
