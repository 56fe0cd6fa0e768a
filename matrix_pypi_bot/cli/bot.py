"""`matrix-pypi bot`: run the appservice until SIGTERM or SIGINT."""

from __future__ import annotations

from pathlib import Path

import click

from matrix_pypi_bot.cli.options import config_option


@click.command()
@config_option
def command(config: Path) -> None:
    """Run the appservice.

    Logs go to standard error. SIGTERM or Ctrl-C stops it within 8 s.
    """
    from matrix_pypi_bot import app
    from matrix_pypi_bot.config import ensure_api_tokens, ensure_log_key, load
    from matrix_pypi_bot.process import logs
    from matrix_pypi_bot.process.lifecycle import run_until_signal

    settings = load(config)
    logs.configure(settings.logging)
    ensure_api_tokens(settings)
    ensure_log_key(settings)
    run_until_signal(lambda: app.run(settings))
