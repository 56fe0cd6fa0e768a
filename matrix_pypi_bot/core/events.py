"""Matrix events and the statements they carry: the ordered check with its error codes, and making events of our own.

Validity never depends on a room's current state, the order of events, timestamps or power levels: an event is a bag for an
envelope that proves itself. The order is normative (cheap first): event, envelope, size, base64, known key, signature, JSON,
type, subject, fields, file name, project and version, signer, role, CID, hint, room, state key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.envelope import Envelope, read_envelope, seal, verify, verify_signature
from matrix_pypi_bot.core.limits import MAX_MANIFEST_SIGNATURES, MAX_NOTE_BYTES, MAX_PAYLOAD_BYTES
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import ROOT, Keyid, Keys, PinnedKey, SigningKey
from matrix_pypi_bot.core.statements import EVENT_KINDS, Statement, read_statement, write_statement
from matrix_pypi_bot.core.statements.common import EVENT_PREFIX, OWNED, Predicate
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import ProjectName

HEAD_EVENT_TYPE: Final = f"{EVENT_PREFIX}head.v1"
VERSION: Final = 1

_CONTENT_KEYS: Final = frozenset({"v", "dsse", "hint"})
_RELATES_TO: Final = "m.relates_to"


@dataclass(frozen=True, slots=True)
class Checked:
    """A statement that passed every check, the key that signed it, and the envelope to keep."""

    statement: Statement
    key: PinnedKey
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Post:
    """An event to send. `state_key` None: a timeline event; `OWNED` ("@"): the slot of the sender's own user id."""

    type: str
    state_key: str | None
    content: dict[str, object]


class StatementTooLarge(ValueError):
    """A statement of ours that nobody would read: its payload is above the limit."""


def check_event(event: object, room: ProjectName | None, keys: Keys) -> Checked:
    """The statement that a Matrix event carries, as it was seen in the room of a project (None: in a trust room).

    Raises Rejected with the code of the first check that fails; never anything else, whatever `event` is.
    """
    kind, content = _kind_and_content(event)
    checked = check_envelope(content.get("dsse"), keys, kind)
    statement = checked.statement
    if "hint" in content and not _same(content["hint"], statement.predicate.hint(statement.subjects)):
        raise Rejected(Code.HINT, "the hint says something else than the statement")
    if statement.predicate.about_project() != room:
        raise Rejected(Code.WRONG_ROOM, "the statement belongs to another room")
    _check_state_key(event, statement, checked.key.keyid)
    return checked


def check_envelope(value: object, keys: Keys, kind: type[Predicate] | None = None) -> Checked:
    """The statement in an envelope that came without an event, e.g. from a log; of `kind`, or of any when None.

    Raises Rejected: every check that needs no event, in the same order.
    """
    if kind is Manifest:
        return _check_manifest(read_envelope(value, max_signatures=MAX_MANIFEST_SIGNATURES), keys)
    envelope = read_envelope(value)
    key = verify(envelope, keys)
    statement = read_statement(envelope.payload, kind)
    predicate, subjects = statement.predicate, statement.subjects
    if len(envelope.payload) > predicate.MAX_BYTES:
        raise Rejected(Code.SIZE, f"{predicate.NAME} of more than {predicate.MAX_BYTES} bytes")
    predicate.check_names(subjects)
    signer = predicate.signed_by()
    key = key if signer is None else key.of(signer.org)
    if signer is None or (signer.org, signer.key) != (key.org, key.keyid):
        raise Rejected(Code.SIGNER_MISMATCH, f"the key belongs to {key.org}")
    if not key.may_act_as(predicate.ROLES, predicate.about_project()):
        raise Rejected(Code.ROLE, f"this key may not sign a {predicate.NAME} here")
    predicate.check_cid(subjects)
    return Checked(statement, key, envelope)


def sign_statement(subjects: dict[str, Sha256], predicate: Predicate, *keys: SigningKey) -> Envelope:
    """Our own statement about `subjects` (name to digest), sealed. Raises StatementTooLarge above 16 KiB."""
    payload = write_statement(subjects, predicate)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise StatementTooLarge(f"a statement of {len(payload)} bytes; {MAX_PAYLOAD_BYTES} are allowed")
    return seal(payload, *keys)


def post_of(checked: Checked, *, relates_to: dict[str, object] | None = None) -> Post:
    """The event that carries a statement, with its hint. `relates_to` only for a refutation, so that it shows in a thread."""
    statement, predicate = checked.statement, checked.statement.predicate
    content: dict[str, object] = {"v": VERSION, "dsse": checked.envelope.to_json()}
    hint = predicate.hint(statement.subjects)
    if hint is not None:
        content["hint"] = hint
    if relates_to is not None:
        content[_RELATES_TO] = relates_to
    return Post(predicate.event_type(), predicate.state_key(checked.key.keyid, statement.subjects), content)


