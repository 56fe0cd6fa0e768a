"""Adversaries that nobody thought of: whatever a few liars do, in whatever order, the theorems hold."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from matrix_pypi_bot.core.envelope import Envelope
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.statements.keys import Revoked
from matrix_pypi_bot.core.statements.refutation import Fault
from tests.byzantine.liars import Liar
from tests.byzantine.scenes import liar, scene, statements
from tests.byzantine.world import World
from tests.support.bot_world import START_MS
from tests.support.dists import wheel
from tests.support.virtual import run_virtual

FILES: Final = (wheel("mxa", "1.0"), wheel("mxa", "2.0"), wheel("mxb", "1.0"))
FALSE: Final = tuple(wheel(dist.project, dist.version, salt="false") for dist in FILES)
HONEST: Final = ("orgh", "orgv")
LIARS: Final = ("orga", "orgb")
EXAMPLES: Final = int(os.environ.get("ADVERSARIES", "25"))

Step = tuple[str, int, int]


class Adversary:
    """Carries out steps: a verb, who does it, and to what."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.said: list[Envelope] = []
        self.lies: list[str] = []

    async def do(self, verb: str, who: int, what: int) -> None:
        act: Callable[[Liar, int], Awaitable[None]] = getattr(self, f"_{verb}")
        await act(liar(self.world, LIARS[who % 2]), what)

    def _tell(self, one: Liar, envelope: Envelope, what: int) -> None:
        """To everybody, to V alone in room and log, to the honest other alone, or only in the log."""
        whom = ((), ("orgv",), ("orgh",), ())[what // 3 % 4]
        one.tell(envelope, to=whom, room=what // 3 % 4 != 3)
        if whom:
            one.only_for[len(one.log) - 1] = whom[0]
        self.said.append(envelope)

    async def _lie(self, one: Liar, what: int) -> None:
        envelope = one.attestation(FALSE[what % 3])
        self.lies.append(envelope.id)
        self._tell(one, envelope, what)

    async def _say_the_truth(self, one: Liar, what: int) -> None:
        self._tell(one, one.attestation(FILES[what % 3]), what)

    async def _back_date(self, one: Liar, what: int) -> None:
        envelope = one.attestation(FALSE[what % 3], issued=Instant.of_ms(START_MS - 10**9), seq=1)
        self.lies.append(envelope.id)
        self._tell(one, envelope, what)

    async def _review(self, one: Liar, what: int) -> None:
        self._tell(one, one.review((FILES, FALSE)[what % 2][what % 3]), what)

    async def _accuse(self, one: Liar, what: int) -> None:
        heard = [*one.attestations_heard(), *(e for e in self.said if b"attestation:v1" in e.payload)]
        if heard:
            accused = heard[what % len(heard)]
            fault = (Fault.PYPI_DIGEST, Fault.PYPI_ABSENT, Fault.EQUIVOCATION, Fault.CID_CONTENT)[what % 4]
            self._tell(one, one.accusation(accused, fault), what)

    async def _withdraw(self, one: Liar, what: int) -> None:
        own = [e for e in self.said if b"attestation:v1" in e.payload and e.signatures[0].keyid == one.mirror.keyid]
        if own:
            self._tell(one, one.withdrawal(own[what % len(own)]), what)

    async def _revoke(self, one: Liar, what: int) -> None:
        since = Instant(one.now - what * 3_600) if what % 2 else None
        end = Revoked(at=one.now, reason="", compromised_since=since)
        fresh = one.other_key(what)
        one.tell(one.manifest(revoked=end, extra=[fresh]))
        one.mirror = fresh

    async def _bring_an_old_manifest(self, one: Liar, what: int) -> None:
        manifests = [e for e in one.log if b":keys:v1" in e.payload]
        one.tell(manifests[what % len(manifests)])

    async def _fork(self, one: Liar, what: int) -> None:
        one.tell(one.fork(what + 1))

    async def _replay(self, one: Liar, what: int) -> None:
        history = self.world.network.history
        event = history[what % len(history)]
        room = event["room_id"].removeprefix("!").partition(":")[0].replace("~", ":")
        for where in (room, "project:mxb"):
            self.world.network.post(one.name, where, event["type"], event["content"], event.get("state_key"))

    async def _redact(self, one: Liar, what: int) -> None:
        for event in self.world.network.history[-what - 1 :]:
            if event["content"] and event["type"].startswith("io."):
                self.world.network.redact(one.name, event)

    async def _cut(self, one: Liar, what: int) -> None:
        self.world.network.cut("orgh", "orgv", room=bool(what & 1), log=bool(what & 2))

    async def _delay(self, one: Liar, what: int) -> None:
        for path in self.world.network.paths.values():
            path.delay_seconds, path.copies = (0.0, 600.0 * what), 1 + what % 3

    async def _take_upstream_away(self, one: Liar, what: int) -> None:
        self.world[HONEST[what % 2]].index.off()
        await self.world.minutes(12)

    async def _give_upstream_back(self, one: Liar, what: int) -> None:
        self.world[HONEST[what % 2]].index.on()

    async def _ask(self, one: Liar, what: int) -> None:
        dist = FILES[what % 3]
        await self.world[HONEST[what % 2]].ask(dist)

    async def _wait(self, one: Liar, what: int) -> None:
        await self.world.minutes(2 + 10 * what)


VERBS: Final = sorted(name[1:] for name in vars(Adversary) if name[0] == "_" != name[1] and name != "_tell")
STEPS: Final = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 1), st.integers(0, 11)), max_size=25)


@given(STEPS)
@settings(max_examples=EXAMPLES, derandomize="ADVERSARIES" not in os.environ, print_blob=True)
def test_whatever_two_of_three_do_nothing_false_is_served_nobody_is_framed_and_nothing_is_forgotten(
    steps: list[Step],
) -> None:
    run_virtual(_lived_through(steps))


async def _lived_through(steps: list[Step]) -> None:
    async with scene(*HONEST, liars=LIARS) as world:
        world.publish(*FILES)
        adversary = Adversary(world)
        known = {name: statements(world[name]) for name in HONEST}
        for step in steps:
            await adversary.do(*step)
            await world.minutes(1)
            for name in HONEST:
                now = statements(world[name])
                assert now >= known[name], "T5: what is known only grows"
                known[name] = now
            _check(world)
        for file in FILES:  # T1, T2: also of what nobody happened to ask for
            for name in HONEST:
                await world[name].ask(file)
        _check(world)
        await _healed(world, adversary)


def _check(world: World) -> None:
    assert not world.frauds, "T1, T2: nothing false is served"
    for name in HONEST:
        assert not world[name].outcasts & set(HONEST), "T4: nobody is framed"


async def _healed(world: World, adversary: Adversary) -> None:
    """T3: when everybody can look and be heard again, no lie that anybody holds counts any more."""
    for name in HONEST:
        world[name].index.on()
    world.network.cut("orgh", "orgv", room=True, log=True)
    await world.minutes(30)
    for name in HONEST:
        for file in FILES:
            await world[name].ask(file)
    await world.minutes(30)
    _check(world)
    for name in HONEST:
        node = world[name]
        out = {
            row["statement_id"]
            for row in node.store.rows("SELECT statement_id FROM verdict WHERE result != 'DISMISSED'")
        }
        rows = node.store.rows("SELECT id, org FROM envelope WHERE kind = 'attestation'")
        for row in rows:
            if row["id"] in adversary.lies:
                assert row["id"] in out or row["org"] in node.outcasts, (
                    "T3: a lie is refuted, or who told it has no weight"
                )
