"""What trust costs: checking an event, and a bot that holds 100,000 attestations: its start, its answers, its memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.core.envelope import pae
from matrix_pypi_bot.core.events import check_event, post_of
from matrix_pypi_bot.core.signers import verifies
from matrix_pypi_bot.ports import Store
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.bot_world import ManualClock, ScriptedIndex
from tests.support.dists import Dist
from tests.support.federation import Participant, Trusting, federation
from tests.support.statements import Organisation

PROJECTS, FILES_EACH, ORGS = 5_000, 10, ("orga", "orgb")  # 100,000 attestations
QUESTIONS = 4_000
ROUNDS = 7


def dists(project: int) -> Iterator[Dist]:
    """The files of one project; their contents are never needed."""
    for version in range(FILES_EACH):
        name = f"bench{project}-1.{version}-py3-none-any.whl"
        yield Dist(
            project=f"bench{project}", version=f"1.{version}", filename=name, content=name.encode(), metadata=b""
        )


def check_of_an_event() -> None:
    """The whole ordered check of an attestation event, beside one bare Ed25519 verification in the same run."""
    org = Organisation("orga")
    checked = org.attest("flask-3.1.3-py3-none-any.whl")
    post = post_of(checked)
    event = {"type": post.type, "state_key": post.state_key, "content": post.content, "sender": "@a:b"}
    room, signature = ProjectName("flask"), checked.envelope.signatures[0].sig
    message = pae(checked.envelope.payload)
    whole, bare = [], []
    for _ in range(ROUNDS):
        whole.append(_microseconds(lambda: check_event(event, room, org.keys)))
        bare.append(_microseconds(lambda: verifies(org.key.public, signature, message)))
    print(
        f"check of one event: {_told(whole)} us (goal <= 300), a bare Ed25519 verification {_told(bare)} us, "
        f"ratio {statistics.median(whole) / statistics.median(bare):.2f}"
    )


def _microseconds(action: Callable[[], object], times: int = 2_000) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        action()
    return 1e6 * (time.perf_counter() - begin) / times


def _told(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


async def fill(folder: Path) -> None:
    """A database with 100,000 attestations by two others, both manifests read."""
    async with federation(folder, "home", *ORGS) as made:
        home, clock = made["home"], made.clock
        for org in ORGS:
            for project in range(PROJECTS):
                async with home.store.transaction() as tables:
                    for dist in dists(project):
                        checked = home.intake.check(made[org].lie(dist).to_json())
                        await home.intake.keep(tables, checked, via="log", at_ms=clock.now_ms())


async def ask(folder: Path) -> None:
    """The bot's start, and its answers about files of projects picked at random, beside a bare look-up in the same database."""
    clock, index = ManualClock(), ScriptedIndex()
    index.off()
    begin = time.perf_counter()
    async with open_store(f"sqlite:{folder}/home.db") as store:
        bot = Participant("home", store, index, clock, ORGS, Trusting())
        await bot.start()
        print(
            f"start with {PROJECTS * FILES_EACH * len(ORGS):,} attestations: {time.perf_counter() - begin:.2f} s (goal <= 5)"
        )
        gc.freeze()
        before = _memory()
        bare, asked = await _questions(bot, store)
        print(
            f"decide: {1e3 * _at(asked, 0.5):.2f} ms median, {1e3 * _at(asked, 0.99):.2f} ms p99 (goal <= 2); "
            f"a bare look-up of the project's claims {1e3 * _at(bare, 0.5):.2f} and {1e3 * _at(bare, 0.99):.2f} ms; "
            f"ratio at p99 {_at(asked, 0.99) / _at(bare, 0.99):.1f}"
        )
        print(
            f"memory: {before:.0f} MB before the questions, {_memory():.0f} MB after (bounded by the cache of projects)"
        )
        await bot.stop()


async def _questions(bot: Participant, store: Store) -> tuple[list[float], list[float]]:
    chooser = random.Random(7)
    bare, asked = [], []
    for number in range(QUESTIONS):
        project = chooser.randrange(PROJECTS)
        dist = chooser.choice(list(dists(project)))
        begin = time.perf_counter()
        async with store.transaction() as tables:
            await tables.ledger.claims(ProjectName(dist.project))
        bare.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        decision = await bot.answers.decision(ProjectName(dist.project), FileName(dist.filename), None)
        asked.append(time.perf_counter() - begin)
        assert decision.rule == "R19", (decision.rule, number)
    return bare, asked


def _at(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def _memory() -> float:
    """Megabytes that this process holds now, its largest until now where that is not told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def run() -> None:
    """All of it."""
    logging.disable(logging.WARNING)  # upstream is away for each of 4,000 questions
    check_of_an_event()
    with tempfile.TemporaryDirectory(prefix="matrix-pypi-bench-") as folder:
        begin = time.perf_counter()
        asyncio.run(fill(Path(folder)))
        size = (Path(folder) / "home.db").stat().st_size
        print(f"filled in {time.perf_counter() - begin:.0f} s, {size / 1e6:.0f} MB")
        asyncio.run(ask(Path(folder)))


if __name__ == "__main__":
    run()
