"""What `matrix-pypi keys` asks of the running bot: what its manifest lists, ends of keys, and maintainers' delegations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from matrix_pypi_bot.cli.options import bot_options
from matrix_pypi_bot.wire.problems import clean_line

if TYPE_CHECKING:
    import msgspec

    from matrix_pypi_bot.wire.messages import KeysTold

_project = click.argument("project", metavar="PROJECT")
_key = click.argument("key", metavar="KEY")


@click.command()
@_key
@click.option("--reason", required=True, metavar="TEXT", help="Why, for the public manifest. At most 500 characters.")
@click.option(
    "--compromised-since",
    metavar="TIME",
    help="From when on somebody else may have signed, e.g. 2026-11-22T13:00:00Z. Without it the key ends now, by routine.",
)
@bot_options
def revoke(
    key: str, reason: str, compromised_since: str | None, config: Path | None, home: Path | None, *, as_json: bool
) -> None:
    """End a key that signs no more: KEY is its id or public key, as `keys show` tells it.

    The bot signs a manifest that says so. What others received from the key before the time given stays good; nothing else does.
    """
    from matrix_pypi_bot.wire.messages import KeyRevocation

    revocation = KeyRevocation(key=key, reason=reason, compromised_since=compromised_since)
    _ask("revocations", revocation, config, home, as_json)


@click.command()
@_project
@_key
@bot_options
def delegate(project: str, key: str, config: Path | None, home: Path | None, *, as_json: bool) -> None:
    """Let a maintainer's public KEY (ed25519:...) speak for PROJECT.

    The bot signs a manifest that says so. Where as many organisations as a quorum needs say the same, what the key attests can confirm
    what the index names, or contradict it; it never counts as an organisation.
    """
    _delegate(project, key, config, home, as_json, delegated=True)


@click.command()
@_project
@_key
@bot_options
def undelegate(project: str, key: str, config: Path | None, home: Path | None, *, as_json: bool) -> None:
    """End what `keys delegate` began."""
    _delegate(project, key, config, home, as_json, delegated=False)


def _delegate(
    project: str, key: str, config: Path | None, home: Path | None, as_json: bool, *, delegated: bool
) -> None:
    from matrix_pypi_bot.wire.messages import KeyDelegation
    from matrix_pypi_bot.wire.names import normalise_project

    order = KeyDelegation(project=normalise_project(project), key=key, delegated=delegated)
    _ask("delegations", order, config, home, as_json)


def _ask(what: str, order: msgspec.Struct, config: Path | None, home: Path | None, as_json: bool) -> None:
    """Has the bot do it with the operator's token, and shows the manifest that says so."""
    import msgspec

    from matrix_pypi_bot.cli.bot_client import find_bot
    from matrix_pypi_bot.wire.messages import API, KeysTold, decode_as, encode

    data = find_bot(config, home, operator=True).ask("POST", f"{API}/keys/{what}", encode(order))
    if as_json:
        click.echo(msgspec.json.format(data, indent=2).decode())
    else:
        _show_keys(decode_as(KeysTold, data))


def show_manifest(config: Path) -> None:
    """What the bot's manifest lists, when the bot runs and has one."""
    from matrix_pypi_bot.cli.bot_client import find_bot
    from matrix_pypi_bot.wire.messages import API, KeysTold, decode_as
    from matrix_pypi_bot.wire.problems import Problem

    try:
        told = decode_as(KeysTold, find_bot(config, None).ask("GET", f"{API}/keys"))
    except Problem as problem:
        click.echo(f"the manifest is not shown: {problem.detail}")
        return
    _show_keys(told)


def _show_keys(told: KeysTold) -> None:
    click.echo(f"manifest {told.version} of {told.org}, valid until {told.expires}")
    for root in told.roots:
        click.echo(f"  ed25519:{root}  root")
    for key in told.keys:
        click.echo(f"  {key.keyid}  {', '.join(key.roles)}, since {key.added}")
        if key.revoked is not None:
            since = f", compromised since {key.compromised_since}" if key.compromised_since is not None else ""
            click.echo(f"    revoked {key.revoked}{since}: {clean_line(key.reason or '')}")
    for one in told.delegations:
        click.echo(f"  ed25519:{one.key}  maintainer of {clean_line(one.project)}")
