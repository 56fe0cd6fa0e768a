"""How the scenarios begin: who is there, and what there is to be served."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from matrix_pypi_bot.core.evidence import Mode
from tests.byzantine.liars import Liar
from tests.byzantine.world import Node, World, new_world
from tests.support.dists import Dist, wheel

ONE, TWO = wheel("mxa", "1.0"), wheel("mxa", "2.0")
FALSE = wheel("mxa", "1.0", salt="false")
OTHER = wheel("mxb", "1.0")
AN_HOUR = 60


@asynccontextmanager
async def scene(
    *honest: str, liars: Iterable[str] = (), seed: int = 0, mode: Mode = Mode.ACKED, **options: Any
) -> AsyncIterator[World]:
    """Organisations that pin one another, the liars among them; they have read one another's manifests, and nothing is published."""
    async with new_world("mxa", "mxb", seed=seed, round_seconds=5, pull_seconds=60) as world:
        bad = [Liar(world, name) for name in liars]
        names = (*honest, *liars)
        for name in honest:
            await world.join(name, [other for other in names if other != name], mode=mode, **options)
        for liar in bad:
            liar.tell(liar.manifest())
        await world.minutes(5)
        yield world


def liar(world: World, name: str) -> Liar:
    """The one of this name."""
    found: Liar = world.speakers[name]
    return found


async def rule(node: Node, dist: Dist) -> str:
    """The rule by which a client is answered now."""
    await node.ask(dist)
    return node.world.asked[-1].rule


async def away(world: World, *names: str) -> None:
    """Those named do not reach upstream, and have noticed."""
    for name in names:
        world[name].index.off()
    await world.minutes(15)


async def back(world: World, *names: str) -> None:
    """They reach it again, and have noticed."""
    for name in names:
        world[name].index.on()
    await world.minutes(15)


def verdicts(node: Node) -> set[tuple[str, str, str]]:
    """(organisation, fault, result) of everything judged there."""
    return {
        (row["org"], row["fault"], row["result"]) for row in node.store.rows("SELECT org, fault, result FROM verdict")
    }


def statements(node: Node, kind: str = "%") -> set[str]:
    """Ids of what it knows."""
    return {row["id"] for row in node.store.rows("SELECT id FROM envelope WHERE kind LIKE ?", kind)}
