"""A page with every file's decision: the finished document that the bot hands to its frontends.

Refused and unavailable files stay listed, yanked with the reason, so that resolvers skip them and an explicit pin reaches the
answer that says why. Files in their cooldown are left out. A quarantined project lists nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.decide import Rule
from matrix_pypi_bot.core.index_document import IndexPage
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.wire.messages import FileDecision, encode
from matrix_pypi_bot.wire.names import FileName, file_path

_REVISION_DIGITS: Final = 32
_UP: Final = "../.."  # from /simple/<project>/, so that pages work below any prefix


@dataclass(frozen=True, slots=True)
class FinishedPage:
    """A PEP 691 document, still without its `_view`, and its revision: equal documents have equal ones."""

    document: dict[str, object]
    revision: str


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
    return FinishedPage(document, hashlib.sha256(encode(document)).hexdigest()[:_REVISION_DIGITS])


def _entry(file: IndexFile, decision: FileDecision) -> dict[str, object]:
    path = file_path(file.address, file.name)
    entry: dict[str, object] = {
        **file.extras,
        "filename": file.name,
        "url": _UP + path,
        "hashes": {"sha256": file.sha256},
        "_decision": decision,
        "_path": path,
        "_url": file.url,
    }
    if file.size is not None:
        entry["size"] = file.size
    if file.requires_python is not None:
        entry["requires-python"] = file.requires_python
    if file.upload_time is not None:
        entry["upload-time"] = file.upload_time
    if file.provenance is not None:
        entry["provenance"] = file.provenance
    if file.core_metadata is not False:
        entry["core-metadata"] = True if file.core_metadata is True else {"sha256": file.core_metadata}
    yanked = file.yanked if decision.serves else decision.reason
    if yanked:
        entry["yanked"] = yanked
    return entry
