"""The pages that people read: rendered on the server, without scripts, without anything from elsewhere.

Everything that is put into a template was perhaps written by a stranger: it is made one printable ASCII line, then escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from matrix_pypi_bot.core.decide import REASONS, Rule
from matrix_pypi_bot.core.envelope import read_envelope
from matrix_pypi_bot.core.limits import MAX_MANIFEST_SIGNATURES
from matrix_pypi_bot.core.signers import keyid_of
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.services.trust_pages import FilePage
from matrix_pypi_bot.web.cards import card_of
from matrix_pypi_bot.wire.problems import clean_line
from matrix_pypi_bot.wire.trust import Dsse, TrustHome, TrustProject

MAX_SHOWN_FILES: Final = 1_000  # the JSON has all
_MAX_TEXT_CHARACTERS: Final = 30_000  # an envelope of a full statement

_NUMBERS: Final = re.compile(r"([0-9]+)", re.ASCII)
_FOLDER: Final = Path(__file__).with_name("templates")
_STYLE: Final = (_FOLDER / "style.css").read_text(encoding="utf-8")
_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SERVES: Final = {
    Rule.R8: "upstream names these bytes now, nothing known contradicts them",
    Rule.R13: "upstream is away; these bytes were verified here before",
    Rule.R19: "upstream is away; the organisations that are trusted here confirmed these bytes",
}
_VERDICTS: Final = {
    "serve+attest": "Served",
    "serve": "Served",
    "refuse": "Refused",
    "quarantine": "In quarantine",
    "unavailable": "Not to be had now",
    "contested": "Contested",
}


def show_home(told: TrustHome) -> bytes:
    """`/trust/`."""
    manifests = {org: _manifest(chain) for org, chain in told.manifests.items()}
    return _render("home.html", told=told, manifests=manifests, note=_lines(told.log.note))


def show_project(told: TrustProject) -> bytes:
    """`/trust/<project>/`. New releases come first."""
    names = sorted(told.files, key=_in_order, reverse=True)
    files = [(name, told.files[name]) for name in names[:MAX_SHOWN_FILES]]
    return _render("project.html", told=told, files=files, more=len(names) - len(files))


def show_file(page: FilePage, org: str) -> bytes:
    """`/trust/<project>/<file>`."""
    return _render(
        "file.html",
        org=org,
        page=page,
        why=_why(page.decision.rule, page.decision.reason),
        cards=[card_of(told, page.sha256) for told in page.told],
        accusations=[card_of(told, page.sha256) for told in page.refutations],
        evidence=page.evidence,
        note=_lines(page.log.note),
    )


def _why(rule: str, reason: str) -> str:
    if reason:
        return reason.removeprefix("matrix-pypi: ").removeprefix(f"{rule} ")
    known = Rule(rule) if rule in Rule.__members__ else None
    return _SERVES.get(known, "") or REASONS.get(known, "") if known is not None else ""


def _manifest(chain: Sequence[Dsse]) -> Manifest:
    """The newest manifest. It was checked when it came."""
    envelope = read_envelope(json.loads(bytes(chain[-1])), max_signatures=MAX_MANIFEST_SIGNATURES)
    manifest = read_statement(envelope.payload, Manifest).predicate
    assert isinstance(manifest, Manifest)
    return manifest


def _keyid(public: str) -> str:
    return keyid_of(bytes.fromhex(public))


def _in_order(name: str) -> list[str | int]:
    """By which `1.10` comes after `1.9`: text and numbers take turns."""
    return [int(part) if part.isdigit() else part for part in _NUMBERS.split(name)]


def _lines(note: str | None) -> list[str]:
    return note.splitlines() if note is not None else []


def _printable(value: object) -> object:
    """What an expression in a template may put onto a page."""
    if isinstance(value, Markup):
        return value
    return clean_line(str(value), _MAX_TEXT_CHARACTERS)


def _render(template: str, **values: object) -> bytes:
    return _ENVIRONMENT.get_template(template).render(**values).encode()


_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("matrix_pypi_bot.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_printable,
    auto_reload=False,
)
_ENVIRONMENT.filters["keyid"] = _keyid
_ENVIRONMENT.globals.update(style=Markup(_STYLE), verdicts=_VERDICTS)  # noqa: S704  # our own file
