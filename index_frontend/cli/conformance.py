"""`matrix-pypi-index conformance`: the HTTP rules, answered as JSON lines, for other implementations and test suites."""

from __future__ import annotations

import sys

import click


@click.command()
def command() -> None:
    """Answer protocol questions: one JSON object a line in, one out, in the same order. Pure: no network, no files."""
    from index_frontend import conformance

    for line in conformance.run(sys.stdin):
        print(line, flush=True)
