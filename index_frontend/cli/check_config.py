"""`matrix-pypi-index check-config`: what is wrong before the frontend says it."""

from __future__ import annotations

from pathlib import Path

import click

from index_frontend.cli.options import config_option


@click.command()
@config_option
def command(config: Path) -> None:
    """Parse the configuration, look at the secret it names, and say what is wrong.

    Exit code 3 when something is.
    """
    from index_frontend.config import load
    from matrix_pypi_bot.process.secret_files import read_secret

    settings = load(config)
    read_secret(settings.oracle.token_file, hint="it is the bot's api.token_file; the bot makes it when it starts")
    click.echo(f"{config} is right")
    click.echo(
        f"  serves  http://{settings.listen.host}:{settings.listen.port}/simple/ with {settings.workers} workers"
    )
    click.echo(f"  asks    {settings.oracle.url}")
    click.echo(f"  keeps   {settings.storage.folder}")
    for peer in settings.peers:
        click.echo(f"  peer    {peer.name}: {peer.gateway}")
    for name, section in settings.backends.items():
        click.echo(f"  backend {name}: {section['type']}")
