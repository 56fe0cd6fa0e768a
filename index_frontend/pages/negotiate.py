"""Which representation a client gets (PEP 691, RFC 9110 §12), and in which content coding."""

from __future__ import annotations

from typing import Final, NewType

from webob.acceptparse import AcceptValidHeader, create_accept_encoding_header, create_accept_header

from matrix_pypi_bot.wire.problems import Problem, ProblemCode

MediaType = NewType("MediaType", str)
"""A content type that pages are served in, one of `JSON`, `HTML` and `TEXT`."""

Coding = NewType("Coding", str)
"""A content coding that pages are served in, one of `IDENTITY`, `GZIP` and `ZSTD`."""

JSON: Final = MediaType("application/vnd.pypi.simple.v1+json")
HTML: Final = MediaType("application/vnd.pypi.simple.v1+html")
TEXT: Final = MediaType("text/html")
IDENTITY: Final = Coding("identity")
GZIP: Final = Coding("gzip")
ZSTD: Final = Coding("zstd")

_OFFERS: Final = (JSON, HTML, TEXT)
# Offered only to those who name them: a wildcard must never be answered under an alias.
_ALIASES: Final = {
    "application/vnd.pypi.simple.latest+json": JSON,
    "application/vnd.pypi.simple.latest+html": HTML,
    "text/html;charset=utf-8": TEXT,
}
_FORMATS: Final = {offer: offer for offer in _OFFERS} | _ALIASES
_CODINGS: Final = (ZSTD, GZIP)  # ours in order of preference; zstd is smaller and quicker to undo


class NotAcceptable(Problem):
    """None of our representations is one that the client takes."""

    code = ProblemCode.NOT_ACCEPTABLE


def negotiate(accept: str | None, format_: str | None = None) -> MediaType:
    """The representation for an `Accept` header and a `?format=` parameter, which wins over it.

    No header, an empty one and one that is not by the grammar all mean "anything", which is `text/html`: people and curl send that,
    installers never. Raises NotAcceptable.
    """
    if format_:
        return _formatted(format_)
    header = create_accept_header(accept)
    if not accept or not isinstance(header, AcceptValidHeader) or not header.parsed:
        return TEXT
    named = {entry[0] for entry in header.parsed}
    acceptable: list[tuple[str, float]] = header.acceptable_offers(
        [*_OFFERS, *(alias for alias in named if alias.lower() in _ALIASES)]
    )
    if not acceptable:
        raise NotAcceptable(f"this index speaks {', '.join(_OFFERS)}, and Accept allows none of them")
    best = acceptable[0][1]
    tied = [offer.lower() for offer, quality in acceptable if quality == best]
    return _preferred(tied, {name.lower() for name in named})


def choose_coding(accept_encoding: str | None) -> Coding:
    """The content coding for an `Accept-Encoding` header.

    Only codings that the client names are used: `*` is sent by programs that decode nothing. A client that refuses even `identity`
    gets it all the same, because a page is of more use than a 406.
    """
    if not accept_encoding:
        return IDENTITY
    header = create_accept_encoding_header(accept_encoding)
    named = {name.lower(): quality for name, quality in header.parsed or ()}
    best = max(_CODINGS, key=lambda coding: named.get(coding, 0.0))  # the first of equals
    quality = named.get(best, 0.0)
    return best if quality > 0 and quality >= named.get(IDENTITY, 0.0) else IDENTITY


def _formatted(format_: str) -> MediaType:
    # A `+` that was not escaped is a space to whoever reads a query as a form.
    chosen = _FORMATS.get(format_.strip().lower().replace(" ", "+"))
    if chosen is None:
        raise NotAcceptable(f"unknown format {format_[:80]!a}; this index speaks {', '.join(_OFFERS)}")
    return chosen


def _preferred(tied: list[str], named: set[str]) -> MediaType:
    """The one of equally welcome offers that was named most precisely; among those JSON first, but `text/html` when all that
    was said is `*/*`.
    """
    precision = {offer: _precision(offer, named) for offer in tied}
    most = max(precision.values())
    if most == 0 and TEXT in tied:
        return TEXT
    offer = next(offer for offer in tied if precision[offer] == most)
    return _FORMATS[offer]


def _precision(offer: str, named: set[str]) -> int:
    if offer in named:
        return 2
    return 1 if f"{offer.partition('/')[0]}/*" in named else 0
