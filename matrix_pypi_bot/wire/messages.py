"""The internal API, version 1: what the bot (server) and the frontend (client) say to each other, with its JSON codec.

Described for other languages by `docs/protocol/internal-api.yaml`; a test holds the running server against it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

import msgspec

API: Final = "/internal/v1"
LOG: Final = "/log/v1"
PROVENANCE: Final = "/provenance"  # /provenance/<project>/<file>: a PEP 740 document
PROVENANCE_TYPE: Final = "application/vnd.pypi.integrity.v1+json"
HEARTBEAT_SECONDS: Final = 5  # the change stream says something at least this often
STREAM_SILENCE_SECONDS: Final = 12  # two heartbeats missed: the stream is broken

Action = Literal["serve+attest", "serve", "refuse", "quarantine", "unavailable", "contested"]
SERVING: Final = frozenset({"serve+attest", "serve"})
M = TypeVar("M")
ViewState = Literal["live", "down", "gone", "quarantined"]


class FileDecision(msgspec.Struct, frozen=True):
    """What `decide()` says of one file, as it stands in a page entry under `_decision`.

    `http` is the page-side status: 200, 403, 404 or 503; a file answer turns 503 into 504. `reason` is one clean ASCII line,
    e.g. `matrix-pypi: R3 the digest changed upstream`, empty for an ordinary serve. With `ask` it is what holds until somebody
    wants the file: then `decide` is asked, which looks at what costs too much for every file of a page. It is left out when unset.
    """

    action: Action
    http: int
    rule: str
    reason: str = ""
    ask: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def serves(self) -> bool:
        """Whether bytes may leave."""
        return self.action in SERVING


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `GET /internal/v1/decide/<project>/<file>`: may these bytes be served, which are they, where are they.

    `sha256` and `size` name the digest chosen (size None when nobody told it). `urls` are the upstream addresses of the file,
    best first, none for a file that only other organisations know; `opened_origins` those `scheme://host:port` that the operator's
    own configuration opens although they are http or private. `peers` are the gateways of other organisations (without `/ipfs/`),
    those first that attested the digest, and `peer_origins` the origins of those whose address the operator wrote himself: only they
    may be http or private. `cids` and `peers` stand in no page; `has_peers`: others are pinned, so that it is worth asking.
    `core_metadata_sha256` is the digest of `<file>.metadata`, None when none is advertised. `path` is the file's path here;
    `seq` the position in the change stream at which all this was true; `project_status` what upstream says of the project (PEP 792).
    """

    action: Action
    http: int
    rule: str
    reason: str = ""
    project: str
    file: str
    path: str
    sha256: str | None = None
    size: int | None = None
    core_metadata_sha256: str | None = None
    cids: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    opened_origins: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    peer_origins: tuple[str, ...] = ()
    has_peers: bool = False
    attested_by: tuple[str, ...] = ()
    view_age_seconds: float = 0.0
    seq: int = 0
    project_status: str = "active"

    @property
    def serves(self) -> bool:
        """Whether bytes may leave."""
        return self.action in SERVING


class PageState(msgspec.Struct, frozen=True, kw_only=True):
    """The `_view` of a finished project document: how it stands towards upstream.

    `fresh_seconds` is how long it may be served without asking the bot again; `state` `down` means that the last attempt to refresh
    failed. `seq` is the position in the change stream at which the document was finished, `revision` its ETag without quotes.
    `has_peers`: other organisations are pinned, and `decide` tells where their gateways are.
    """

    state: ViewState
    age_seconds: float
    fresh_seconds: float
    revision: str
    seq: int
    opened_origins: tuple[str, ...] = ()
    has_peers: bool = False


class PageFile(
    msgspec.Struct, frozen=True, kw_only=True, rename={"decision": "_decision", "path": "_path", "upstream_url": "_url"}
):
    """The part of a finished page entry that the frontend itself reads; everything else passes through untouched.

    `upstream_url` is empty for a file that only other organisations know.
    """

    filename: str
    hashes: dict[str, str]
    decision: FileDecision
    path: str
    upstream_url: str
    size: int | None = None
    core_metadata: bool | dict[str, str] | None = msgspec.field(name="core-metadata", default=None)


class ProjectStatus(msgspec.Struct, frozen=True):
    """What upstream says of the project as a whole (PEP 792)."""

    status: str = "active"


