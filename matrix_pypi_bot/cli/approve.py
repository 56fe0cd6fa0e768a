"""`matrix-pypi approve`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from matrix_pypi_bot.cli.overriding import decide, options, reason_option, target_argument


@click.command()
@target_argument
@reason_option
@click.option("--sha256", metavar="HEX", help="The digest that is right. Default: the one that upstream names now.")
@options
def command(
    target: str, reason: str, sha256: str | None, config: Path | None, home: Path | None, as_json: bool
) -> None:
    """Serve a file although the rules refuse it, for example after its digest changed upstream (R3).

    Signed with the organisation's mirror key and logged for everybody to read; ended by `release`.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise click.BadParameter("64 lower-case hexadecimal digits are expected", param_hint="--sha256")
    decide("approve", target, reason, sha256=sha256, config=config, home=home, as_json=as_json)
