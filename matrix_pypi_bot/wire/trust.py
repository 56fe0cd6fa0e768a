"""The trust pages as JSON: what a bot tells everybody of its decisions, and what of it a stranger can check by himself.

A reader believes none of it. `envelopes`, `refutations` and `manifests` prove themselves by their signatures, `log` by the log's
key; the rest says what this organisation makes of them.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from matrix_pypi_bot.wire.messages import Evidence, FileDecision, ViewState

TRUST: Final = "/trust"
JSON_TYPE: Final = "application/json"
HTML_TYPE: Final = "text/html"

Dsse: TypeAlias = msgspec.Raw
"""A DSSE envelope as JSON, in the bytes in which it is kept; not looked at."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """That a statement is in the log: the index of its leaf, and the inclusion proof (RFC 6962 order, base64)."""

    leaf: int
    hashes: tuple[str, ...]


class LogTold(msgspec.Struct, frozen=True, kw_only=True):
    """The organisation's log: the newest checkpoint's note, None before the first, and proofs against it by statement id."""

    origin: str
    note: str | None
    proofs: dict[str, Proof] = {}


class Judged(msgspec.Struct, frozen=True, kw_only=True, rename={"fault": "class"}):
    """What this organisation holds of an accusation: `statement_id` is accused of `fault`, the result is e.g. `UPHELD` or `DISMISSED`.

    `evidence_id` is the refutation that showed it, None where it was found out here.
    """

    statement_id: str
    fault: str
    result: str
    org: str
    reason: str
    at: str
    evidence_id: str | None


class TrustFile(msgspec.Struct, frozen=True, kw_only=True):
    """`/trust/<project>/<file>`: the decision and why. `sha256`: the digest it is about, None when there is not one.

    `envelopes` are the statements on the file: attestations, reviews, withdrawals and overrides, own and others'. `manifests` are, for
    each organisation known here, the key manifests by which a reader who pinned a root of it, also a former one, gets to its keys.
    """

    org: str
    project: str
    file: str
    decision: FileDecision
    rule: str
    reason: str
    sha256: str | None
    evidence: tuple[Evidence, ...]
    envelopes: tuple[Dsse, ...]
    refutations: tuple[Dsse, ...]
    verdicts: tuple[Judged, ...]
    manifests: dict[str, tuple[Dsse, ...]]
    log: LogTold


class FileStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A file in the list of its project: how it was decided, and every digest that somebody attested or upstream named for it."""

    decision: FileDecision
    sha256: tuple[str, ...]
    attested_by: tuple[str, ...]


class TrustProject(msgspec.Struct, frozen=True, kw_only=True):
    """`/trust/<project>/`: how every file of the project stands, and how upstream's page of it does."""

    org: str
    project: str
    state: ViewState
    view_age_seconds: float
    serial: int | None
    room: str | None
    files: dict[str, FileStanding]


class TrustHome(msgspec.Struct, frozen=True, kw_only=True):
    """`/trust/`: who speaks here, with which keys, and some of the projects; `next` is what `?after=` goes on behind."""

    org: str
    projects: tuple[str, ...]
    next: str | None
    manifests: dict[str, tuple[Dsse, ...]]
    log: LogTold


def wants_json(accept: str) -> bool:
    """Whether an `Accept` header asks for JSON rather than for the page that people read. Nothing it holds makes it raise."""
    told: dict[str, float] = {}
    for part in accept[:1_000].lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        told[name] = max(told.get(name, 0.0), _quality(parameters))
    json = _first(told, JSON_TYPE, "application/*", "*/*")
    html = _first(told, HTML_TYPE, "text/*", "*/*")
    return json > html


def _first(told: dict[str, float], *ranges: str) -> float:
    return next((told[one] for one in ranges if one in told), 0.0)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
