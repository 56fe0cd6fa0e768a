"""What our own ground costs, against the plain thing that nobody can do without."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Protocol

from index_frontend.digest_gate import DigestGate, Tally
from index_frontend.pages.negotiate import JSON
from index_frontend.pages.render import render
from matrix_pypi_bot.core.annotate import annotate
from matrix_pypi_bot.core.decide import decide
from matrix_pypi_bot.core.evidence import Evidence, Live, Mode, Terms
from matrix_pypi_bot.core.index_document import parse_page
from matrix_pypi_bot.wire.cids import CidBuilder
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import ProjectName

MIB = 1 << 20
FILES = 5_000


class Ratio(Protocol):
    """`run.ratio`."""

    def __call__(
        self, name: str, ours: Callable[[], object], theirs: Callable[[], object], *, goal: str, rounds: int = 7
    ) -> None:
        """Prints how many times as fast `ours` is as `theirs`."""


def run(names: list[str], ratio: Ratio) -> int:
    """Runs the benchmarks called `names`, all when empty."""
    known = {"cid": cid, "gate": gate, "page": page, "storage": storage, "peers": peers, "trust": trust}
    if unknown := set(names) - set(known):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    for name in names or known:
        known[name](ratio)
    return 0


def storage(ratio: Ratio) -> None:
    """1 GiB into a store and out of it: memory and the event loop meanwhile."""
    from storage import run as run_storage

    run_storage()


def trust(ratio: Ratio) -> None:
    """Checking an event; a bot with 100,000 attestations: its start, its answers, its memory."""
    from trust import run as run_trust

    run_trust()


def peers(ratio: Ratio) -> None:
    """200 MiB from peers, every block and the whole checked, also beside one that lies."""
    from peers import run as run_peers

    run_peers()


def cid(ratio: Ratio) -> None:
    """CID and sha256 in one pass over 64 MiB, against hashlib for both digests."""
    chunk = os.urandom(MIB)

    def ours() -> None:
        builder, digest = CidBuilder(), hashlib.sha256()
        for _ in range(64):
            builder.update(chunk)
            digest.update(chunk)
        builder.finish()

    def theirs() -> None:
        first, second = hashlib.sha256(), hashlib.sha256()
        for _ in range(64):
            first.update(chunk)
            second.update(chunk)

    ratio("CID and sha256 of a stream, of hashlib's speed for both", ours, theirs, goal=">= 0.8")


def gate(ratio: Ratio) -> None:
    """The digest gate over 64 MiB in 64 KiB chunks, against hashlib alone."""
    chunk = os.urandom(64 << 10)
    count = 1024
    expected = hashlib.sha256(chunk * count).hexdigest()

    def ours() -> None:
        passing = DigestGate(Tally(Sha256(expected), size=len(chunk) * count, max_bytes=MIB << 10))
        for _ in range(count):
            passing.feed(chunk)
        passing.finish()

    def theirs() -> None:
        digest = hashlib.sha256()
        for _ in range(count):
            digest.update(chunk)

    ratio("digest gate with hold-back, of hashlib's speed", ours, theirs, goal=">= 0.7")


def page(ratio: Ratio) -> None:
    """A 5,000-file page from upstream's bytes to ours, against json.loads and json.dumps of the same page."""
    project = ProjectName("bench")
    raw = _upstream_page(project)
    terms = Terms(mode=Mode.ACKED)

    def ours() -> None:
        found = parse_page(raw, project, base_url="https://index.example/simple/bench/")
        decisions = {
            file.name: decide(Evidence(upstream=Live(file.sha256), first_seen=file.sha256), terms).told()
            for file in found.files.values()
        }
        render(annotate(found, decisions).body, JSON)

    def theirs() -> None:
        json.dumps(json.loads(raw))

    ratio("5,000-file page read, decided and rendered, of json's speed", ours, theirs, goal=">= 0.4")


def _upstream_page(project: ProjectName) -> bytes:
    def entry(number: int) -> dict[str, object]:
        name = f"{project}-1.{number}-py3-none-any.whl"
        digest = hashlib.sha256(name.encode()).hexdigest()
        return {
            "filename": name,
            "url": f"https://files.example/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{name}",
            "hashes": {"sha256": digest},
            "size": 10_000 + number,
            "requires-python": ">=3.8",
            "upload-time": "2024-03-01T00:00:00.000000Z",
            "core-metadata": {"sha256": digest},
            "yanked": False,
        }

    document = {"meta": {"api-version": "1.4"}, "name": project, "files": [entry(n) for n in range(FILES)]}
    return json.dumps(document).encode()
