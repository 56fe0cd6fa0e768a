"""Thousands of requests a second of virtual time: what participants log is of no use here."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody logs."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
