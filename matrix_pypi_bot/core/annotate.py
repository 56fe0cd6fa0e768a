"""A page with every file's decision: the finished document that the bot hands to its frontends.

Refused and unavailable files stay listed, yanked with the reason, so that resolvers skip them and an explicit pin reaches the
answer that says why. Files in their cooldown are left out. A quarantined project lists nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from matrix_pypi_bot.core.decide import Rule
from matrix_pypi_bot.core.index_document import IndexPage
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import FileDecision, encode
from matrix_pypi_bot.wire.names import FileName

_REVISION_DIGITS: Final = 32
_UP: Final = "../.."  # from /simple/<project>/, so that pages work below any prefix


@dataclass(frozen=True, slots=True)
class FinishedPage:
    """A PEP 691 document as JSON, still without its `_view`, and its revision: equal documents have equal ones."""

    body: bytes
    revision: str


class _Hashes(msgspec.Struct, frozen=True):
    sha256: Sha256


class _Entry(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={
        "decision": "_decision",
        "path": "_path",
        "upstream_url": "_url",
        "requires_python": "requires-python",
        "upload_time": "upload-time",
        "core_metadata": "core-metadata",
    },
):
    """A file as the page lists it; what has its default is left out."""

    filename: FileName
    url: str
    hashes: _Hashes
    decision: FileDecision
    path: str
    upstream_url: str
    size: int | None = None
    requires_python: str | None = None
    upload_time: str | None = None
    provenance: str | None = None
    core_metadata: bool | _Hashes = False
    yanked: bool | str = False


def annotate(page: IndexPage, decisions: Mapping[FileName, FileDecision]) -> FinishedPage:
    """`page` as installers get it, with `_decision`, `_path` and `_url` on each file.

    `decisions` holds one for each file of the page. Claims no version of the standard above what upstream and the entries bear.
    """
    document: dict[str, object] = {
        **page.extras,
        "meta": {"api-version": page.api_version} | ({} if page.serial is None else {"_last-serial": page.serial}),
        "name": page.project,
    }
    if page.versions is not None:
        document["versions"] = page.versions
    if page.status != "active" or page.status_reason:
        reason = {"reason": page.status_reason} if page.status_reason else {}
        document["project-status"] = {"status": page.status, **reason}
    shown = () if page.status == "quarantined" else page.files.values()
    document["files"] = [
        _entry(file, decision) for file in shown if (decision := decisions[file.name]).rule != Rule.R7.value
    ]
    body = encode(document)
    return FinishedPage(body, hashlib.sha256(body).hexdigest()[:_REVISION_DIGITS])


def _entry(file: IndexFile, decision: FileDecision) -> object:
    path, metadata = file.path, file.core_metadata
    entry = _Entry(
        file.name,
        _UP + path,
        _Hashes(file.sha256),
        decision,
        path,
        file.url,
        file.size,
        file.requires_python,
        file.upload_time,
        file.provenance,
        metadata if isinstance(metadata, bool) else _Hashes(metadata),
        file.yanked if decision.serves else decision.reason or False,
    )
    return {**file.extras, **msgspec.to_builtins(entry)} if file.extras else entry
