"""`matrix-pypi release`."""

from __future__ import annotations

from pathlib import Path

import click

from matrix_pypi_bot.cli.overriding import decide, options, reason_option, target_argument


@click.command()
@target_argument
@reason_option
@options
def command(target: str, reason: str, config: Path | None, home: Path | None, as_json: bool) -> None:
    """End an approval or a quarantine: the rules decide again.

    Of a project, the highest serial seen is forgotten too: what upstream shows next is believed, also when it has a lower one.

    Signed with the organisation's mirror key and logged for everybody to read.
    """
    decide("release", target, reason, config=config, home=home, as_json=as_json)
