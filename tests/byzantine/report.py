"""The table and the measures of many runs, as the page in the documentation has them."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.byzantine.campaign import ACKED, CONDITIONS, POLICIES, Condition, Policy, Run, is_promised

Results = Mapping[tuple[str, str], Sequence[Run]]
_BEGIN, _END = "<!-- made by `make simulate` -->", "<!-- end -->"
PAGE: Final = Path(__file__).parents[2] / "docs/protocol/simulation.md"


@dataclass(frozen=True, slots=True)
class Broken:
    """A run in which something false was served although the theorems say that it cannot be."""

    policy: str
    condition: str
    seed: int


def broken(results: Results) -> list[Broken]:
    """What must be empty."""
    return [
        Broken(policy.name, condition.name, run.seed)
        for policy, condition in cells()
        if is_promised(policy, condition)
        for run in results.get((policy.name, condition.name), ())
        if run.frauds
    ]


def cells() -> Iterable[tuple[Policy, Condition]]:
    """All of the table."""
    return [(policy, condition) for policy in POLICIES for condition in CONDITIONS]


def tables(results: Results) -> str:
    """Markdown: runs that served something false, the honest serve rate, and the measures of the default policy."""
    head = "| policy | " + " | ".join(condition.name for condition in CONDITIONS) + " |"
    line = "|---|" + "---|" * len(CONDITIONS)
    rows = [head, line]
    for policy in POLICIES:
        told = (_cell(policy, condition, results[policy.name, condition.name]) for condition in CONDITIONS)
        rows.append(f"| {policy.name} | " + " | ".join(told) + " |")
    measured = [_measures(condition, results[ACKED.name, condition.name]) for condition in CONDITIONS]
    return "\n".join([*rows, "", *_MEASURED, *measured])


def write(results: Results, note: str) -> None:
    """Puts the tables into the page."""
    page = PAGE.read_text()
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n{note}\n\n{tables(results)}\n{_END}{after}")


def _cell(policy: Policy, condition: Condition, runs: Sequence[Run]) -> str:
    bad = sum(run.frauds > 0 for run in runs)
    asked = sum(run.requests for run in runs)
    count = f"{bad}/{len(runs)}"
    rate = 100 * sum(run.served for run in runs) / asked
    return f"{f'**{count}**' if is_promised(policy, condition) else count} · {rate:.0f} %"


_MEASURED: Final = (
    "| acked, m = 0 | minutes of exposure p50 / p95 / max (not ended) | requests a judgement | statements | bytes each | refusals |",
    "|---|---|---|---|---|---|",
)


def _measures(condition: Condition, runs: Sequence[Run]) -> str:
    ended = sorted(each for run in runs for each in run.exposures if each is not None)
    open_ = sum(each is None for run in runs for each in run.exposures)
    exposure = "–"
    if len(ended) > 1:
        cuts = statistics.quantiles(ended, n=20, method="inclusive")
        exposure = f"{statistics.median(ended):.0f} / {cuts[-1]:.0f} / {ended[-1]:.0f} ({open_})"
    judged = sum(run.judged for run in runs)
    asked = f"{sum(run.asked for run in runs) / judged:.1f}" if judged else "–"
    rules = sum((run.rules for run in runs), collections.Counter())
    refused = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items()) if rule not in ("R8", "R13", "R19"))
    statements = sum(run.statements for run in runs)
    size = sum(run.bytes for run in runs) / statements
    return f"| {condition.name} | {exposure} | {asked} | {statements / len(runs):.0f} a run | {size:.0f} | {refused or '–'} |"
