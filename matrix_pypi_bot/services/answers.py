"""What frontends ask: a project's finished page, or whether one file may be served, which bytes it is and where they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from matrix_pypi_bot.core.attested import attested
from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.decide import decide
from matrix_pypi_bot.core.evidence import Absence, Evidence
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.ports import Clock
from matrix_pypi_bot.services.announce import Peers
from matrix_pypi_bot.services.known import Finished, Known, View
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.provenance import Provenance
from matrix_pypi_bot.services.refresh import Refresher
from matrix_pypi_bot.services.rule import GONE_REVISION
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.messages import Decision, FileDecision, PageState, encode
from matrix_pypi_bot.wire.names import FileName, ProjectName, file_path
from matrix_pypi_bot.wire.problems import Problem, ProblemCode


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAnswer:
    """A finished page: how it stands now, and its document, of which `body` lacks the `_view` (see `document`)."""

    state: PageState
    body: bytes

    def document(self) -> bytes:
        """The finished page with its `_view`. One copy, nothing of it is read."""
        return b"".join((b'{"_view":', encode(self.state), b",", memoryview(self.body)[1:]))


class Answers:
    """Answers about what is known now. `stands(claim)` tells whether a statement of ours still holds: its key may have been revoked.

    `peers` are the gateways of others, None when nobody is pinned.
    `provenance` looks at that of files that are asked about; None: it is not verified here.
    """

    def __init__(
        self,
        *,
        projects: Projects,
        refresher: Refresher,
        clock: Clock,
        voice: Voice,
        stands: Callable[[Claim], bool] | None = None,
        provenance: Provenance | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._projects = projects
        self._refresher = refresher
        self._clock = clock
        self._voice = voice
        self._provenance = provenance
        self._peers = peers
        self._stands = stands or (lambda claim: claim.keyid == voice.keyid)

    async def page(self, project: ProjectName, *, refresh: bool = False) -> PageAnswer:
        """The project's page; `refresh` asks upstream first.

        Raises Problem: REFUSED for a project that is denied (upstream is not asked), NOT_FOUND for one that is not there or no more,
        UPSTREAM_AWAY also when upstream is away and nothing of the page may be served, UPSTREAM_WRONG; StoreAway.
        """
        refused = self._projects.rulebook.refused_project(await self._projects.load(project))
        if refused is not None:
            raise Problem(refused.reason, code=ProblemCode.REFUSED)
        known = self._newest(await self._refresher.up_to_date(project, refresh=refresh))
        seq = self._projects.seq  # before anything is awaited: the page has all changes up to here
        view, finished = _finished(known)
        if finished.revision == GONE_REVISION:
            raise Problem(f"matrix-pypi: R10 removed upstream: {project}", code=ProblemCode.NOT_FOUND)
        if finished.nothing is not None:
            raise Problem(f"{finished.nothing.reason}: {project}", code=ProblemCode.UPSTREAM_AWAY)
        state = PageState(
            state=view.told_state,
            age_seconds=round(view.age_seconds(self._clock.now_ms()), 3),
            fresh_seconds=round(self._refresher.fresh_seconds(known), 3),
            revision=finished.revision,
            seq=seq,
            opened_origins=view.opened_origins,
            has_peers=self._has_peers,
        )
        return PageAnswer(state=state, body=finished.body)

    async def decision(self, project: ProjectName, file: FileName, path: str | None) -> Decision:
        """The decision on `file`; `path` is where a client asked for it, which must be the file's own if it is to be served.

        When the page does not name it, upstream is asked once more, past its caches, if nobody did within five seconds. Raises
        Problem: NOT_FOUND when no page ever named the file, or not at this path; UPSTREAM_AWAY, UPSTREAM_WRONG; StoreAway.
        """
        refused = self._projects.rulebook.refused_project(await self._projects.load(project))
        if refused is not None:
            return Decision(
                action=refused.action,
                http=refused.http,
                rule=refused.rule,
                reason=refused.reason,
                project=project,
                file=file,
                path=path or "",
                seq=self._projects.seq,
            )
        answer = self._decision(await self._looked_at(await self._refresher.up_to_date(project), file), file, path)
        if answer is None:
            known = await self._looked_at(await self._refresher.up_to_date(project, refresh=True), file)
            answer = self._decision(known, file, path)
        if answer is None:
            raise self._nobody_names(project, file, path)
        return answer

    def _nobody_names(self, project: ProjectName, file: FileName, path: str | None) -> Problem:
        """While upstream is away it may well have what nobody here ever heard of."""
        held = self._projects.held(project)
        view, finished = (None, None) if held is None else (held.view, held.finished)
        if view is not None and view.state == "down" and finished is not None and file not in finished.decisions:
            unheard = decide(Evidence(upstream=Absence.DOWN), self._projects.rulebook.terms).told()
            return Problem(f"{unheard.reason}: {file}", code=ProblemCode.UPSTREAM_AWAY)
        return Problem(f"no page of {project} names {path or file}", code=ProblemCode.NOT_FOUND)

    async def _looked_at(self, known: Known, file: FileName) -> Known:
        """With what the file's provenance tells, as far as it decides."""
        known = self._newest(known)
        decision = known.finished.decisions.get(file) if known.finished is not None else None
        if self._provenance is None or decision is None or not decision.ask:
            return known
        await self._provenance.look(known.project, file)
        return await self._projects.load(known.project)

    def _newest(self, known: Known) -> Known:
        """What is known at this moment: whoever shared a refresh with others may have been woken after a change that came later."""
        return self._projects.held(known.project) or known

    def _decision(self, known: Known, file: FileName, path: str | None) -> Decision | None:
        known = self._newest(known)
        view, finished = _finished(known)
        decision, entry = finished.decisions.get(file), finished.files.get(file)
        if decision is None:
            decision = self._projects.rulebook.decide_unlisted(known, file)
            entry = None
        if decision is None:
            return None
        own_path = file_path(entry.address, file) if entry is not None else None
        # A page made of statements knows upstream's address no more than its readers did: they may come back with the digest's.
        paths = (None, own_path, file_path(entry.sha256, file) if entry is not None else None)
        if decision.serves and path not in paths:
            return None  # a good file under an address that is not its own
        told = self._told(view, known, decision, entry, file=file, path=own_path or path or "")
        return self._with_witnesses(told, known)

    def _told(
        self,
        view: View,
        known: Known,
        decision: FileDecision,
        entry: IndexFile | None,
        *,
        file: FileName,
        path: str,
    ) -> Decision:
        metadata = entry.core_metadata if entry is not None else False
        return Decision(
            action=decision.action,
            http=decision.http,
            rule=decision.rule,
            reason=decision.reason,
            project=known.project,
            file=file,
            path=path,
            sha256=entry.sha256 if entry is not None else None,
            size=entry.size if entry is not None else None,
            core_metadata_sha256=None if isinstance(metadata, bool) else metadata,
            urls=(entry.url,) if entry is not None and entry.url else (),
            opened_origins=view.opened_origins,
            has_peers=self._has_peers,
            view_age_seconds=round(view.age_seconds(self._clock.now_ms()), 3),
            seq=self._projects.seq,
            project_status=view.page.status,
        )

    def _with_witnesses(self, decision: Decision, known: Known) -> Decision:
        """With what attestations say of the digest: under which CIDs it is found (the own organisation's word, if it gave one that
        stands, else the last of each other's), its size if the page told none and this one did, and who attested it: here, whether
        this one did. A wrong CID of others costs a transfer; a wrong size would have the right bytes refused. And with where others
        may have it.
        """
        if not decision.serves or decision.sha256 is None:
            return decision
        claims = [
            claim
            for claim in known.claims
            if claim.file == decision.file and claim.subject == decision.sha256 and claim.kind == "attestation"
        ]
        own = [claim for claim in claims if claim.org == self._voice.org and self._stands(claim)]
        found = attested(own or self._last_of_each(claims, known))
        peers = self._peers
        return msgspec.structs.replace(
            decision,
            cids=found.cids,
            peers=peers.gateways({claim.org for claim in claims}) if peers is not None else (),
            peer_origins=peers.origins if peers is not None else (),
            size=found.size if decision.size is None and own else decision.size,
            attested_by=(self._voice.org,) if own else (),
        )

    def _last_of_each(self, claims: Sequence[Claim], known: Known) -> Collection[Claim]:
        """The last word of each organisation, of those first that were never proved to lie."""
        out, outcasts = known.out, self._projects.rulebook.standing().outcasts()
        last = {claim.org: claim for claim in claims if claim.statement_id not in out}
        return sorted(last.values(), key=lambda claim: claim.org in outcasts)

    @property
    def _has_peers(self) -> bool:
        return self._peers is not None and self._peers.are_pinned


def _finished(known: Known) -> tuple[View, Finished]:
    assert known.view is not None, "who is up to date has a view"
    assert known.finished is not None, "a view is always finished"
    return known.view, known.finished
