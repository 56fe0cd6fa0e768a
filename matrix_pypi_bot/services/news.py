"""What of a new page an operator should hear of."""

from __future__ import annotations

import logging

from matrix_pypi_bot.core.cooldown import back_dated
from matrix_pypi_bot.core.decide import Rule
from matrix_pypi_bot.core.provenance import vanished
from matrix_pypi_bot.services.known import Known

log = logging.getLogger(__name__)


def report_news(before: Known, after: Known) -> None:
    """One line a kind of news; one a file of what is an attack or looks like one."""
    assert after.view is not None, "a page was shown"
    assert after.finished is not None, "a view is always finished"
    if dropped := after.view.page.dropped:
        log.info("page entries dropped", extra={"project": after.project, "dropped": str(dict(dropped))})
    for file in after.view.page.conflicted:
        log.warning("file listed with two digests alarm", extra={"project": after.project, "file": file})
    for file in vanished(before.view.page.files if before.view is not None else {}, after.view.page.files):
        log.warning("file without provenance alarm", extra={"project": after.project, "file": file})
    if after.first_seen is not before.first_seen:
        told = {
            file: entry.upload_time for file, entry in after.view.page.files.items() if file not in before.first_seen
        }
        if false := back_dated(told, after.sights):
            what = {"project": after.project, "file": false[0], "files": len(false)}
            log.warning("upload-time back-dated alarm", extra=what)
    old = before.finished.decisions if before.finished is not None else {}
    for file, decision in after.finished.decisions.items():
        if decision.rule == Rule.R3 and (file not in old or old[file].rule != Rule.R3):
            log.warning(
                "digest changed alarm", extra={"project": after.project, "file": file, "reason": decision.reason}
            )
