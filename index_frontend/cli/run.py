"""`matrix-pypi-index run`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

from pathlib import Path

import click

from index_frontend.cli.options import config_option


@click.command()
@config_option
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N", help="Processes that share the port. Default: `workers`."
)
def command(config: Path, workers: int | None) -> None:
    """Run the index frontend.

    Logs go to standard error. SIGTERM or Ctrl-C stops it within 8 s.
    """
    from index_frontend import app
    from index_frontend.config import load
    from matrix_pypi_bot.process import logs

    settings = load(config)
    logs.configure(settings.logging)
    app.run(settings, workers or settings.workers)
