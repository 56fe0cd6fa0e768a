"""The points, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from index_frontend.storage.api import Capability, StorageBackend
from index_frontend.storage.suite import asking, storing
from index_frontend.storage.suite.trial import Failed, NotApplicable, Sample, Trial
from matrix_pypi_bot.wire.problems import Problem, clean_line

POINT_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the backend did at one point. `detail` says why it failed or was not asked."""

    point: str
    result: Literal["ok", "failed", "not applicable"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Point:
    sentence: str
    run: Callable[[Trial], Awaitable[None]]
    needs: tuple[Capability, ...] = ()


_PUT, _DELETE = Capability.PUT, Capability.DELETE
_OPENS: Final = "it opens"
_CLEAN: Final = "nothing of the trial is left"
_POINTS: Final = (
    _Point("it is well, and says so within two seconds", asking.healthy),
    _Point("what it cannot do it says it cannot", asking.honest),
    _Point("what is not held is not there, rather than away", asking.unknown),
    _Point("files of 0 bytes to 10 MiB come out as they went in", storing.round_trips, (_PUT,)),
    _Point("what is held reads the same for many at once", asking.reads),
    _Point("a name that is only similar is another one", asking.similar),
    _Point("storing twice is storing once", storing.storing_twice, (_PUT,)),
    _Point("several may store the same at once", storing.storing_side_by_side, (_PUT,)),
    _Point("a wrong sha256, size or CID: nothing is kept", storing.wrong_names, (_PUT,)),
    _Point("a source that ends or breaks: nothing is kept", storing.broken_sources, (_PUT,)),
    _Point("cancelled at any byte: nothing is kept", storing.cancelled, (_PUT,)),
    _Point("every leaf and node by its CID", asking.blocks, (Capability.BLOCKS,)),
    _Point("CIDs that carry their content are refused", asking.identity, (Capability.BLOCKS,)),
    _Point("what is pinned stays, under its name", storing.pinned, (_PUT, Capability.PIN)),
    _Point("what is deleted is gone, and nothing else", storing.deleted, (_PUT, _DELETE)),
    _Point("files that share blocks do not share their end", storing.deleted_with_shared_blocks, (_PUT, _DELETE)),
    _Point("everything is listed, in order, from anywhere on", asking.listed, (Capability.LIST,)),
    _Point("a list is whole whatever is stored meanwhile", asking.listed_under_writes, (Capability.LIST,)),
    _Point("it tells how much it holds", asking.counted, (Capability.USAGE,)),
    _Point("closing twice is closing once, and then nothing works", asking.closed),
    _Point("it leaves no task and no open file behind", asking.leaks),
)


def points() -> tuple[str, ...]:
    """What is tried, in order; the first and the last of what `check` gives are about the trial itself."""
    return (_OPENS, *(point.sentence for point in _POINTS), _CLEAN)


async def check(
    make: Callable[[], StorageBackend], *, known: Sequence[bytes] = (), only: Collection[str] | None = None
) -> AsyncGenerator[Outcome, None]:
    """An outcome for each of `points`, in order; only the first when the backend does not open.

    `make` gives a backend of one and the same configuration whenever it is called. `known` are whole files that a backend which
    cannot store is known to have; `only` some points are tried. Leaving early removes what was stored, too.
    """
    trial = Trial(make, [Sample.of(data) for data in known])
    try:
        await trial.backend.open()
    except Problem as problem:
        yield Outcome(point=_OPENS, result="failed", detail=clean_line(problem.detail))
        return
    try:
        yield Outcome(point=_OPENS, result="ok")
        for point in _POINTS:
            if only is None or point.sentence in only:
                yield await _outcome(point, trial)
        yield await _outcome(_Point(_CLEAN, _cleaned), trial)
    finally:
        try:
            await trial.remove_all()
        finally:
            await trial.backend.close()


async def _outcome(point: _Point, trial: Trial) -> Outcome:
    missing = [capability.value for capability in point.needs if not trial.can(capability)]
    if missing:
        return Outcome(point=point.sentence, result="not applicable", detail=f"it has no {' and no '.join(missing)}")
    try:
        async with asyncio.timeout(POINT_SECONDS):
            await point.run(trial)
    except NotApplicable as reason:
        return Outcome(point=point.sentence, result="not applicable", detail=str(reason))
    except Failed as reason:
        return Outcome(point=point.sentence, result="failed", detail=clean_line(str(reason)))
    except TimeoutError:
        return Outcome(point=point.sentence, result="failed", detail=f"not done within {POINT_SECONDS:g} s")
    except Exception as error:
        return Outcome(point=point.sentence, result="failed", detail=clean_line(f"{type(error).__name__}: {error}"))
    return Outcome(point=point.sentence, result="ok")


async def _cleaned(trial: Trial) -> None:
    left = await trial.remove_all()
    if left:
        what = f"{len(left)} random files, {sum(content.size for content in left)} bytes"
        if not trial.can(_DELETE):
            raise NotApplicable(f"it cannot delete: {what} stay")
        raise Failed(f"{what} cannot be removed, the first is {left[0].sha256}")
