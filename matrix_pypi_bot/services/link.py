"""The link to the homeserver: waited for, made, watched, and made again; and what is wrong with it, in words that help."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from matrix_pypi_bot.ports import StoreAway
from matrix_pypi_bot.services.homeserver import HomeserverAway, HomeserverLink, HomeserverRefused
from matrix_pypi_bot.services.pauses import Pauses
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 5.0  # a homeserver takes about as long to start again, so that its absence is not missed
LONGEST_PAUSE_SECONDS: Final = 10.0
_LINK: Final = "link"
_NOT_OURS: Final = frozenset({"M_EXCLUSIVE", "M_FORBIDDEN", "M_INVALID_USERNAME"})
_NO_PINGS: Final = frozenset({"M_UNRECOGNIZED", "M_UNKNOWN_ENDPOINT"})  # a homeserver older than Matrix 1.7


class Misregistered(Problem):
    """The homeserver does not know this appservice as what it thinks it is."""

    code = ProblemCode.CONFIGURATION


class Link:
    """`ready` while the homeserver knows us, reaches us, and `on_up()` succeeded since it came (back).

    `on_up` is called whenever the homeserver came (back) and, until it succeeds, at every heartbeat; it may raise Problem.
    """

    def __init__(
        self,
        homeserver: HomeserverLink,
        *,
        bot_mxid: str,
        on_up: Callable[[], Awaitable[None]],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.ready = False
        self._homeserver = homeserver
        self._bot = bot_mxid
        self._on_up = on_up
        self._heartbeat_seconds = heartbeat_seconds
        self._pauses = Pauses(first_seconds=heartbeat_seconds / 5, longest_seconds=LONGEST_PAUSE_SECONDS)
        self._loop = asyncio.get_running_loop()
        self._known = False
        self._pinged = False
        self._welcomed = False
        self._last_complaint = ""

    def ping_again(self) -> None:
        """The homeserver holds something back that we refused: call it at the next heartbeat."""
        self._pinged = False

    async def run(self) -> None:
        """Runs until cancelled. Raises Misregistered when the homeserver refuses us before it ever accepted us."""
        while True:
            try:
                await self._homeserver.answers()
                await self._introduce()
                await self._stay()
            except HomeserverAway as problem:
                self._complain("homeserver away", problem)
            except Misregistered as problem:
                if not self._known:
                    raise
                self._complain("homeserver does not accept us any more", problem)
            finally:
                self.ready = False
            await asyncio.sleep(self._pauses.failed(_LINK, self._loop.time()))

    async def _introduce(self) -> None:
        try:
            user_id = await self._homeserver.introduce()
        except HomeserverRefused as refusal:
            if refusal.bad_token:
                raise _wrong_token() from refusal
            if refusal.errcode in _NOT_OURS:
                raise _wrong_namespace(self._bot, refusal.detail) from refusal
            raise HomeserverAway(refusal.detail) from refusal  # e.g. a rate limit: says nothing about who we are
        if user_id != self._bot:
            raise _wrong_namespace(self._bot, f"it says that we are {user_id}")
        with contextlib.suppress(HomeserverRefused):  # nobody needs it
            await self._homeserver.set_name()
        self._known = True
        self._pinged = self._welcomed = False
        log.info("homeserver accepts us", extra={"user": user_id})

    async def _stay(self) -> None:
        """Ends by HomeserverAway."""
        while True:
            await self._be_pinged()
            await self._be_welcomed()
            self.ready = self._pinged and self._welcomed
            if self.ready:
                self._pauses.succeeded(_LINK)
                self._last_complaint = ""
            await asyncio.sleep(self._heartbeat_seconds)
            await self._homeserver.answers()

    async def _be_pinged(self) -> None:
        if self._pinged:
            return
        try:
            await self._homeserver.ping()
        except HomeserverRefused as refusal:
            if refusal.errcode not in _NO_PINGS:
                self._complain("homeserver does not reach us", _ping_problem(refusal))
                return
        self._pinged = True

    async def _be_welcomed(self) -> None:
        if self._welcomed:
            return
        try:
            await self._on_up()
        except HomeserverAway:
            raise
        except Problem as problem:
            self._complain("own rooms must wait", problem, level=logging.WARNING)
        else:
            self._welcomed = True

    def _complain(self, what: str, problem: Problem, *, level: int = logging.ERROR) -> None:
        """Says it once, until all was well in between or something else is wrong."""
        if isinstance(problem, HomeserverAway | StoreAway):
            level = logging.WARNING
        if what + problem.detail != self._last_complaint:
            self._last_complaint = what + problem.detail
            log.log(level, what, extra={"reason": problem.detail, "hint": problem.hint})


def _wrong_token() -> Misregistered:
    return Misregistered(
        "the homeserver does not accept the as_token of this appservice",
        hint="write the registration anew (matrix-pypi registration -c CONFIG -o FILE), name FILE in the homeserver's "
        "app_service_config_files, and restart the homeserver",
    )


def _wrong_namespace(bot: str, found: str) -> Misregistered:
    return Misregistered(
        f"the homeserver does not let this appservice be {bot}: {found}",
        hint="homeserver.server_name and appservice.bot_localpart must be those of the registration that the homeserver has loaded; "
        "matrix-pypi registration -c CONFIG -o FILE writes one that fits",
    )


def _ping_problem(refusal: HomeserverRefused) -> Problem:
    """What a failed ping tells, and what to do about it. Source: Matrix specification, application service API, `ping`."""
    hints = {
        "M_URL_NOT_SET": "the registration has no `url`: set appservice.url and write the registration anew",
        "M_CONNECTION_FAILED": "from the homeserver nothing answers at the `url` in the registration: "
        "compare it with appservice.url, host and port",
        "M_CONNECTION_TIMEOUT": "from the homeserver the `url` in the registration is too slow or filtered",
        "M_BAD_STATUS": "something answers at the `url` in the registration, but not this appservice with this hs_token: "
        "write the registration anew (matrix-pypi registration -c CONFIG -o FILE) and restart the homeserver",
        "M_FORBIDDEN": "appservice.id is not the `id` in the registration that the homeserver has loaded",
    }
    return Misregistered(refusal.detail, hint=hints.get(refusal.errcode, "look into the homeserver's log"))
