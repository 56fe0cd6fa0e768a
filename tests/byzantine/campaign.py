"""The table of policies against conditions: one run is V and three organisations for twenty hours, with upstream away from V for ten.

Honest organisations are the bot's real services. Liars attest a false digest for four of twelve files, review it `ok`, accuse who
attests the truth, and say different things to different readers; what they do and when is drawn from the run's seed.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Any, Final

from matrix_pypi_bot.core.court import CONFLICTING
from matrix_pypi_bot.core.envelope import read_envelope
from matrix_pypi_bot.core.evidence import Mode
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.byzantine.liars import Liar
from tests.byzantine.world import Node, World, new_world
from tests.support.dists import Dist, wheel
from tests.support.virtual import run_virtual

PROJECTS: Final = ("mxa", "mxb", "mxc", "mxd")
FILES: Final = tuple(wheel(project, f"{number}.0") for project in PROJECTS for number in (1, 2, 3))
FALSE: Final = {dist.filename: wheel(dist.project, dist.version, salt="false") for dist in FILES}
MINUTES: Final = 1_200
AWAY: Final = (300, 900)
LIES: Final = 4
RESERVED: Final = 8  # files about which liars say nothing until they know what to lie about
V: Final = "orgv"
OTHERS: Final = ("orga", "orgb", "orgc")
REQUESTS_EACH: Final = 4  # of V's clients for each file; of an honest other's clients one, as a rule
ROUND_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What V's operator chose."""

    name: str
    told: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Who lies, and which ways are open between V and the honest one."""

    name: str
    liars: int = 2
    room: bool = True
    log: bool = True
    blind: bool = False
    silent: int = 0
    away: bool = True


ACKED: Final = Policy("acked, m = 0", {"mode": Mode.ACKED})
SELF: Final = Policy("self", {"mode": Mode.SELF})
POLICIES: Final = (
    Policy("kofn, k = 1", {"mode": Mode.KOFN, "quorum": 1}),
    Policy("kofn, k = 2", {"mode": Mode.KOFN}),
    ACKED,
    Policy("acked, m = 1", {"mode": Mode.ACKED, "acks_missing_allowed": 1}),
    SELF,
)
ONLINE: Final = Condition(name="3 of 3 lying, upstream never away", liars=3, away=False)
SILENT: Final = Condition(name="nobody lying, 1 of 3 silent", liars=0, silent=1)
ONE_HONEST: Final = (
    Condition(name="2 of 3 lying, all paths open"),
    Condition(name="… honest one censored in rooms", room=False),
    Condition(name="… cut off totally", room=False, log=False),
    Condition(name="… honest one has no upstream", blind=True),
)
CONDITIONS: Final = (*ONE_HONEST, Condition(name="3 of 3 lying", liars=3), ONLINE, SILENT)


def is_promised(policy: Policy, condition: Condition) -> bool:
    """Whether theorem T1 or T2 says that nothing false is served."""
    return (
        condition is ONLINE
        or (policy is SELF and condition is not SILENT)
        or (policy is ACKED and condition in ONE_HONEST)
    )


@dataclass(slots=True)
class Run:
    """What became of one run. Minutes of exposure are those between V's counting a false attestation and its end; None: no end."""

    seed: int
    frauds: int = 0
    served: int = 0
    requests: int = 0
    rules: collections.Counter[str] = field(default_factory=collections.Counter)
    exposures: list[float | None] = field(default_factory=list)
    asked: int = 0
    judged: int = 0
    events: int = 0
    statements: int = 0
    bytes: int = 0


def play(policy: Policy, condition: Condition, seed: int) -> Run:
    """One run. The same arguments, and PYTHONHASHSEED, give the same run."""
    return run_virtual(_played(policy, condition, seed))


async def _played(policy: Policy, condition: Condition, seed: int) -> Run:
    async with new_world(*PROJECTS, seed=seed, round_seconds=ROUND_SECONDS) as world:
        liars = [Liar(world, name) for name in OTHERS[: condition.liars]]
        silent = [Liar(world, name) for name in OTHERS[condition.liars : condition.liars + condition.silent]]
        honest = OTHERS[condition.liars + condition.silent :]
        for name in (V, *honest):
            told = policy.told if name == V else ACKED.told
            await world.join(name, [other for other in (V, *OTHERS) if other != name], **told)
        world.publish(*FILES)
        for name in honest:
            world.network.cut(V, name, room=condition.room, log=condition.log)
            if condition.blind:
                world[name].index.off()
        for liar in (*liars, *silent):
            liar.tell(liar.manifest())
        if condition.away:
            world.at(AWAY[0], world[V].index.off)
            world.at(AWAY[1], world[V].index.on)
        for name in (V, *honest):
            _have_clients(world, world[name])
        plan = Plan(world, liars)
        await world.minutes(MINUTES)
        return _summed(world, plan, seed)


def _have_clients(world: World, node: Node) -> None:
    for dist in FILES:
        times = REQUESTS_EACH if node.name == V else int(world.chance.random() < 0.9)
        for _ in range(times):
            world.at(world.chance.uniform(0, MINUTES), node.ask, dist)


