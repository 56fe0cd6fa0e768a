"""`matrix-pypi quarantine`."""

from __future__ import annotations

from pathlib import Path

import click

from matrix_pypi_bot.cli.overriding import decide, options, reason_option, target_argument


@click.command()
@target_argument
@reason_option
@options
def command(target: str, reason: str, config: Path | None, home: Path | None, as_json: bool) -> None:
    """Stop serving a file, or every file of a project.

    Every frontend refuses it within a second. Signed with the organisation's mirror key and logged for everybody to read; ended by
    `release`.
    """
    decide("quarantine", target, reason, config=config, home=home, as_json=as_json)
