"""When this organisation may speak again, after a start or an outage, and what it says then before anything else.

Nothing is signed before it is known that nothing said now contradicts what was said before (`resume`). Then the manifest holds, the
announcement is told, and what waited for that is attested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.ports import Clock, Postman, Store
from matrix_pypi_bot.services.announce import Addresses, ensure_announcement
from matrix_pypi_bot.services.attest import Attester
from matrix_pypi_bot.services.forks import Forks
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.services.keys import Organisation, ensure_manifest
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.resume import ResumeGuard
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.names import ProjectName

RESUMED_PROJECTS: Final = 100  # whose reports waited for the homeserver; more are settled in the rounds that follow


class Mail(Postman, Protocol):
    """Whoever empties the outbox, and may be held back."""

    def release_mail(self) -> None:
        """Mail may leave from now on."""
        ...


@dataclass(slots=True, kw_only=True)
class Speech:
    """`addresses` None: nothing is announced."""

    store: Store
    clock: Clock
    organisation: Organisation
    bot_mxid: str
    guard: ResumeGuard
    voice: Voice
    members: Members
    attester: Attester
    projects: Projects
    forks: Forks
    mail: Mail
    addresses: Addresses | None
    _speaks: bool = False
    _came_back: set[ProjectName] = field(default_factory=set)
    _forked: set[tuple[str, str]] = field(default_factory=set)

    async def renew(self) -> None:
        """The manifest holds, its keys are known, and where we are is announced; unless nothing may be signed. Raises Problem."""
        if not self.guard.is_open:
            return
        manifest = await ensure_manifest(self.store, self.clock, self.organisation, bot_mxid=self.bot_mxid)
        self.members.learn_own(manifest)
        if self.addresses is not None:
            origin = self.organisation.log_origin
            await ensure_announcement(
                self.store, self.clock, self.voice, self.addresses, bot_mxid=self.bot_mxid, log_origin=origin
            )
        self.mail.poke()

    async def resume(self, trust_room: Sequence[JsonObject]) -> bool:
        """The homeserver is there (again): what was published is compared, and what waited for that is signed."""
        await self.guard.compare(trust_room)
        await self._speak()
        return self.guard.is_open

    async def logs_were_read(self, everybody: bool) -> None:
        """What was found in the logs of others is acted upon. What a peer gave back of ours may have been all that was missing."""
        if everybody:
            self.guard.peers_were_asked()
        for notes in tuple(self._forked):
            await self.forks.found(notes)
            self._forked.discard(notes)
        for project in tuple(self._came_back):
            await self.projects.read_again(project)
            self._came_back.discard(project)
        if self.guard.is_open and not self._speaks:
            await self._speak()
            self.mail.release_mail()
        self._speaks = self.guard.is_open

    def forked(self, notes: tuple[str, str]) -> None:
        """Two heads of one size were seen; they are judged after the round."""
        self._forked.add(notes)

    def restored(self, checked: Checked) -> None:
        """A statement of ours is back that the database had lost."""
        predicate = checked.statement.predicate
        if isinstance(predicate, Manifest):
            self.members.learn_own(predicate)
        if (project := predicate.about_project()) is not None:
            self._came_back.add(ProjectName(project))

    async def _speak(self) -> None:
        self._speaks = self.guard.is_open
        await self.renew()
        await self.attester.try_again(RESUMED_PROJECTS)