class ProjectDocument(
    msgspec.Struct, frozen=True, kw_only=True, rename={"view": "_view", "project_status": "project-status"}
):
    """The part of `GET /internal/v1/projects/<name>` that the frontend itself reads: a finished PEP 691 page.

    The body is the page as installers get it (`url` relative to it, refused files yanked with their reason, cooldown files left out),
    with `_view` on the page and `_decision`, `_path`, `_url` on each file, which the frontend strips.
    """

    name: str
    view: PageState
    files: tuple[PageFile, ...]
    project_status: ProjectStatus = ProjectStatus()


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /internal/v1/stored`: the frontend hashed and stored these bytes for a client who asked.

    `source` is `upstream`, `peer`, `kubo` or `cache` (a file that was held already when a client first asked for it).
    """

    project: str
    file: str
    sha256: str
    size: int
    cid: str
    source: str


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /internal/v1/observed`: wrong bytes were seen. `sha256` None when the transfer broke off before its end.

    `kind` is `bytes` when somebody sent what he was not asked for. It is `cid-content` when every block was the one that `cid` leads
    to, and what they make is not the file with `expected_sha256`: then who attested that CID with that digest is wrong, not who sent
    it. With `sha256` None they make no file of the size expected at all, and `size` is what the root tells (0: it is no file's); that
    size proves something only against who attested another one.
    """

    project: str
    file: str
    expected_sha256: str
    sha256: str | None
    size: int
    source: str
    reason: str
    kind: Literal["bytes", "cid-content"] = "bytes"
    cid: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of `GET /internal/v1/changes?after=<seq>`.

    Either a change (`project`, `revision`, `withdrawn`: files that must be refused from now on), or `heartbeat`, or `reset`:
    `after` is older than what the bot remembers (or from another life of it), forget everything held.
    Without `after` the stream starts now; its first line is a heartbeat with the current `seq`, sent at once.
    """

    seq: int = 0
    project: str | None = None
    revision: str | None = None
    withdrawn: tuple[str, ...] = ()
    heartbeat: bool = False
    reset: bool = False


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /internal/v1/overrides` (operator token): an operator's decision, to be signed and logged by the bot.

    `target` is a file name or a project name. `sha256` only with `approve`: the digest approved; None approves what upstream names now.
    """

    action: Literal["approve", "quarantine", "release"]
    target: str
    reason: str
    sha256: str | None = None


class OverrideDone(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an `Override`: the id of the signed statement, and how the files stand now."""

    statement_id: str
    scope: Literal["file", "project"]
    project: str
    file: str | None
    decisions: dict[str, FileDecision]


class KeyRevocation(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /internal/v1/keys/revocations` (operator token): the end of a key of the organisation, by its public key or its id.

    `compromised_since` e.g. `2026-11-22T13:00:00Z`; None: a routine end, what was received before now stays good.
    """

    key: str
    reason: str
    compromised_since: str | None = None


class KeyDelegation(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /internal/v1/keys/delegations` (operator token): whether a maintainer's public key may speak for a project from now on."""

    project: str
    key: str
    delegated: bool


class DelegationTold(msgspec.Struct, frozen=True, kw_only=True):
    """A maintainer's public key in hex, and the project that it may speak for."""

    project: str
    key: str


class KeyTold(msgspec.Struct, frozen=True, kw_only=True):
    """A key as the manifest lists it; the last three are None while it is not revoked."""

    keyid: str
    key: str
    roles: tuple[str, ...]
    added: str
    revoked: str | None
    reason: str | None
    compromised_since: str | None


class KeysTold(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /internal/v1/keys`, and the answer to whatever changes keys: the organisation's newest manifest; `roots` in hex."""

    org: str
    version: int
    expires: str
    roots: tuple[str, ...]
    keys: tuple[KeyTold, ...]
    delegations: tuple[DelegationTold, ...] = ()


class Relayed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `POST /internal/v1/statements` (operator token; the body is a DSSE envelope): a maintainer's statement was kept and
    is on its way to its room; `new` False: it was known already.
    """

    statement_id: str
    project: str
    file: str
    new: bool


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that `decide()` was told, for people: `kind` e.g. `upstream`, `ledger`, `attestation`, `provenance`, `override`."""

    kind: str
    sha256: str | None
    detail: str
    at: str | None = None
    statement_id: str | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /internal/v1/explain/<project>[/<file>]`: the decision of each file, with every piece of evidence."""

    project: str
    state: ViewState
    view_age_seconds: float
    serial: int | None
    room: str | None
    files: dict[str, FileDecision]
    evidence: dict[str, tuple[Evidence, ...]]


class PeerTold(msgspec.Struct, frozen=True, kw_only=True):
    """A pinned organisation: the address of its gateway, None when nobody told a usable one; `configured` when the operator wrote it.

    `announced_until` is when what it announced last expires, None when nothing that counts was announced.
    """

    org: str
    gateway: str | None
    configured: bool
    announced_until: str | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /internal/v1/figures`: how much there is, how much mail waits, and where the pinned organisations' gateways are.

    `unread` events and `queued` messages will be worked off, `unreadable` and `aside` ones were put away for a person to see.
    """

    log_leaves: int
    rooms: int
    unread: int
    unreadable: int
    queued: int
    aside: int
    peers: tuple[PeerTold, ...] = ()


def encode(message: msgspec.Struct | dict[str, Any]) -> bytes:  # type: ignore[explicit-any]  # a finished page is open JSON
    """The message as compact JSON."""
    return msgspec.json.encode(message)


def decode_as(kind: type[M], data: bytes) -> M:
    """`data` as a message of `kind`. Raises msgspec.ValidationError or msgspec.DecodeError, which name what is wrong."""
    return msgspec.json.decode(data, type=kind)
