"""`matrix-pypi registration`: what the homeserver must know about the appservice."""

from __future__ import annotations

from pathlib import Path

import click

from matrix_pypi_bot.cli.options import config_option


@click.command()
@config_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The registration to write."
)
def command(config: Path, output: Path) -> None:
    """Write the appservice registration for the homeserver.

    Makes the token files that the configuration names when they do not exist. The registration holds both tokens: it is written
    with mode 0600, and the homeserver's user must be able to read it. Run it again after changing the configuration.
    """
    from matrix_pypi_bot.config import ensure_api_tokens, ensure_appservice_tokens, ensure_log_key, load, registration
    from matrix_pypi_bot.process.secret_files import read_secret, write_private

    settings = load(config)
    ensure_appservice_tokens(settings)
    ensure_api_tokens(settings)
    ensure_log_key(settings)
    appservice = settings.appservice
    text = registration(
        settings, as_token=read_secret(appservice.as_token_file), hs_token=read_secret(appservice.hs_token_file)
    )
    write_private(output, text)
    click.echo(f"wrote {output}")
    click.echo("Now name it in the homeserver's configuration and restart the homeserver. For Synapse:")
    click.echo(f"  app_service_config_files: [{output.absolute()}]")
