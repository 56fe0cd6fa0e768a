"""`make simulate`: plays the table of policies against conditions and writes it into the documentation."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys

import click
from rich.console import Console
from rich.progress import Progress

from tests.byzantine.campaign import CONDITIONS, POLICIES, Run, is_promised, play
from tests.byzantine.report import broken, cells, write

Job = tuple[str, str, int]


def _play(job: Job) -> tuple[Job, Run]:
    logging.disable(logging.CRITICAL)
    policy, condition, seed = job
    [chosen] = [one for one in POLICIES if one.name == policy]
    [where] = [one for one in CONDITIONS if one.name == condition]
    return job, play(chosen, where, seed)


@click.command()
@click.option("--seeds", default=300, show_default=True, help="Runs of each promised cell.")
@click.option("--others", default=60, show_default=True, help="Runs of each other cell.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True)
def main(seeds: int, others: int, first: int, processes: int) -> None:
    """Plays every cell of the table; fails when a promised one served something false."""
    console = Console()
    jobs: list[Job] = [
        (policy.name, condition.name, seed)
        for policy, condition in cells()
        for seed in range(first, first + (seeds if is_promised(policy, condition) else others))
    ]
    results: dict[tuple[str, str], list[Run]] = {}
    with Progress(console=console) as progress, multiprocessing.Pool(processes) as pool:
        task = progress.add_task(f"{len(jobs)} runs", total=len(jobs))
        for (policy, condition, _), run in pool.imap_unordered(_play, jobs, chunksize=4):
            results.setdefault((policy, condition), []).append(run)
            progress.advance(task)
    for runs in results.values():
        runs.sort(key=lambda run: run.seed)
    write(results, f"Seeds {first} to {first + seeds - 1} in the promised cells (bold), {others} in the others.")
    for one in broken(results):
        console.print(f"broken: {one.policy} / {one.condition}, seed {one.seed}", style="red")
    sys.exit(1 if broken(results) else 0)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts have another order in each process otherwise
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.byzantine", *sys.argv[1:]])
    main()
