"""Options that several commands share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, TypeVar, cast

import click

F = TypeVar("F", bound=Any)

config_option = click.option(
    "-c", "--config", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The bot's configuration."
)


def bot_options(command: F) -> F:
    """`-c`, or `--home` and `--org`: which bot to ask. `--json`: its answer as it is.

    The command is given `config` and `home`; an organisation of a local stack is named by its configuration.
    """
    command = _of_an_org(command)
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON."),
        click.option(
            "--home",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="The local stack to ask, started by `matrix-pypi up --home DIR`. Default: that of plain `up`.",
        ),
        click.option(
            "--org",
            metavar="NAME",
            help="The organisation of the local stack to ask, where there are several. Default: the first.",
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


def _of_an_org(command: F) -> F:
    @functools.wraps(command)
    def with_config(config: Path | None, home: Path | None, org: str | None, **others: Any) -> Any:
        if org is not None:
            from matrix_pypi_bot.cli.bot_client import config_in_stack

            if config is not None:
                raise click.UsageError("give -c FILE or --org NAME")
            config = config_in_stack(home, org)
        return command(config=config, home=home, **others)

    return cast(F, with_config)