def head_post(note: str) -> Post:
    """The event that carries the newest checkpoint of a log, in the sender's own slot of the trust room."""
    return Post(HEAD_EVENT_TYPE, OWNED, {"v": VERSION, "note": note})


def read_head(event: object) -> str:
    """The note in a log head event; not verified. Raises Rejected: E_EVENT, E_REDACTED_OR_EMPTY or E_STATE_KEY."""
    if not isinstance(event, Mapping) or event.get("type") != HEAD_EVENT_TYPE:
        raise Rejected(Code.EVENT, "not a log head")
    content = event.get("content")
    if content == {}:
        raise Rejected(Code.REDACTED_OR_EMPTY)
    if not isinstance(content, Mapping) or content.keys() != {"v", "note"} or not _same(content["v"], VERSION):
        raise Rejected(Code.EVENT, "the content is {v, note}")
    note = content["note"]
    if not isinstance(note, str) or len(note) > MAX_NOTE_BYTES:
        raise Rejected(Code.EVENT, "the note is text")
    if not _is_own_slot(event):
        raise Rejected(Code.STATE_KEY, "a log head stands in the slot of its sender")
    return note


def _kind_and_content(event: object) -> tuple[type[Predicate], Mapping[str, object]]:
    told = event.get("type") if isinstance(event, Mapping) else None
    kind = EVENT_KINDS.get(told) if isinstance(told, str) else None
    content = event.get("content") if isinstance(event, Mapping) else None
    if kind is None or not isinstance(content, Mapping):
        raise Rejected(Code.EVENT, "not an event of ours")
    if not content:
        raise Rejected(Code.REDACTED_OR_EMPTY)
    known = _CONTENT_KEYS | {_RELATES_TO} if kind is Refutation else _CONTENT_KEYS
    if not content.keys() <= known or not _same(content.get("v"), VERSION):
        raise Rejected(Code.EVENT, "an unknown key or version of the content")
    return kind, content


def _check_manifest(envelope: Envelope, keys: Keys) -> Checked:
    """A manifest: by at least one known root; new roots that it lists itself may sign beside it. Thresholds: `keyring`.

    A signature by any other key is not looked at and counts for nothing: who pins a root after it changed does not know the one
    before, which had to sign the change.
    """
    known = [signature for signature in envelope.signatures if signature.keyid in keys]
    if not known:
        raise Rejected(Code.KEY_UNKNOWN, "no pinned root signed this manifest")
    signers = [verify_signature(signature, envelope.payload, keys) for signature in known]
    statement = read_statement(envelope.payload, Manifest)
    manifest = statement.predicate
    assert isinstance(manifest, Manifest)
    listed: dict[str, PinnedKey] = {}
    for root in manifest.roots:
        key = manifest_root(manifest.org, root.key)
        listed[key.keyid] = key
    for signature in envelope.signatures:
        if signature.keyid not in keys and signature.keyid in listed:
            verify_signature(signature, envelope.payload, listed)
    manifest.check_names(statement.subjects)
    signers = [signer.of(manifest.org) for signer in signers]
    if any(signer.org != manifest.org for signer in signers):
        raise Rejected(Code.SIGNER_MISMATCH, "a root of another organisation")
    if not all(ROOT in signer.roles for signer in signers):
        raise Rejected(Code.ROLE, "only roots sign manifests")
    return Checked(statement, signers[0], envelope)


def manifest_root(org: str, public: str) -> PinnedKey:
    """A root key, from its hex form."""
    return PinnedKey(public=bytes.fromhex(public), org=org, roles=frozenset({ROOT}))


def _check_state_key(event: object, statement: Statement, keyid: Keyid) -> None:
    assert isinstance(event, Mapping)
    expected = statement.predicate.state_key(keyid, statement.subjects)
    fits = _is_own_slot(event) if expected == OWNED else _same(event.get("state_key"), expected)
    if not fits or (expected is None and "state_key" in event):
        raise Rejected(Code.STATE_KEY, "the event stands in a slot that is not its own")


def _is_own_slot(event: Mapping[str, object]) -> bool:
    slot = event.get("state_key")
    return isinstance(slot, str) and slot.startswith("@") and slot == event.get("sender")


def _same(told: object, expected: object) -> bool:
    """Equality without Python's `1 == True == 1.0`; `expected` is flat."""
    if isinstance(told, Mapping) and isinstance(expected, Mapping):
        return told.keys() == expected.keys() and all(_same(told[name], expected[name]) for name in expected)
    return type(told) is type(expected) and told == expected
