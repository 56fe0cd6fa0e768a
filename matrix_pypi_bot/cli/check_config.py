"""`matrix-pypi check-config`: what is wrong before the bot says it."""

from __future__ import annotations

from pathlib import Path

import click

from matrix_pypi_bot.cli.options import config_option


@click.command()
@config_option
def command(config: Path) -> None:
    """Parse the configuration, look at the secrets it names, and say what is wrong.

    Exit code 3 when something is.
    """
    from matrix_pypi_bot.config import load, read_secrets
    from matrix_pypi_bot.trust_file import Trust, load_trust

    settings = load(config)
    read_secrets(settings)
    file = settings.trust.file
    trust = Trust() if file is None else load_trust(file, own=settings.organisation.name)
    click.echo(f"{config} is right: {settings.bot_mxid} for the organisation {settings.organisation.name}")
    click.echo(f"  homeserver  {settings.homeserver.address}, delivers to {settings.appservice.public_url}")
    click.echo(f"  index       {settings.index.name}, {'attested' if settings.index.attests else 'not attested'}")
    click.echo(f"  trusts      {', '.join(org.name for org in trust.orgs) or 'nobody else'}")
    click.echo(f"  API         {settings.api.listen}")
    click.echo(f"  public      {settings.public.listen}")
