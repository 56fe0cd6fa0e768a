"""What trust costs: checking an event, and a bot that holds 100,000 attestations: its start, its answers, its memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.app.process import settle_memory
from matrix_pypi_bot.core.envelope import pae
from matrix_pypi_bot.core.events import check_event, post_of
from matrix_pypi_bot.core.signers import verifies
from matrix_pypi_bot.ports import Store
from matrix_pypi_bot.process.secret_files import write_private
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.bot_world import ManualClock, ScriptedIndex
from tests.support.dists import Dist
from tests.support.federation import Participant, Trusting, federation, organisation
from tests.support.statements import Organisation
from tests.support.synapse import free_port
from tests.support.waiting import wait_until

PROJECTS, FILES_EACH, ORGS = 5_000, 10, ("orga", "orgb")  # 100,000 attestations
QUESTIONS = 4_000
ROUNDS = 7
STARTS = 3


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


def _today() -> ManualClock:
    """Manifests run out, and a process goes by the real time."""
    return ManualClock(int(time.time() * 1000))


async def fill(folder: Path) -> None:
    """A database with 100,000 attestations by two others, both manifests read."""
    async with federation(folder, "home", *ORGS, clock=_today()) as made:
        home, clock = made["home"], made.clock
        for org in ORGS:
            for project in range(PROJECTS):
                async with home.store.transaction() as tables:
                    for dist in dists(project):
                        checked = home.intake.check(made[org].lie(dist).to_json())
                        await home.intake.keep(tables, checked, via="log", at_ms=clock.now_ms())


async def ask(folder: Path) -> None:
    """The bot's answers about files of projects picked at random, beside a bare look-up in the same database."""
    clock, index = _today(), ScriptedIndex()
    index.off()
    async with open_store(f"sqlite:{folder}/home.db") as store:
        bot = Participant("home", store, index, clock, ORGS, Trusting())
        await bot.start()
        settle_memory()
        before = _memory()
        bare, asked = await _questions(bot, store)
        print(
            f"decide: {1e3 * _at(asked, 0.5):.2f} ms median, {1e3 * _at(asked, 0.99):.2f} ms p99 (goal <= 2); "
            f"a bare look-up of the project's claims {1e3 * _at(bare, 0.5):.2f} and {1e3 * _at(bare, 0.99):.2f} ms; "
            f"ratio at the median {_at(asked, 0.5) / _at(bare, 0.5):.1f}, at p99 {_at(asked, 0.99) / _at(bare, 0.99):.1f}"
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
        async with store.transaction(reads_only=True) as tables:
            await tables.ledger.claims(ProjectName(dist.project))
        bare.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        decision = await bot.answers.decision(ProjectName(dist.project), FileName(dist.filename), None)
        asked.append(time.perf_counter() - begin)
        assert decision.rule == "R19", (decision.rule, number)
    return bare, asked


def start(folder: Path) -> None:
    """The bot as a process of its own, from its start until it decided on a file: with the full ledger, and with an empty one."""
    full, empty = [], []
    for number in range(STARTS):
        full.append(_seconds_to_first_decision(folder / "home.db", folder / f"full{number}"))
        empty.append(_seconds_to_first_decision(None, folder / f"empty{number}"))
    print(
        f"start of the process until its first decision, {PROJECTS * FILES_EACH * len(ORGS):,} attestations: "
        f"{statistics.median(full):.2f} s ({min(full):.2f} to {max(full):.2f}; goal <= 5), with none "
        f"{statistics.median(empty):.2f} s, ratio {statistics.median(full) / statistics.median(empty):.2f}"
    )


def _seconds_to_first_decision(database: Path | None, home: Path) -> float:
    home.mkdir()
    if database is not None:
        shutil.copy(database, home / "home.db")
    config, address, token = _configured(home)
    dist = next(dists(7))
    asking = urllib.request.Request(
        f"http://{address}/internal/v1/decide/{dist.project}/{dist.filename}",
        headers={"Authorization": f"Bearer {token}"},
    )
    with (home / "log").open("w") as log:
        begin = time.perf_counter()
        bot = subprocess.Popen([sys.executable, "-m", "matrix_pypi_bot", "bot", "-c", config], stdout=log, stderr=log)
        try:
            known = wait_until(lambda: _status(asking), "the bot answers", timeout_seconds=60)
            took = time.perf_counter() - begin
        finally:
            bot.terminate()
            bot.wait(30)
    # Nothing of an empty ledger may be served; what two others attest has a decision, whatever it is without their logs.
    assert known == (200 if database is not None else 503), known
    return took


def _status(asking: urllib.request.Request) -> int | None:
    try:
        with urllib.request.urlopen(asking, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except OSError:
        return None


def _configured(home: Path) -> tuple[Path, str, str]:
    """The configuration of a bot whose homeserver and upstream are away and that pins the others; where it answers, and to whom."""
    ports = [free_port() for _ in range(4)]
    api, public, nobody, _ = (f"127.0.0.1:{port}" for port in ports)
    keys = {f"{role}_key": hashlib.sha256(f"home {role}".encode()).hexdigest() for role in ("root", "mirror", "log")}
    secrets = keys | {
        "as_token": "as" * 16, "hs_token": "hs" * 16, "api_token": "a" * 32, "operator_token": "o" * 32,
    }  # fmt: skip
    for name, secret in secrets.items():
        write_private(home / name, f"{secret}\n")
    orgs = {name: {"root": [f"ed25519:{organisation(name).root.public.hex()}"]} for name in ORGS}
    (home / "trust.yaml").write_text(json.dumps({"orgs": orgs}))  # JSON is YAML
    tree = {
        "homeserver": {"address": f"http://{nobody}", "server_name": "home.example"},
        "appservice": {
            "host": "127.0.0.1", "port": ports[3], "as_token_file": str(home / "as_token"), "hs_token_file": str(home / "hs_token"),
        },
        "database": {"url": f"sqlite:{home / 'home.db'}"},
        "organisation": {
            "name": "home", "root_key_file": str(home / "root_key"), "mirror_key_file": str(home / "mirror_key"),
        },
        "api": {
            "listen": api, "token_file": str(home / "api_token"), "operator_token_file": str(home / "operator_token"),
        },
        "public": {"listen": public},
        "trust": {"file": str(home / "trust.yaml")},
        "index": {"url": f"http://{nobody}/simple/", "attest": True},
    }  # fmt: skip
    (home / "config.yaml").write_text(json.dumps(tree))
    return home / "config.yaml", api, secrets["api_token"]


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
        start(Path(folder))
        asyncio.run(ask(Path(folder)))


if __name__ == "__main__":
    run()
