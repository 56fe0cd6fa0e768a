"""What a request to the trustless gateway asks for: one block, or a CAR, of which part and in which form.

Source: Trustless Gateway Specification (2026-03) and IPIP-402, IPIP-412. `?format=` and `?car-…=` win over `Accept`; one of both there
must be, and it must name what it wants: nothing here is for a browser to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qsl

from aiohttp import web
from webob.acceptparse import AcceptValidHeader, create_accept_header

from index_frontend.dag.scope import BadScope, EntityBytes
from index_frontend.handlers.index import combined
from index_frontend.pages.negotiate import NotAcceptable
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

RAW_TYPE: Final = "application/vnd.ipld.raw"
CAR_TYPE: Final = "application/vnd.ipld.car"
_FORMATS: Final = {"raw": RAW_TYPE, "car": CAR_TYPE}
_FORMS: Final = {"version": ("1",), "order": ("dfs", "unk"), "dups": ("y", "n")}
_MAX_PARAMETERS: Final = 32
_SPOKEN: Final = f"this gateway speaks {RAW_TYPE} (?format=raw) and {CAR_TYPE} (?format=car)"

Scope: TypeAlias = Literal["block", "entity", "all"]
_SCOPES: Final[dict[str, Scope]] = {"block": "block", "entity": "entity", "all": "all"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CarAsk:
    """A CAR: `span` is the part of the file that is asked for, None for all of it; `dups` whether blocks are repeated."""

    scope: Scope
    span: EntityBytes | None
    dups: bool

    @property
    def content_type(self) -> str:
        """With every parameter that is known: version, order and duplicates always are."""
        return f"{CAR_TYPE}; version=1; order=dfs; dups={'y' if self.dups else 'n'}"

    @property
    def query(self) -> str:
        """This very ask as a query string."""
        span = "" if self.span is None else f"&entity-bytes={self.span}"
        return (
            f"format=car&dag-scope={self.scope}{span}&car-version=1&car-order=dfs&car-dups={'y' if self.dups else 'n'}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAsk:
    """`car` is None for a single block. `is_spelled_out`: the URL names the format, and it is the one that `Accept` prefers."""

    car: CarAsk | None
    is_spelled_out: bool
    only_if_cached: bool


def read_ask(request: web.BaseRequest, query: str) -> GatewayAsk:
    """What is asked for. Raises NotAcceptable for other formats and forms, Problem (400) for nonsense and for no format at all."""
    parameters = _parameters(query)
    accepted = _accepted(combined(request.headers, "Accept"))
    format_ = parameters.get("format")
    if format_ is not None:
        kind = _FORMATS.get(format_.lower())
        if kind is None:
            raise NotAcceptable(f"unknown format {format_[:40]!a}; {_SPOKEN}")
    elif accepted:
        kind = accepted[0][0]
    elif request.headers.get("Accept"):
        raise NotAcceptable(f"{_SPOKEN}, and Accept names neither")
    else:
        raise Problem(f"no format is asked for; {_SPOKEN}", code=ProblemCode.BAD_REQUEST)
    form = next((form for accepted_kind, form in accepted if accepted_kind == kind), {})
    return GatewayAsk(
        car=_car(parameters, form) if kind == CAR_TYPE else None,
        is_spelled_out=format_ is not None and (not accepted or accepted[0][0] == kind),
        only_if_cached="only-if-cached" in request.headers.get("Cache-Control", "").lower(),
    )


def _parameters(query: str) -> dict[str, str]:
    """By name; of those that come twice the first one counts."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise Problem("a query with too many parameters", code=ProblemCode.BAD_REQUEST) from error
    return dict(reversed(pairs))


def _accepted(accept: str | None) -> list[tuple[str, Mapping[str, str]]]:
    """(type, parameters) of what `Accept` names of ours in a form that we have, most welcome first."""
    header = create_accept_header(accept)
    if not accept or not isinstance(header, AcceptValidHeader):
        return []
    named: list[tuple[float, str, Mapping[str, str]]] = []
    for range_, quality, parameters, _ in header.parsed or ():
        kind = range_.partition(";")[0].strip().lower()
        form = {name.lower(): value.lower() for name, value in parameters}
        if quality > 0 and kind in _FORMATS.values() and (kind == RAW_TYPE or _is_had(form)):
            named.append((quality, kind, form))
    named.sort(key=lambda entry: -entry[0])  # stable: of equals the one named first
    return [(kind, form) for _, kind, form in named]


def _is_had(form: Mapping[str, str]) -> bool:
    return all(form.get(name, had[0]) in had for name, had in _FORMS.items())


def _car(parameters: Mapping[str, str], form: Mapping[str, str]) -> CarAsk:
    chosen = {name: parameters.get(f"car-{name}", form.get(name)) for name in _FORMS}
    for name, value in chosen.items():
        if value is not None and value not in _FORMS[name]:
            raise NotAcceptable(f"CARs are here with {name} {' or '.join(_FORMS[name])}, not {value[:40]!a}")
    scope = _SCOPES.get(parameters.get("dag-scope", "all"))
    if scope is None:
        raise BadScope("dag-scope is block, entity or all")
    entity_bytes = parameters.get("entity-bytes")
    span = None if entity_bytes is None else EntityBytes.parse(entity_bytes)
    if span is not None and scope == "all":
        scope = "entity"
    return CarAsk(scope=scope, span=None if scope == "block" else span, dups=chosen["dups"] == "y")
