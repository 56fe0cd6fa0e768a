"""From the bot's word on a file, and whether its bytes are here, to what is done about a request.

    judge(decision)  ->  Wanted (the object that may leave) | Deny | Later
    plan(wanted, …)  ->  FromStore | Describe | Fetch | Deny

A file's answer has other statuses than a page's: pip dies with a traceback on a file's 503, and stops with our sentence on 504.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from matrix_pypi_bot.wire.digests import InvalidDigest, Sha256, parse_sha256
from matrix_pypi_bot.wire.messages import Decision
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import clean_line

MAX_METADATA_BYTES: Final = 8 << 20
"""The longest METADATA that is fetched or taken out of a wheel. The largest known are under 1 MiB."""

_TOLD_STATUSES: Final = frozenset({"archived", "deprecated"})
METADATA: Final = ".metadata"
"""What the name of a file's metadata ends with; no file's name does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One object to serve: the digest that decides, and where it may be found when it is not here.

    `name` is the file's, or `<file>.metadata`; `wheel` is then the digest of the wheel it can be taken out of. `opened_origins` are
    the `scheme://host:port` that may be asked although they are http or private. `cids` are those of the
    file, or of the wheel, as the bot told them, unchecked; `cids_are_ours`: this organisation found them itself when it hashed the
    whole. `peers` are the gateways of other organisations, as they announced them; `peer_origins` those of them that the operator
    opened as above; `has_peers`: there may be some, and the bot tells them with the CIDs. `rule` is the decision's, e.g. `R8`; `status`
    what upstream says of the project, empty when that is nothing special.
    """

    sha256: Sha256
    size: int | None
    urls: tuple[str, ...]
    opened_origins: frozenset[str]
    project: ProjectName
    name: str
    max_bytes: int
    cids: tuple[str, ...] = ()
    cids_are_ours: bool = False
    peers: tuple[str, ...] = ()
    peer_origins: frozenset[str] = frozenset()
    has_peers: bool = False
    rule: str = ""
    status: str = ""
    wheel: Sha256 | None = None

    @property
    def is_metadata(self) -> bool:
        """Whether it is a file's metadata, not a file; no file's name ends so."""
        return self.name.endswith(METADATA)

    @property
    def file(self) -> str:
        """The name of the file, also of one whose metadata is wanted."""
        return self.name.removesuffix(METADATA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """Not to be served: 403, or 404 for what is not there any more. `reason` is one clean line for people."""

    status: Literal[403, 404]
    rule: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Not to be served now: 504."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class FromStore:
    """The bytes are here, verified."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Describe:
    """Head without body of a file that is not here: all it needs is known, nothing is fetched."""

    wanted: Wanted
    size: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """To be fetched. Nothing is answered before the whole is verified when `whole_first`: a closed range would be complete."""

    wanted: Wanted
    whole_first: bool


def judge(decision: Decision, *, metadata: bool, max_file_bytes: int) -> Wanted | Deny | Later:
    """What the bot's word on a file means for it, or for its `.metadata`, which stands and falls with its file."""
    if not decision.serves:
        return _refusal(decision)
    digest = decision.core_metadata_sha256 if metadata else decision.sha256
    if digest is None and metadata:
        return Deny(status=404, rule=decision.rule, reason=_line(f"{decision.file} has no metadata of its own"))
    try:
        sha256 = parse_sha256(digest or "")
        wheel = parse_sha256(decision.sha256) if metadata and decision.sha256 else None
    except InvalidDigest:
        return Later(rule=decision.rule, reason=_line(f"{decision.file}: the bot named no digest"))
    return Wanted(
        sha256=sha256,
        size=None if metadata else decision.size,
        urls=tuple(_metadata_url(url) for url in decision.urls) if metadata else decision.urls,
        opened_origins=frozenset(decision.opened_origins),
        project=ProjectName(decision.project),
        name=f"{decision.file}{METADATA}" if metadata else decision.file,
        max_bytes=min(max_file_bytes, MAX_METADATA_BYTES) if metadata else max_file_bytes,
        cids=decision.cids,
        cids_are_ours=bool(decision.attested_by),
        peers=decision.peers,
        peer_origins=frozenset(decision.peer_origins),
        has_peers=decision.has_peers,
        rule=decision.rule,
        status=decision.project_status if decision.project_status in _TOLD_STATUSES else "",
        wheel=wheel,
    )


def plan(wanted: Wanted, *, held: bool, head: bool, whole_first: bool) -> FromStore | Describe | Fetch | Deny:
    """What to do for a request: `head` when it asks for no body, `whole_first` when a part must not be answered unverified."""
    if held:
        return FromStore(wanted)
    if wanted.size is not None and wanted.size > wanted.max_bytes:
        told = f"{wanted.name} has {wanted.size} bytes; {wanted.max_bytes} are the most that is fetched here"
        return Deny(status=403, rule=wanted.rule, reason=_line(told))
    if head and wanted.size is not None:
        return Describe(wanted, wanted.size)
    return Fetch(wanted, whole_first)


def _refusal(decision: Decision) -> Deny | Later:
    reason = decision.reason or f"{decision.rule} {decision.action}: {decision.file}"
    if decision.action in ("unavailable", "contested"):
        return Later(rule=decision.rule, reason=_line(reason))
    return Deny(status=404 if decision.http == 404 else 403, rule=decision.rule, reason=_line(reason))


def _line(text: str) -> str:
    """`matrix-pypi: …`: one printable line, which also says to a user of pip who is speaking."""
    return clean_line(text if text.startswith("matrix-pypi:") else f"matrix-pypi: {text}")


def _metadata_url(url: str) -> str:
    """The address of `<file>.metadata` beside the file (PEP 658); a query or fragment stays behind."""
    return url.partition("#")[0].partition("?")[0] + METADATA
