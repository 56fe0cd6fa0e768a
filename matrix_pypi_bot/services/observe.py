"""Wrong bytes were seen somewhere: kept, and told to whoever finds out what it proves. By itself it decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable

from matrix_pypi_bot.ports import Clock, Store
from matrix_pypi_bot.wire.cids import parse_cid
from matrix_pypi_bot.wire.digests import parse_sha256
from matrix_pypi_bot.wire.messages import Observed
from matrix_pypi_bot.wire.names import parse_file_name, parse_project
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

log = logging.getLogger(__name__)

MAX_TEXT_CHARACTERS = 300


async def observe(
    store: Store, clock: Clock, observed: Observed, on_kept: Callable[[Observed], None] = lambda observed: None
) -> None:
    """Returns when it is kept; `on_kept` hears of it then. Raises Problem for names, digests or a CID that are none, StoreAway."""
    parse_project(observed.project)
    parse_file_name(observed.file.removesuffix(".metadata"))
    parse_sha256(observed.expected_sha256)
    if observed.sha256 is not None:
        parse_sha256(observed.sha256)
    if observed.cid is not None:
        parse_cid(observed.cid)
    if (observed.kind == "cid-content") != (observed.cid is not None):
        raise Problem("a CID is told with cid-content, and only then", code=ProblemCode.BAD_REQUEST)
    cleaned = Observed(
        project=observed.project,
        file=observed.file,
        expected_sha256=observed.expected_sha256,
        sha256=observed.sha256,
        size=observed.size,
        source=clean_line(observed.source, MAX_TEXT_CHARACTERS),
        reason=clean_line(observed.reason, MAX_TEXT_CHARACTERS),
        kind=observed.kind,
        cid=observed.cid,
    )
    async with store.transaction() as tables:
        await tables.ledger.observe(cleaned, clock.now_ms())
    log.warning(
        "wrong bytes seen alarm" if observed.cid is None else "attested CID of other bytes alarm",
        extra={
            "file": observed.file,
            "source": cleaned.source,
            "reason": cleaned.reason,
            "sha256": observed.sha256,
            "cid": observed.cid,
        },
    )
    on_kept(cleaned)
