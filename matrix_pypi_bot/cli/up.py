"""`matrix-pypi up`: a whole local stack."""

from __future__ import annotations

import time
from pathlib import Path

import click

from matrix_pypi_bot.devstack.home import ORGS, default_home
from matrix_pypi_bot.devstack.ports import MAX_PORT


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where its data are kept. Default: the platform's data folder.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Where the frontend listens.")
@click.option("--port", type=click.IntRange(1, MAX_PORT), default=8080, show_default=True, help="Its port.")
@click.option(
    "--orgs",
    type=click.IntRange(1, len(ORGS)),
    metavar="N",
    help="So many organisations (orga, orgb, ...), each with a homeserver, a bot and a frontend; they federate and pin one another, "
    "and their frontends listen on PORT, PORT+1, ... Default: as many as DIR holds, 1 in a new one.",
)
@click.option("--upstream", metavar="URL", help="The index to mirror, instead of the public one; it is attested.")
@click.option(
    "--storage",
    type=click.Choice(["file", "kubo"]),
    default="file",
    show_default=True,
    help="kubo: a Kubo (IPFS) node of its own as well; needs its program `ipfs`.",
)
@click.option(
    "--database",
    default="sqlite",
    show_default=True,
    metavar="sqlite|URL",
    help="The bot's database: postgres://user@host/name. Further organisations use name_orgb, name_orgc, ...",
)
@click.option("--no-wait", is_flag=True, help="Come back at once; the stack starts and runs in the background.")
def command(
    home: Path | None,
    host: str,
    port: int,
    orgs: int | None,
    upstream: str | None,
    storage: str,
    database: str,
    no_wait: bool,
) -> None:
    """Start a homeserver, the bot and the index frontend here, with --storage kubo an IPFS node too, and keep them running.

    Prints a line that begins with `ready`, and the line to give pip, when everything answers; DIR/stack.json then says where
    everything is. SIGTERM or Ctrl-C stops all of it within 10 s. The data in DIR survive. Nothing is installed: `make setup` does that.

    The environment overrides configuration keys, for example MATRIX_PYPI__INDEX__FRESH_SECONDS=60; with the name of an
    organisation in front those of one of several, MATRIX_PYPI__ORGB__INDEX__FRESH_SECONDS=60.
    """
    begun = time.monotonic()
    from matrix_pypi_bot.devstack.background import go_to_background
    from matrix_pypi_bot.devstack.preparing import Options, prepare
    from matrix_pypi_bot.devstack.processes import part_names
    from matrix_pypi_bot.devstack.progress import Progress
    from matrix_pypi_bot.devstack.signals import Signals
    from matrix_pypi_bot.devstack.stack import Stack

    options = Options(
        home=home or default_home(),
        host=host,
        port=port,
        upstream=None if upstream is None else _checked_upstream(upstream),
        database=None if database == "sqlite" else _checked_database(database),
        kubo=storage == "kubo",
        orgs=orgs,
    )
    prepared = prepare(options)
    progress = Progress(part_names(prepared), begun=begun)
    if no_wait and not go_to_background(prepared):
        return
    with Signals() as signals, progress:
        Stack(prepared, progress, signals).run()


def _checked_upstream(text: str) -> str:
    from matrix_pypi_bot.process.setting_types import HttpUrl

    try:
        return HttpUrl.from_setting(text, Path("/"))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--upstream") from error


def _checked_database(text: str) -> str:
    from matrix_pypi_bot.process.setting_types import DatabaseUrl

    try:
        return DatabaseUrl.from_setting(text, Path.cwd())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--database") from error
