"""Everything that has to do with Matrix, put together: what the composition root starts, asks and stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from matrix_pypi_bot.adapters.matrix.appservice import Appservice
from matrix_pypi_bot.adapters.matrix.client import MautrixHomeserver
from matrix_pypi_bot.adapters.matrix.transaction import storable
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.ports import SPACE_ROOM, TRUST_ROOM, Clock, EnvelopeRow, Store
from matrix_pypi_bot.services.alias_queries import AliasQueries
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.homeserver import HomeserverRefused, JsonObject
from matrix_pypi_bot.services.ingest import Ingest
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.services.invitations import Invitations
from matrix_pypi_bot.services.latecomers import Latecomers
from matrix_pypi_bot.services.link import HEARTBEAT_SECONDS, Link
from matrix_pypi_bot.services.neighbours import FIRST_PAUSE_SECONDS, Neighbours
from matrix_pypi_bot.services.own import Own
from matrix_pypi_bot.services.postman import Postman
from matrix_pypi_bot.services.reassert import Reasserter
from matrix_pypi_bot.services.reconcile import Reconciler
from matrix_pypi_bot.services.room_watch import RoomWatch
from matrix_pypi_bot.services.rooms import GRANT_SECONDS, Rooms
from matrix_pypi_bot.services.strangers import RoomBudgets
from matrix_pypi_bot.services.together import together
from matrix_pypi_bot.wire.names import ProjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixSettings:
    """What the configuration says about Matrix; tokens are the contents of their files. `host` and `port` are where we listen."""

    address: str
    server_name: str
    host: str
    port: int
    id: str
    bot_localpart: str
    as_token: str
    hs_token: str
    max_body_bytes: int
    max_created_per_minute: int
    reconcile_seconds: float
    display_name: str = "Matrix-PyPI"
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    grant_seconds: float = GRANT_SECONDS
    neighbour_pause_seconds: float = FIRST_PAUSE_SECONDS

    @property
    def bot_mxid(self) -> str:
        """The bot's user id."""
        return f"@{self.bot_localpart}:{self.server_name}"


