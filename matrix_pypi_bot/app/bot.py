"""The parts of the bot, put together."""

from __future__ import annotations

from collections.abc import Mapping

from matrix_pypi_bot import __version__
from matrix_pypi_bot.adapters.index import UpstreamIndex
from matrix_pypi_bot.adapters.matrix.side import MatrixSide
from matrix_pypi_bot.adapters.peers import PeerHttp
from matrix_pypi_bot.adapters.provenance.root import warn_of_age
from matrix_pypi_bot.api import Services
from matrix_pypi_bot.app.given import Given, provenance_of, rulebook_of
from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.keyring import MAINTAINER_ORG
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.process.outbound import Outbound
from matrix_pypi_bot.services.announce import Peers, addresses_of
from matrix_pypi_bot.services.answers import Answers
from matrix_pypi_bot.services.attest import Attester
from matrix_pypi_bot.services.clockwork import Clockwork
from matrix_pypi_bot.services.commands import Commands
from matrix_pypi_bot.services.court import Court
from matrix_pypi_bot.services.docket import Docket
from matrix_pypi_bot.services.explain import Explainer
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.forks import Forks
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.services.keys import held_manifest
from matrix_pypi_bot.services.lists import ListFetcher
from matrix_pypi_bot.services.log import LogKeeper
from matrix_pypi_bot.services.log_pages import Budget
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.override import Overrides
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.pulling import PullParts, pulling
from matrix_pypi_bot.services.refresh import Refresher, RefreshSettings
from matrix_pypi_bot.services.refutations import Refutations
from matrix_pypi_bot.services.relay import Relay
from matrix_pypi_bot.services.resume import ResumeGuard
from matrix_pypi_bot.services.revoke import KeyDesk
from matrix_pypi_bot.services.room_answers import RoomAnswers
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.services.speech import Speech
from matrix_pypi_bot.services.strangers import RoomBudgets
from matrix_pypi_bot.services.trust_pages import TrustPages
from matrix_pypi_bot.web import TrustHandlers
from matrix_pypi_bot.wire.names import ProjectName


