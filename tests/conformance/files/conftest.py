"""An upstream for the module, and a file side with an empty store for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.files.expected import LARGE, SMALL
from tests.support.file_side import FileSide
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def running_upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(running_upstream: Upstream) -> Upstream:
    """An upstream that is well, and that nobody has asked for anything."""
    running_upstream.mend()
    running_upstream.forget()
    return running_upstream


@pytest.fixture
def side(upstream: Upstream, tmp_path: Path) -> Iterator[FileSide]:
    """A file side with an empty store, which may serve SMALL and LARGE."""
    with FileSide(upstream, tmp_path / "store") as running:
        for dist in (SMALL, LARGE):
            running.publish(dist)
        yield running
