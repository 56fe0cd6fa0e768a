"""The operations of `matrix-pypi conformance`: one JSON object in, one out, so that anybody can hold us to the vectors.

Nothing here is used by the program itself. A malformed request is answered with `{"error": ...}`, never with an exception.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from matrix_pypi_bot.core.decide import decide
from matrix_pypi_bot.core.envelope import seal
from matrix_pypi_bot.core.events import check_event
from matrix_pypi_bot.core.evidence import (
    Absence,
    Doubt,
    Evidence,
    Level,
    Live,
    Mode,
    Provenance,
    Proves,
    Terms,
    Upstream,
)
from matrix_pypi_bot.core.judge import equivocation
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import Keys, PinnedKey, SigningKey, keyid_of
from matrix_pypi_bot.core.strict_json import canonical
from matrix_pypi_bot.core.tlog import consistency_proof, leaf_hash, root_of
from matrix_pypi_bot.wire.cids import PROFILES, CidBuilder
from matrix_pypi_bot.wire.digests import Sha256, sha256_of_chunks
from matrix_pypi_bot.wire.names import InvalidName, ProjectName, is_attestable, parse_file_name, project_and_version

MAX_LINE_CHARACTERS: Final = 64 * 2**20
_CHUNK_BYTES: Final = 1 << 20

Answer = dict[str, object]
T = TypeVar("T")
_Hex32 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class _Key(msgspec.Struct, frozen=True):
    public: _Hex32
    org: str
    roles: frozenset[str]
    projects: frozenset[str] = frozenset()


class _CheckEvent(msgspec.Struct, frozen=True):
    event: object
    keys: dict[str, _Key]
    room_project: str | None = None


class _Equivocation(msgspec.Struct, frozen=True):
    a: object
    b: object
    keys: dict[str, _Key]


class _Sign(msgspec.Struct, frozen=True):
    statement: dict[str, object]
    seed: _Hex32


class _Decide(msgspec.Struct, frozen=True):
    upstream: str
    mode: Mode
    deny: bool = False
    ledger: str | None = None
    attested: tuple[tuple[str, Literal[1, 2, 3]], ...] = ()
    provenance: str | None = None
    cooldown: bool = False
    keep: bool = False


class _Cid(msgspec.Struct, frozen=True):
    path: str
    profile: str


class _Filename(msgspec.Struct, frozen=True):
    name: str


class _Log(msgspec.Struct, frozen=True):
    leaves: tuple[str, ...]
    m: int


class _BadRequest(ValueError):
    """A request that cannot be answered; its text says why."""


def run(lines: Iterable[str]) -> Iterator[str]:
    """One line of JSON for each line of JSON that is not blank, in order. Lines carry no newline on the way out."""
    for line in lines:
        if line.strip():
            yield msgspec.json.encode(answer_line(line)).decode()


def answer_line(line: str) -> Answer:
    """The answer to a request as text."""
    if len(line) > MAX_LINE_CHARACTERS:
        return {"error": "the line is too long"}
    try:
        request = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return {"error": f"not JSON: {error}"}
    return answer(request)


def answer(request: object) -> Answer:
    """The answer to a parsed request."""
    if not isinstance(request, dict):
        return {"error": "a request is an object with an op"}
    operation = request.get("op")
    handler = _OPERATIONS.get(operation) if isinstance(operation, str) else None
    if handler is None:
        return {"error": "unknown op"}
    try:
        return handler({name: value for name, value in request.items() if name != "op"})
    except (msgspec.ValidationError, _BadRequest, RecursionError) as error:
        return {"error": f"malformed request: {error}"}


def _check_event(fields: Answer) -> Answer:
    request = _read(fields, _CheckEvent)
    room = None if request.room_project is None else ProjectName(request.room_project)
    try:
        return {"result": "OK", "id": check_event(request.event, room, _keys(request.keys)).statement.id}
    except Rejected as error:
        return {"result": error.code.value}


def _equivocation(fields: Answer) -> Answer:
    request = _read(fields, _Equivocation)
    return {"result": equivocation(request.a, request.b, _keys(request.keys)).value}


def _sign(fields: Answer) -> Answer:
    """Signs whatever statement it is given, also one that nobody would accept: that is what vectors are made of."""
    request = _read(fields, _Sign)
    try:
        payload = canonical(request.statement)
    except (TypeError, ValueError) as error:
        raise _BadRequest(str(error)) from error
    envelope = seal(payload, SigningKey(bytes.fromhex(request.seed)))
    return {"envelope": envelope.to_json(), "id": envelope.id}


def _decide(fields: Answer) -> Answer:
    """Digests are any text here: `decide()` only compares them."""
    request = _read(fields, _Decide)
    attested: dict[Sha256, Level] = {}
    for digest, level in request.attested:
        attested[Sha256(digest)] = max(Level(level), attested.get(Sha256(digest), Level.MINORITY))
    evidence = Evidence(
        upstream=_upstream(request.upstream),
        accepted=None if request.ledger is None else Sha256(request.ledger),
        attested=attested,
        provenance=_provenance(request.provenance),
        cooling=request.cooldown,
        denied=request.deny,
    )
    ruling = decide(evidence, Terms(request.mode, request.keep))
    return {
        "action": ruling.action,
        "http": ruling.http,
        "rule": ruling.rule.value,
        "digest": ruling.sha256,
        "attest": ruling.attest,
        "refute": sorted(ruling.refute),
    }


def _cid(fields: Answer) -> Answer:
    request = _read(fields, _Cid)
    profile = PROFILES.get(request.profile)
    if profile is None:
        raise _BadRequest(f"unknown profile; known are {', '.join(PROFILES)}")
    builder = CidBuilder(profile)
    try:
        sha256 = sha256_of_chunks(_fed(builder, Path(request.path)))
    except (OSError, ValueError) as error:
        raise _BadRequest(f"the file cannot be read: {error}") from error
    return {"cid": builder.finish(), "sha256": sha256, "size": builder.size}


def _filename(fields: Answer) -> Answer:
    name = _read(fields, _Filename).name
    try:
        if is_attestable(name):
            project, version = project_and_version(parse_file_name(name))
            return {"project": project, "version": version}
    except InvalidName:
        pass  # the same answer as for a name that does not pass the gate
    return {"error": Code.FILENAME.value}


def _log(fields: Answer) -> Answer:
    request = _read(fields, _Log)
    try:
        leaves = [leaf_hash(base64.b64decode(leaf, validate=True)) for leaf in request.leaves]
        proof = consistency_proof(request.m, leaves)
    except ValueError as error:
        raise _BadRequest("leaves are base64") from error
    except IndexError as error:
        raise _BadRequest("m is not between 0 and the number of leaves") from error
    return {"root": _base64(root_of(leaves)), "consistency": [_base64(part) for part in proof]}


_OPERATIONS: Final[dict[str, Callable[[Answer], Answer]]] = {
    "check_event": _check_event,
    "equivocation": _equivocation,
    "sign": _sign,
    "decide": _decide,
    "cid": _cid,
    "filename": _filename,
    "log": _log,
}


def _read(fields: Answer, kind: type[T]) -> T:
    """The fields of a request; unknown ones are ignored. Raises msgspec.ValidationError."""
    return msgspec.convert(fields, kind, dec_hook=_as_it_is)


def _as_it_is(_: type, value: object) -> object:
    """`object` is the only type here that msgspec does not know."""
    return value


def _keys(told: dict[str, _Key]) -> Keys:
    keys = {}
    for keyid, key in told.items():
        public = bytes.fromhex(key.public)
        if keyid_of(public) != keyid:
            raise _BadRequest("a keyid is the sha256 of the public key")
        keys[keyid] = PinnedKey(public=public, org=key.org, roles=key.roles, projects=key.projects)
    return keys


def _upstream(told: str) -> Upstream:
    return Absence(told) if told in {absence.value for absence in Absence} else Live(Sha256(told))


def _provenance(told: str | None) -> Provenance:
    match told:
        case None:
            return None
        case "bad":
            return Doubt.INVALID
        case "publisher":
            return Doubt.PUBLISHER_CHANGED
        case digest:
            return Proves(Sha256(digest))


def _fed(builder: CidBuilder, path: Path) -> Iterator[bytes]:
    if not path.is_file():  # a pipe would wait for ever
        raise FileNotFoundError("not a file")
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            builder.update(chunk)
            yield chunk


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