class Bot:
    """The parts. Make it in a running loop."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._settings = given.settings
        self._organisation = given.organisation
        self._mxid = given.matrix.bot_mxid
        self._store = given.store
        self._clock = given.clock
        self._was_ready = False
        self._outbound = Outbound(user_agent=f"matrix-pypi/{__version__}")
        self._guard = ResumeGuard(
            store=given.store, key=given.log_key, bot_mxid=self._mxid, asks_peers=bool(given.trust.orgs)
        )
        self._voice = Voice(given.organisation.name, given.organisation.mirror, guard=self._guard)
        self._reader = PeerHttp(self._outbound)
        self._know_who_is_who(given)
        self._know_projects(given)
        self._speak_matrix(given)
        self._keep_logs(given)
        self._attest_and_judge(given)
        self._speak(given)
        self._answer(given)

    def _know_who_is_who(self, given: Given) -> None:
        store, clock, policy = given.store, given.clock, given.settings.policy
        self._members = Members(
            store=store,
            clock=clock,
            own=given.organisation.pinned,
            pinned=given.trust.orgs,
            maintainers=given.trust.maintainers,
            index_name=given.settings.index.name,
            quorum=policy.quorum,
            acks_missing_allowed=policy.acks_missing_allowed,
            on_change=self._members_changed,
        )
        self._intake = Intake(
            self._members,
            on_statement=lambda project, org: self.docket.hear(project, org),
            on_other=self._hear_other,
            on_lie=lambda envelope: self.docket.hear_lie(envelope),
        )
        self.peers = Peers(store=store, clock=clock, pinned=given.trust.orgs, counts=self._members.stands)

    def _know_projects(self, given: Given) -> None:
        store, clock, index, policy = given.store, given.clock, given.settings.index, given.settings.policy
        self._projects = Projects(
            store=store,
            clock=clock,
            rulebook=rulebook_of(given, self._members),
            upstream=f"{index.name} {index.endpoint}",
            base_url=index.endpoint,
        )
        self._refresher = Refresher(
            projects=self._projects,
            index=UpstreamIndex(
                self._outbound,
                endpoint=index.endpoint,
                page_timeout_seconds=index.page_timeout_seconds,
                max_page_bytes=index.max_page_bytes,
            ),
            clock=clock,
            settings=RefreshSettings(
                fresh_seconds=index.fresh_seconds,
                retry_seconds=index.retry_seconds,
                negative_seconds=index.negative_seconds,
                keep_removed=policy.removed_upstream == "keep",
            ),
            on_live=self._page_is_live,
        )
        self.provenance = provenance_of(given, self._projects, self._outbound)

    def _speak_matrix(self, given: Given) -> None:
        store, clock, settings = given.store, given.clock, given.settings
        self.matrix = MatrixSide(
            given.matrix,
            store=store,
            clock=clock,
            intake=self._intake,
            own_keyids=self._members.own_keyids,
            project_exists=self._refresher.exists,
            on_trust_room=lambda state: self.speech.resume(state),
            peers=[Peer(org.name, org.user) for org in given.trust.orgs if org.user],
            stands=self._members.stands,
            on_head=lambda note: self.pull.hear_note(note),
            budgets=RoomBudgets(
                clock,
                own=given.organisation.name,
                statements_per_day=settings.log.max_statements_per_day,
                bytes_per_day=settings.log.max_bytes_per_day,
            ),
            on_message=lambda room, event: self.commands.hear(room, event),
        )

    def _keep_logs(self, given: Given) -> None:
        store, clock, settings, organisation = given.store, given.clock, given.settings, given.organisation
        self.log = LogKeeper(
            store=store,
            clock=clock,
            guard=self._guard,
            postman=self.matrix,
            origin=given.log_key.name,
            key=organisation.log,
            bot_mxid=self._mxid,
            checkpoint_seconds=settings.log.checkpoint_seconds,
        )
        self.pull = pulling(
            PullParts(
                store=store,
                clock=clock,
                reader=self._reader,
                door=self._intake,
                members=self._members,
                organisation=organisation,
                guard=self._guard,
                keeper=self.log,
                budget=Budget(settings.log.max_statements_per_day, settings.log.max_bytes_per_day),
                every_seconds=settings.log.pull_seconds,
                on_restored=lambda checked: self.speech.restored(checked),
                on_round=lambda everybody: self.speech.logs_were_read(everybody),
                on_fork=lambda fork: self.speech.forked(fork.notes),
                on_project=self.matrix.follow,
                announced=lambda org: said.log.url if (said := self.peers.announcement(org)) is not None else "",
            )
        )

    def _attest_and_judge(self, given: Given) -> None:
        store, clock, index, voice = given.store, given.clock, given.settings.index, self._voice
        self._attester = Attester(
            projects=self._projects,
            refresher=self._refresher,
            store=store,
            clock=clock,
            voice=voice,
            postman=self.matrix,
            index_name=index.name,
            attests=index.attests,
        )
        refutations = Refutations(voice)
        self._forks = Forks(
            store=store,
            clock=clock,
            members=self._members,
            refutations=refutations,
            postman=self.matrix,
            on_suspended=lambda organisations: self.docket.reconsider(organisations),
        )
        self._court = Court(
            projects=self._projects,
            members=self._members,
            store=store,
            clock=clock,
            voice=voice,
            postman=self.matrix,
            refutations=refutations,
            index_name=index.name,
            publishes=index.attests,
            prove=None if self.provenance is None else self.provenance.check_bundle,
            is_fresh=self._refresher.is_fresh,
            on_suspended=lambda organisations: self.docket.reconsider(organisations),
        )
        self.docket = Docket(
            court=self._court,
            forks=self._forks,
            members=self._members,
            projects=self._projects,
            refresher=self._refresher,
            store=store,
            clock=clock,
            want_lists=lambda project: self.lists.want(project),
            provenance=self.provenance,
        )
        self.lists = ListFetcher(
            store=store, reader=self._reader, peers=lambda: self.pull.peers, on_new=self.docket.hear_list
        )
        self.clockwork = Clockwork(
            projects=self._projects,
            refresher=self._refresher,
            attester=self._attester,
            store=store,
            clock=clock,
            refresh_served_seconds=index.refresh_served_seconds,
            retry_seconds=index.retry_seconds,
            daily=self._daily,
        )

    def _speak(self, given: Given) -> None:
        told = given.settings.announce
        self.speech = Speech(
            store=given.store,
            clock=given.clock,
            organisation=given.organisation,
            bot_mxid=self._mxid,
            guard=self._guard,
            voice=self._voice,
            members=self._members,
            attester=self._attester,
            projects=self._projects,
            forks=self._forks,
            mail=self.matrix,
            addresses=addresses_of(told.gateway, told.log, told.kubo_peer, told.kubo_addrs),
        )

    def _answer(self, given: Given) -> None:
        store, clock, index, voice = given.store, given.clock, given.settings.index, self._voice
        organisation = given.organisation
        self.services = Services(
            answers=Answers(
                projects=self._projects,
                refresher=self._refresher,
                clock=clock,
                voice=voice,
                stands=lambda claim: self._members.standing().counts(claim),
                provenance=self.provenance,
                peers=self.peers,
            ),
            attester=self._attester,
            overrides=Overrides(
                projects=self._projects,
                refresher=self._refresher,
                clock=clock,
                voice=voice,
                index_name=index.name,
            ),
            explainer=Explainer(projects=self._projects, store=store, clock=clock),
            keys=KeyDesk(
                store=store,
                clock=clock,
                organisation=organisation,
                guard=self._guard,
                postman=self.matrix,
                bot_mxid=self._mxid,
                on_manifest=self._learn_own,
            ),
            relay=Relay(store=store, clock=clock, intake=self._intake, postman=self.matrix),
            peers=self.peers,
            projects=self._projects,
            store=store,
            clock=clock,
            readiness=self.readiness,
            on_observed=self.docket.hear_observed,
        )
        self._show(given)

    def _show(self, given: Given) -> None:
        """The pages for everybody, and the answers in rooms."""
        store, clock, organisation = given.store, given.clock, given.organisation
        pages = TrustPages(
            explainer=self.services.explainer,
            projects=self._projects,
            store=store,
            clock=clock,
            log=self.log,
            org=organisation.name,
            log_origin=organisation.log_origin,
            orgs=lambda: [member.org.name for member in self._members.keyring.members],
            is_public=given.settings.index.attests,
        )
        self.trust_pages = TrustHandlers(pages)
        answers = RoomAnswers(
            org=organisation.name,
            explainer=self.services.explainer,
            pages=pages,
            members=self._members,
            relay=self.services.relay,
            clock=clock,
        )
        self.commands = Commands(answers=answers, store=store, clock=clock, postman=self.matrix, bot=self._mxid)

    async def start(self) -> None:
        """What was known before is known again. Raises Problem."""
        self._members.learn_own(await held_manifest(self._store, self._organisation))
        await self._members.start()
        self._warn_of_root()
        await self.log.start()
        await self.pull.start()
        await self.peers.start()
        await self._projects.start()
        await self._attester.start()

    async def _daily(self) -> None:
        """What expires is renewed, or warned about."""
        self._warn_of_root()
        await self.speech.renew()

    def _warn_of_root(self) -> None:
        settings = self._settings.provenance
        if settings.trusted_root_file is not None:
            warn_of_age(settings.trusted_root_file, self._clock.now_ms(), max_days=settings.root_age_days)

    def _members_changed(self, organisations: frozenset[str]) -> None:
        """What keys signed that were not known was passed over: rooms hold it still."""
        self.docket.reconsider(organisations)
        self.matrix.reconcile()
        self.pull.keys_changed()

    def _learn_own(self, manifest: Manifest) -> None:
        """A manifest that an operator changed holds, also for the maintainers to whom it delegates projects."""
        self._members.learn_own(manifest)
        self.docket.reconsider(frozenset({MAINTAINER_ORG}))

    def _hear_other(self, checked: Checked) -> None:
        self.docket.hear_other(checked)
        self.peers.tell(checked)

    def _page_is_live(self, project: ProjectName) -> None:
        self._attester.page_is_live(project)
        self.docket.page_is_live(project)

    def readiness(self) -> Mapping[str, bool]:
        """Ready once the homeserver has been there: after that installs do not depend on it."""
        self._was_ready = self._was_ready or self.matrix.ready
        return {"ready": self._was_ready, "homeserver": self.matrix.ready}

    async def stop(self) -> None:
        """Nothing is under way any more."""
        if self.provenance is not None:
            await self.provenance.stop()
        await self._attester.stop()
        await self._refresher.stop()
        await self._outbound.close()
