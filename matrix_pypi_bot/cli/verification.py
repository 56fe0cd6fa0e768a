"""`matrix-pypi verify` at work: which files a lock means, what mirrors show of them, and what that proves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from matrix_pypi_bot.cli.mirrors import Listed, Mirror, MirrorAway, MirrorLies
from matrix_pypi_bot.core.gathering import Pins, Source, gather
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.locks import Wanted
from matrix_pypi_bot.core.provenance import Finding
from matrix_pypi_bot.core.verifying import Asked, Bar, FileReport, examine
from matrix_pypi_bot.ports import NotProvenance, Verifier
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, InvalidName, ProjectName, project_and_version
from matrix_pypi_bot.wire.problems import clean_line
from matrix_pypi_bot.wire.trust import TrustProject

PARALLEL: Final = 8
_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Shown:
    """What one mirror shows of a project: its trust page, and the files of its index page."""

    mirror: Mirror
    trust: TrustProject | None
    listing: Mapping[FileName, Listed]


@dataclass(slots=True)
class Verification:
    """One run. `away` collects why mirrors did not answer; a run goes on as long as one does.

    `as_installer`: each mirror is asked for the page and the bytes as pip would ask it, which may make it fetch and attest them; else
    only those mirrors that are known to have them. `verifier` None: provenance is not looked at.
    """

    mirrors: Sequence[Mirror]
    pins: Pins
    bar: Bar
    with_bytes: bool
    as_installer: bool
    now: Instant
    verifier: Verifier | None = None
    away: dict[str, MirrorAway] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def run(self, wanted: Sequence[Wanted], progress: Callable[[int, int], None]) -> list[FileReport]:
        """The reports, in the order of the lock. `progress` hears (done, of how many). Raises MirrorAway when no mirror answers."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            projects = list(dict.fromkeys(one.project for one in wanted))
            shown: dict[ProjectName, list[Shown]] = {}
            for project, found in zip(projects, pool.map(self._shown, projects), strict=True):
                shown[project] = found
                progress(len(shown), len(projects) + len(wanted))
            if len(self.away) == len(self.mirrors) and not any(shown.values()):
                raise next(iter(self.away.values()))
            steps = [step for one in wanted for step in self._steps(one, shown[one.project])]
            reports: list[FileReport] = []
            for report in pool.map(lambda step: step(), steps):
                reports.append(report)
                progress(len(projects) + len(reports), len(projects) + len(steps))
        return reports

    def _shown(self, project: ProjectName) -> list[Shown]:
        """What the mirrors show of the project."""
        found = []
        for mirror in self.mirrors:
            try:
                trust = mirror.project(project)
                if trust is not None or self.as_installer:
                    found.append(Shown(mirror, trust, mirror.listing(project)))
            except MirrorAway as problem:
                self.away.setdefault(mirror.address, problem)
            except MirrorLies:
                continue  # it is asked for each file again, and what it says there is told
        return found

    def _steps(self, wanted: Wanted, shown: Sequence[Shown]) -> Iterator[Callable[[], FileReport]]:
        """What there is to do for one entry of the lock."""
        if wanted.unchecked:
            yield lambda: _unattested(wanted, wanted.hashes, wanted.unchecked)
        elif wanted.file is not None:
            yield self._step(wanted, wanted.file, wanted.hashes, shown)
        elif wanted.hashes:
            for digest in sorted(wanted.hashes):
                yield from self._steps_of_digest(wanted, digest, shown)
        else:
            files = {file: listed.sha256 for one in reversed(shown) for file, listed in one.listing.items()}
            meant = {file: digest for file, digest in files.items() if _is_of(file, wanted)}
            for file, digest in sorted(meant.items()):
                yield self._step(wanted, file, frozenset({digest}), shown)
            if not meant:
                yield lambda: _unattested(wanted, frozenset(), "no mirror lists a file of this version")

    def _steps_of_digest(
        self, wanted: Wanted, digest: Sha256, shown: Sequence[Shown]
    ) -> Iterator[Callable[[], FileReport]]:
        """The files of the version that anybody names this digest for. A mirror that names a wrong one cannot prove it."""
        pages = [one.trust.files for one in shown if one.trust is not None]
        files = {FileName(file) for page in pages for file, standing in page.items() if digest in standing.sha256}
        files |= {file for one in shown for file, listed in one.listing.items() if listed.sha256 == digest}
        meant = [file for file in sorted(files) if _is_of(file, wanted)]
        for file in meant:
            yield self._step(wanted, file, frozenset({digest}), shown)
        if not meant:
            yield lambda: _unattested(wanted, frozenset({digest}), "no mirror knows a file with this digest")

    def _step(
        self, wanted: Wanted, file: FileName, accepted: frozenset[Sha256], shown: Sequence[Shown]
    ) -> Callable[[], FileReport]:
        asked = Asked(project=wanted.project, version=wanted.version, file=file, accepted=accepted)
        return lambda: self._examined(asked, shown)

    def _examined(self, asked: Asked, shown: Sequence[Shown]) -> FileReport:
        sources: list[Source] = []
        lies = list(_listed_otherwise(asked, shown))
        for mirror in self.mirrors:
            try:
                if (page := mirror.file(asked.project, asked.file)) is not None:
                    sources.append(Source(mirror.address, page))
            except MirrorAway as problem:
                self.away.setdefault(mirror.address, problem)
            except MirrorLies as lie:
                lies.append(f"{mirror.address}: {lie}")
        provenance = list(self._provenance(asked, lies))
        gathered = gather(sources, self.pins, now=self.now)
        report = examine(asked, gathered, self.pins, self.bar, now=self.now, lies=lies, provenance=provenance)
        if report.status != "ok" or not self.with_bytes:
            return report
        holders = {source.address for source in sources if source.page.org in report.orgs}
        lies += self._sent_otherwise(
            asked, [one for one in shown if self.as_installer or one.mirror.address in holders]
        )
        if not lies:
            return report
        return examine(asked, gathered, self.pins, self.bar, now=self.now, lies=lies, provenance=provenance)

    def _provenance(self, asked: Asked, lies: list[str]) -> Iterator[Finding]:
        """What the documents prove that the mirrors show, each document once."""
        if self.verifier is None:
            return
        seen: set[bytes] = set()
        for mirror in self.mirrors:
            try:
                raw = mirror.provenance(asked.project, asked.file)
                if raw is not None and raw not in seen:
                    seen.add(raw)
                    with self._turn:  # a verifier works for one event loop at a time
                        finding = asyncio.run(self.verifier.document(asked.file, raw))
                    yield finding
            except MirrorAway as problem:
                self.away.setdefault(mirror.address, problem)
            except MirrorLies as lie:
                lies.append(f"{mirror.address}: {lie}")
            except NotProvenance as error:
                lies.append(f"{mirror.address}: its provenance is none: {clean_line(str(error), 100)}")

    def _sent_otherwise(self, asked: Asked, shown: Iterable[Shown]) -> Iterator[str]:
        """Mirrors that send something else for the file."""
        for one in shown:
            listed = one.listing.get(asked.file)
            if listed is None:
                continue
            try:
                sent = one.mirror.digest_of(listed)
            except MirrorAway:
                continue  # it gives no bytes, so it gives no wrong ones
            except MirrorLies as lie:
                yield f"{one.mirror.address}: {lie}"
                continue
            if sent not in asked.accepted:
                yield f"{one.mirror.address} sends other bytes, {sent[:_DIGITS]}"


def _listed_otherwise(asked: Asked, shown: Iterable[Shown]) -> Iterator[str]:
    for one in shown:
        listed = one.listing.get(asked.file)
        if listed is not None and listed.sha256 not in asked.accepted:
            yield f"{one.mirror.address} lists other bytes, {listed.sha256[:_DIGITS]}"


def _is_of(file: FileName, wanted: Wanted) -> bool:
    try:
        return project_and_version(file) == (wanted.project, wanted.version)
    except InvalidName:
        return False


def _unattested(wanted: Wanted, hashes: frozenset[Sha256], reason: str) -> FileReport:
    return FileReport(
        project=wanted.project,
        version=wanted.version,
        file=wanted.file,
        sha256=tuple(sorted(hashes)),
        status="unattested",
        reasons=(reason,),
    )
