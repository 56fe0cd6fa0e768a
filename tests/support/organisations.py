"""Several organisations in one stack, each with a door of its own to one upstream: so one can lose it, or be shown something else.

three_orgs.upstream.publish(dist)            # all see it
three_orgs.doors["orgc"].off()               # C does not reach it any more
three_orgs["orgb"].kill_and_wait("bot")

Organisations that are to lie have another upstream, `lies`: they run what everybody runs, and attest and hand on what it shows them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.member import Member
from tests.support.stack import Stack
from tests.support.upstream import Upstream

NAMES = ("orga", "orgb", "orgc")
# Patience that is right for a site keeps tests waiting: many projects become known in a minute here, and who was away is back at once.
PATIENCE = {"MATRIX_PYPI__ROOMS__MAX_CREATED_PER_MINUTE": "10000", "MATRIX_PYPI__INDEX__RETRY_SECONDS": "1"}


@dataclass(frozen=True, slots=True)
class Organisations:
    """A running stack. `upstream` is what there is, `lies` what liars are shown; `doors`, by organisation, are the ways to either."""

    stack: Stack
    upstream: Upstream
    lies: Upstream
    doors: Mapping[str, Upstream]

    def __getitem__(self, name: str) -> Member:
        return self.stack.member(name)

    @property
    def members(self) -> tuple[Member, ...]:
        """The organisations."""
        return self.stack.members

    def mend(self) -> None:
        """Everybody reaches the upstream again, which is well."""
        for upstream in (self.upstream, self.lies, *self.doors.values()):
            upstream.mend()


@contextlib.contextmanager
def running_organisations(
    home: Path,
    names: tuple[str, ...] = NAMES,
    environment: Mapping[str, str] | None = None,
    liars: Collection[str] = (),
) -> Iterator[Organisations]:
    """A started stack of the organisations `names` (from orga on); `environment` is for all, `MATRIX_PYPI__ORGB__…` for one."""
    with contextlib.ExitStack() as opened:
        upstream, lies = opened.enter_context(Upstream()), opened.enter_context(Upstream())
        doors = {name: opened.enter_context(Upstream(like=lies if name in liars else upstream)) for name in names}
        ways = {f"MATRIX_PYPI__{name.upper()}__INDEX__URL": door.url for name, door in doors.items()}
        told = {**PATIENCE, **ways, **(environment or {})}
        stack = Stack(home, "--upstream", upstream.url, orgs=len(names), environment=told)
        yield Organisations(opened.enter_context(stack), upstream, lies, doors)