class Plan:
    """What the liars do, of one mind and reading the rooms. As a rule they lie while V cannot look, about what V did not attest."""

    def __init__(self, world: World, liars: list[Liar]) -> None:
        self.world, self.liars, chance = world, liars, world.chance
        self.lies = set[str]()
        self.about: list[Dist] = []
        self.accused = set[str]()
        self.conflicts: dict[str, float] = {}
        self.cunning = chance.random() < 0.85
        self.reserved = chance.sample(FILES, RESERVED) if liars else []
        begin = AWAY[0] + 15 if self.cunning else 1
        self.last = AWAY[1] - 60 if self.cunning else MINUTES - 60
        for dist in FILES:
            if dist not in self.reserved:
                self.speak_truly(dist, 1)
        if liars:
            world.at(begin, self.choose, begin)
            for minute in range(10, MINUTES, 20):
                world.at(minute, self.accuse)
            for minute in range(1, MINUTES):
                world.at(minute, self.watch)

    def choose(self, now: int) -> None:
        """What they lie about; about everything else they say the truth."""
        chance = self.world.chance
        seen = {dist.filename for dist in self.reserved if self.cunning and self.liars[0].has_heard(V, dist.filename)}
        self.about = [dist for dist in self.reserved if dist.filename not in seen][:LIES]
        for dist in self.reserved:
            if dist not in self.about:
                self.speak_truly(dist, now)
                continue
            begin, two_faced = chance.uniform(now, self.last), chance.random() < 0.1
            whom = chance.choice(("all", "all", "log", "room"))
            for liar in self.liars:
                minute = begin + chance.uniform(0, 60) - now
                self.world.at(minute, self.lie, liar, FALSE[dist.filename], whom, two_faced)

    def speak_truly(self, dist: Dist, now: int) -> None:
        """They attest what upstream says, as honest people would."""
        chance = self.world.chance
        for liar in self.liars:
            if chance.random() < 0.9:
                minute = chance.uniform(now, MINUTES)
                self.world.at(minute - now, lambda liar=liar: liar.tell(liar.attestation(dist)))
                self.world.at(chance.uniform(minute, MINUTES) - now, lambda liar=liar: liar.tell(liar.review(dist)))

    def lie(self, liar: Liar, false: Dist, whom: str, two_faced: bool) -> None:
        """One of them attests the false digest, and says that it looked. `whom`: everybody, V in rooms and log, V in rooms alone."""
        envelope = liar.attestation(false)
        self.lies.add(envelope.id)
        liar.tell(envelope, to=() if whom == "all" else (V,), log=whom != "room")
        if whom == "log":
            liar.only_for[len(liar.log) - 1] = V
        liar.tell(liar.review(false))
        if two_faced:
            [truth] = [dist for dist in FILES if dist.filename == false.filename]
            liar.tell(liar.attestation(truth), to=[name for name in self.world.nodes if name != V] or (V,), log=False)

    def watch(self) -> None:
        """When V first serves nothing for a file because witnesses disagree."""
        for dist in self.about:
            known = self.world[V].projects.held(ProjectName(dist.project))
            decision = known.finished.decisions.get(FileName(dist.filename)) if known and known.finished else None
            if decision is not None and decision.rule in CONFLICTING:
                self.conflicts.setdefault(dist.filename, self.world.clock.now_ms())

    def accuse(self) -> None:
        """Whoever attests the truth about such a file is accused of lying."""
        names = {dist.filename for dist in self.about}
        for liar in self.liars[:1]:
            for event in liar.heard:
                if event["type"] != "io.matrix_pypi.attestation.v1" or event["event_id"] in self.accused:
                    continue
                self.accused.add(event["event_id"])
                if (event.get("state_key") or "").partition("/")[2] in names and event["content"]:
                    liar.tell(
                        liar.accusation(read_envelope(event["content"]["dsse"])), log=self.world.chance.random() < 0.5
                    )


def _summed(world: World, plan: Plan, seed: int) -> Run:
    v = world[V]
    asked = [one for one in world.asked if one.node == V]
    good = [one for one in asked if one.sha256 == world.truth[one.file]]
    rows = v.store.rows("SELECT id, org, file, first_seen_ms FROM envelope")
    verdicts = v.store.rows("SELECT statement_id, org, result, suspends, at_ms FROM verdict ORDER BY n")
    exposures: list[float | None] = []
    for row in rows:
        if row["id"] in plan.lies:
            ends = [
                one["at_ms"] for one in verdicts
                if (one["org"] == row["org"] and one["suspends"])
                or (one["statement_id"] == row["id"] and one["result"] in ("UPHELD", "CONTESTED", "CONFLICT"))
            ]  # fmt: skip
            if row["file"] in plan.conflicts:
                ends.append(max(row["first_seen_ms"], plan.conflicts[row["file"]]))
            end = min(ends, default=None)
            if end is None or end >= row["first_seen_ms"]:
                exposures.append(None if end is None else (end - row["first_seen_ms"]) / 60_000)
    return Run(
        seed=seed,
        frauds=len([one for one in world.frauds if one.node == V]),
        served=len(good),
        requests=len(asked),
        rules=collections.Counter(one.rule for one in asked),
        exposures=exposures,
        asked=len(v.index.asked),
        judged=len({(one["statement_id"], one["result"]) for one in verdicts}),
        events=sum(v.ingest.outcomes.values()),
        statements=len(rows),
        bytes=len(v.store.save()),
    )
