"""Several organisations in one stack, each with a door of its own to one upstream: so one can lose it, or be shown something else.

three_orgs.upstream.publish(dist)            # all see it
three_orgs.doors["orgc"].off()               # C does not reach it any more
three_orgs["orgb"].kill_and_wait("bot")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.member import Member
from tests.support.stack import Stack
from tests.support.upstream import Upstream

NAMES = ("orga", "orgb", "orgc")


@dataclass(frozen=True, slots=True)
class Organisations:
    """A running stack. `upstream` is what there is; `doors`, by organisation, are the ways to it."""

    stack: Stack
    upstream: Upstream
    doors: Mapping[str, Upstream]

    def __getitem__(self, name: str) -> Member:
        return self.stack.member(name)

    @property
    def members(self) -> tuple[Member, ...]:
        """The organisations."""
        return self.stack.members

    def mend(self) -> None:
        """Everybody reaches the upstream again, which is well."""
        for upstream in (self.upstream, *self.doors.values()):
            upstream.mend()


@contextlib.contextmanager
def running_organisations(
    home: Path, names: tuple[str, ...] = NAMES, environment: Mapping[str, str] | None = None
) -> Iterator[Organisations]:
    """A started stack of the organisations `names` (from orga on); `environment` is for all, `MATRIX_PYPI__ORGB__…` for one."""
    with contextlib.ExitStack() as opened:
        upstream = opened.enter_context(Upstream())
        doors = {name: opened.enter_context(Upstream(like=upstream)) for name in names}
        ways = {f"MATRIX_PYPI__{name.upper()}__INDEX__URL": door.url for name, door in doors.items()}
        stack = Stack(home, "--upstream", upstream.url, orgs=len(names), environment={**ways, **(environment or {})})
        yield Organisations(opened.enter_context(stack), upstream, doors)
