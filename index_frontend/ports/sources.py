"""Where bytes come from, before anybody has looked at them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from index_frontend.serve_plan import Wanted
from matrix_pypi_bot.wire.problems import Problem, ProblemCode


class SourceGone(Problem):
    """The source says that it does not have the object: 404 or 410."""

    code = ProblemCode.FILE_UNAVAILABLE


class SourceAway(Problem):
    """The source cannot be asked now, or broke off: refused, timed out, 5xx, 429."""

    code = ProblemCode.FILE_UNAVAILABLE


class SourceWrong(Problem):
    """The source answered with something that cannot be the object, or may not be asked."""

    code = ProblemCode.UPSTREAM_WRONG


def nowhere(wanted: Wanted) -> SourceGone:
    """Nobody told of a place to ask."""
    if wanted.urls:
        return SourceGone(f"matrix-pypi: nobody told where {wanted.name} is")
    return SourceGone(
        f"matrix-pypi: {wanted.name} is known from other organisations only, and none of them can be asked for it now"
    )


def known_to_others(wanted: Wanted, problem: Problem) -> Problem:
    """Why a file that has no address upstream cannot be had: what the peers said."""
    cause = problem.detail.removeprefix("matrix-pypi: ")
    told = f"matrix-pypi: {wanted.name} is known from other organisations only: {cause}"
    return SourceGone(told) if isinstance(problem, SourceGone) else SourceAway(told)


class Source(Protocol):
    """Somewhere bytes come from. They are nobody's word until hashed."""

    name: str

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        """What to `fetch`, one after the other until one is right: `wanted` once for each of its addresses; empty when it has none."""
        ...

    def fetch(self, wanted: Wanted, start: int = 0) -> AbstractAsyncContextManager[SourceBody]:
        """The body from byte `start` on; `wanted` is one of `ways`. Raises SourceGone, SourceAway or SourceWrong."""
        ...


class SourceBody(Protocol):
    """An open transfer."""

    @property
    def size(self) -> int | None:
        """The whole object's length as the source declares it, None when it does not."""
        ...

    @property
    def sender(self) -> str:
        """Who sends it, as answers name him: the source's name, or of several the one that does."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Non-empty chunks of any length. Raises SourceAway when the transfer breaks off, SourceWrong."""
        ...
