"""Maintainers' statements, taken from whoever brings them: checked, kept, and published in their project's room under the bot's name.

Who brings one does not matter, nor how: it proves itself.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.events import Checked, post_of
from matrix_pypi_bot.core.keyring import MAINTAINER_ORG
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.withdrawal import Withdrawal
from matrix_pypi_bot.core.strict_json import parse_strict
from matrix_pypi_bot.ports import PROJECT_ROOM, Clock, Postman, Store
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.wire.messages import Relayed
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

MAX_BLOB_CHARACTERS: Final = 40_000  # a statement of 16 KiB, in base64 twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """See the module."""

    store: Store
    clock: Clock
    intake: Intake
    postman: Postman

    async def take(self, envelope: object, *, room: ProjectName | None = None) -> Relayed:
        """Kept, and on its way to its room, when it returns. `room`: the project that it must be about.

        Raises Problem (BAD_REQUEST) for what no maintainer that is known here may say, StoreAway.
        """
        checked = self._checked(envelope)
        predicate = checked.statement.predicate
        project = ProjectName(predicate.about_project() or "")
        if room not in (None, project):
            raise Problem(f"this is about {project}: it belongs to that room", code=ProblemCode.BAD_REQUEST)
        now_ms = self.clock.now_ms()
        async with self.store.transaction() as tables:
            new = await self.intake.keep(tables, checked, via="room", at_ms=now_ms)
            if new:
                post = post_of(checked)
                content = json.dumps(post.content, sort_keys=True, separators=(",", ":")).encode()
                await tables.mail.send(f"{PROJECT_ROOM}{project}", post.type, post.state_key, content, now_ms)
        if new:
            log.info("maintainer's statement taken", extra={"project": project, "statement": checked.statement.id})
            self.intake.tell(checked)
            self.postman.poke()
        file = predicate.file if isinstance(predicate, Withdrawal) else checked.statement.subject.name
        return Relayed(statement_id=checked.statement.id, project=project, file=file, new=new)

    def _checked(self, envelope: object) -> Checked:
        try:
            checked = self.intake.check(envelope)
        except Rejected as rejected:
            raise Problem(str(rejected), code=ProblemCode.BAD_REQUEST) from rejected
        if checked.key.org != MAINTAINER_ORG or not isinstance(checked.statement.predicate, Attestation | Withdrawal):
            raise Problem("only what maintainers attest or take back is published here", code=ProblemCode.BAD_REQUEST)
        return checked


def read_blob(text: str) -> object:
    """The envelope in what `matrix-pypi attest` prints: its JSON, or that in base64url. Raises Problem (BAD_REQUEST)."""
    try:
        data = text.encode() if text.startswith("{") else _decoded(text[:MAX_BLOB_CHARACTERS])
        return parse_strict(data[:MAX_BLOB_CHARACTERS])
    except (ValueError, Rejected) as error:
        raise Problem("this is not what `matrix-pypi attest` prints", code=ProblemCode.BAD_REQUEST) from error


def write_blob(envelope: dict[str, object]) -> str:
    """The envelope as one word that no chat window changes."""
    data = json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
