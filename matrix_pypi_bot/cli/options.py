"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Any)

config_option = click.option(
    "-c", "--config", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The bot's configuration."
)


def bot_options(command: F) -> F:
    """`-c` or `--home`: which bot to ask. `--json`: its answer as it is."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON."),
        click.option(
            "--home",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="The local stack to ask, started by `matrix-pypi up --home DIR`. Default: that of plain `up`.",
        ),
        click.option(
            "-c",
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The configuration of the bot to ask.",
        ),
    ):
        command = option(command)
    return command
