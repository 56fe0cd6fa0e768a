"""Refutations in this organisation's name: signed, kept, logged, posted in the package's room in a thread with what they accuse."""

from __future__ import annotations

import json
from typing import Final

from matrix_pypi_bot.core.envelope import read_envelope
from matrix_pypi_bot.core.events import Checked, StatementTooLarge, post_of
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.core.statements.refutation import Evidence, Fault, Refutation
from matrix_pypi_bot.ports import PROJECT_ROOM, TRUST_ROOM, EnvelopeRow, Transaction
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import clean_line

MESSAGE: Final = "m.room.message"


class Refutations:
    """Says them with the organisation's voice."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice

    async def say(
        self,
        tables: Transaction,
        *,
        fault: Fault,
        project: ProjectName,
        file: FileName,
        statement_id: str,
        keyid: str,
        shown: Evidence,
        told: str,
        org: str,
        now_ms: int,
    ) -> str:
        """The id of the refutation, which is in the log and on its way to the project's room when the transaction ends.

        `told` is what people read of it: `is false (...): ...`.
        """

        def predicate(reporter: SignedBy, now: Instant) -> Refutation:
            return Refutation(
                fault=fault,
                project=project,
                file=file,
                accused=Keyid(keyid),
                observed=now,
                reporter=reporter,
                evidence=shown,
            )

        subjects = {"attestation": Sha256(statement_id)}
        checked = await self._voice.say_once(tables, subjects, predicate, file=file, now_ms=now_ms)
        await self._post(tables, checked, f"{PROJECT_ROOM}{project}", statement_id, now_ms)
        notice = f"{org}'s attestation of {file} {told}. To check it: matrix-pypi explain {file}"
        await self._notice(tables, f"{PROJECT_ROOM}{project}", statement_id, notice, now_ms)
        return checked.statement.id

    async def repeat(self, tables: Transaction, accusation: EnvelopeRow, *, now_ms: int) -> str | None:
        """The id of our own refutation with the evidence of another's that was upheld; None when none is signed."""
        if not self._voice.may_speak:
            return None
        told = read_statement(read_envelope(json.loads(accusation.envelope)).payload, Refutation).predicate
        assert isinstance(told, Refutation), "it was checked when it was kept"

        def predicate(reporter: SignedBy, now: Instant) -> Refutation:
            return Refutation(
                fault=told.fault,
                project=told.project,
                file=told.file,
                accused=told.accused,
                observed=now,
                reporter=reporter,
                evidence=told.evidence,
            )

        name = "log" if told.fault is Fault.LOG_FORK else "attestation"
        assert accusation.sha256 is not None, "a refutation has a subject"
        subjects = {name: accusation.sha256}
        file = FileName(told.file) if told.file is not None else None
        try:
            checked = await self._voice.say_once(tables, subjects, predicate, file=file, now_ms=now_ms)
        except StatementTooLarge:  # our name is longer than the other's
            return None
        room = TRUST_ROOM if told.project is None else f"{PROJECT_ROOM}{told.project}"
        await self._post(tables, checked, room, accusation.sha256, now_ms)
        return checked.statement.id

    async def fork(
        self, tables: Transaction, origin: str, keyid: str, notes: tuple[str, str], now_ms: int
    ) -> str | None:
        """The id of the refutation of a log that signed two heads of one size, for the trust room; None when nothing is signed now."""
        if not self._voice.may_speak:
            return None

        def predicate(reporter: SignedBy, now: Instant) -> Refutation:
            return Refutation(
                fault=Fault.LOG_FORK,
                project=None,
                file=None,
                accused=Keyid(keyid),
                observed=now,
                reporter=reporter,
                evidence=Evidence(notes=notes),
            )

        subjects = {"log": sha256_of(origin.encode())}
        checked = await self._voice.say_once(tables, subjects, predicate, file=None, now_ms=now_ms)
        await self._post(tables, checked, TRUST_ROOM, None, now_ms)
        return checked.statement.id

    async def _post(self, tables: Transaction, checked: Checked, room: str, accused: str | None, now_ms: int) -> None:
        thread = None if accused is None else await _thread(tables, room, accused)
        post = post_of(checked, relates_to=thread)
        content = json.dumps(post.content, sort_keys=True, separators=(",", ":")).encode()
        await tables.mail.send(room, post.type, post.state_key, content, now_ms)

    async def _notice(self, tables: Transaction, room: str, accused: str, text: str, now_ms: int) -> None:
        """The same for people, in the thread."""
        content: dict[str, object] = {"msgtype": "m.notice", "body": clean_line(text, 500)}
        if (thread := await _thread(tables, room, accused)) is not None:
            content["m.relates_to"] = thread
        await tables.mail.send(room, MESSAGE, None, json.dumps(content, sort_keys=True).encode(), now_ms)


async def _thread(tables: Transaction, room: str, accused: str) -> dict[str, object] | None:
    """The thread of the accused statement's event, if one of that room carried it: a homeserver takes no relation into another room."""
    row = await tables.mail.room(room)
    event_id = None if row is None else await tables.ledger.event_of(accused, row.room_id)
    return None if event_id is None else {"rel_type": "m.thread", "event_id": event_id}