class MatrixSide:
    """The Matrix half of the bot, a `ports.Postman`. Made in a running loop:

    ```
    side = MatrixSide(settings, store=store, clock=clock, intake=intake, own_keyids=..., project_exists=..., on_trust_room=...)
    life.on_stop("appservice", side.stop)
    await side.start()                    # listens; raises Problem when the port is taken
    life.task("matrix", side.run())       # raises Misregistered when the homeserver does not know us
    ```
    `intake` takes every statement; `own_keyids()` are the keys that sign in this organisation's name. `project_exists(name)` tells
    whether upstream or the ledger knows a project, and may raise Problem. `peers` are the bots of pinned organisations; `stands(row)`
    tells whether a statement of ours still counts, so that it is said again where somebody took it away. `on_trust_room(state)` is
    awaited with the trust room's current state whenever the homeserver came (back), and tells whether mail may leave: none does
    before, unless `release_mail` says so. `on_head(note)` hears of heads of logs, not verified. `ready` is True while the homeserver
    accepts us, reaches us, and the trust room and the Space are there; installers do not depend on it. After queueing mail call
    `poke()`.
    """

    def __init__(
        self,
        settings: MatrixSettings,
        *,
        store: Store,
        clock: Clock,
        intake: Intake,
        own_keyids: Callable[[], frozenset[Keyid]],
        project_exists: Callable[[ProjectName], Awaitable[bool]],
        on_trust_room: Callable[[Sequence[JsonObject]], Awaitable[bool]],
        peers: Sequence[Peer] = (),
        stands: Callable[[EnvelopeRow], bool] = lambda row: True,
        on_head: Callable[[str], None] = lambda note: None,
        budgets: RoomBudgets | None = None,
        on_message: Callable[[str, JsonObject], object] = lambda room, event: None,
    ) -> None:
        self._settings = settings
        self._on_trust_room = on_trust_room
        self._mail_may_leave = asyncio.Event()
        server, bot = settings.server_name, settings.bot_mxid
        self._appservice = Appservice(
            address=settings.address,
            server_name=server,
            bot_localpart=settings.bot_localpart,
            id=settings.id,
            as_token=settings.as_token,
            hs_token=settings.hs_token,
            max_body_bytes=settings.max_body_bytes,
            receive=self._receive_transaction,
            answer_alias=lambda alias: self._queries.answer(alias),
            on_refused=lambda: self._link.ping_again(),
            is_ready=lambda: self.ready,
        )
        self._homeserver = homeserver = MautrixHomeserver(self._appservice, display_name=settings.display_name)
        own = Own(mxid=bot, keyids=own_keyids)
        self._rooms = Rooms(
            store=store,
            homeserver=homeserver,
            clock=clock,
            server_name=server,
            bot_mxid=bot,
            max_created_per_minute=settings.max_created_per_minute,
            peers=peers,
            on_found=lambda key: self._reconciler.request(key),
            grant_seconds=settings.grant_seconds,
        )
        self._queries = AliasQueries(self._rooms, project_exists, server_name=server)
        self._latecomers = Latecomers(store=store, clock=clock, poke=self.poke)
        self._postman = Postman(store=store, homeserver=homeserver, rooms=self._rooms, on_sent=self._latecomers.said)
        self._invitations = Invitations(homeserver, server_name=server)
        self._neighbours = Neighbours(
            store=store, homeserver=homeserver, rooms=self._rooms, first_pause_seconds=settings.neighbour_pause_seconds
        )
        reasserter = Reasserter(own=own, clock=clock, keys=lambda: intake.keys, peers=peers, stands=stands)
        watch = RoomWatch(
            store=store,
            clock=clock,
            rooms=self._rooms,
            reasserter=reasserter,
            bot=bot,
            on_mail=self._postman.poke,
            on_put_out=self._neighbours.lost,
        )
        self._reconciler = Reconciler(
            store=store,
            homeserver=homeserver,
            clock=clock,
            watch=watch,
            receive=self._receive_state,
            every_seconds=settings.reconcile_seconds,
            own=server,
            servers=frozenset(peer.server for peer in peers),
        )
        self._ingest = Ingest(
            store=store,
            clock=clock,
            intake=intake,
            own=own,
            reasserter=reasserter,
            bots=frozenset(peer.user for peer in peers),
            on_constitution=self._reconciler.request,
            on_invited=self._invited,
            on_heard=self._reconciler.heard,
            on_put_out=self._neighbours.lost,
            on_mail=self._postman.poke,
            on_head=on_head,
            budgets=budgets,
            on_message=on_message,
            on_bot=self._latecomers.joined,
        )
        self._link = Link(
            homeserver, bot_mxid=bot, on_up=self._homeserver_is_there, heartbeat_seconds=settings.heartbeat_seconds
        )

    @property
    def ready(self) -> bool:
        """Whether Matrix is all there; see the class."""
        return self._link.ready

    @property
    def figures(self) -> Mapping[str, int]:
        """How many events had which outcome since the start, e.g. `{"OK": 12, "E_SIG": 1, "malformed": 0}`."""
        return {**self._ingest.outcomes, "malformed": self._appservice.malformed_events}

    def poke(self) -> None:
        """See `ports.Postman.poke`."""
        self._postman.poke()

    def release_mail(self) -> None:
        """Mail may leave, whatever `on_trust_room` said."""
        self._mail_may_leave.set()

    def reconcile(self) -> None:
        """Have all rooms read again soon."""
        self._reconciler.request()

    def follow(self, project: ProjectName) -> None:
        """A pinned organisation said something about the project, elsewhere than in a room of ours: its room is joined soon."""
        self._neighbours.follow(project)

    async def room_id(self, key: str) -> str | None:
        """The id of a room that exists, by its key (`ports.TRUST_ROOM`, `project:<name>`, ...). Raises StoreAway."""
        row = await self._rooms.known(key)
        return row.room_id if row else None

    async def start(self) -> None:
        """The homeserver's deliveries are taken and kept from now on. Raises Problem when the address cannot be had."""
        await self._appservice.listen(self._settings.host, self._settings.port)

    async def run(self) -> None:
        """Does the work until cancelled. Raises Misregistered when the homeserver, once there, does not accept us."""
        parts = (self._ingest, self._reconciler, self._invitations, self._neighbours, self._latecomers, self._link)
        async with together() as group:
            for part in parts:
                group.create_task(part.run(), name=type(part).__name__)
            group.create_task(self._send_mail(), name="Postman")

    async def stop(self) -> None:
        """Nothing is taken any more; what was taken stays in the inbox."""
        await self._queries.stop()
        await self._rooms.stop()
        with contextlib.suppress(OSError):
            await self._appservice.close()

    async def _homeserver_is_there(self) -> None:
        self._postman.retry_now()
        self._reconciler.was_away()
        self._neighbours.retry_now()
        for key in (TRUST_ROOM, SPACE_ROOM):
            await self._rooms.ensure(key)
        if await self._on_trust_room(await self._trust_room_state()):
            self._mail_may_leave.set()
        self._postman.poke()  # new rooms are listed by mail

    def _invited(self, room_id: str, sender: str) -> None:
        if not self._neighbours.invited(room_id, sender):
            self._invitations.turn_down(room_id)

    async def _trust_room_state(self) -> Sequence[JsonObject]:
        row = await self._rooms.ensure(TRUST_ROOM)
        try:
            return await self._homeserver.state(row.room_id)
        except HomeserverRefused as refusal:
            if not refusal.no_access:
                raise
            return await self._homeserver.state((await self._rooms.regain(TRUST_ROOM)).room_id)

    async def _send_mail(self) -> None:
        """What waits in the outbox of an old copy of the database would take the place of what was said since."""
        await self._mail_may_leave.wait()
        await self._postman.run()

    async def _receive_transaction(self, txn_id: str, events: list[tuple[str, str, bytes]]) -> None:
        self._postman.homeserver_spoke()
        await self._ingest.receive(txn_id, events)

    async def _receive_state(self, txn_id: str, events: Sequence[JsonObject]) -> None:
        triples = [triple for event in events if (triple := storable(event)) is not None]
        await self._ingest.receive(txn_id, triples)
