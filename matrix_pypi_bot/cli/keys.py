"""`matrix-pypi keys`: the organisation's Ed25519 keys. Seeds are files of 64 hex digits, mode 0600, never overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matrix_pypi_bot.cli.options import bot_options
from matrix_pypi_bot.wire.problems import clean_line

if TYPE_CHECKING:
    from matrix_pypi_bot.wire.messages import KeysTold

_config = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use the files that this configuration names.",
)
_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Use the files root_key, mirror_key and log_key in this folder.",
)


@click.group()
def command() -> None:
    """Make, show, replace and end the organisation's keys."""


@command.command("new-org")
@_config
@_folder
def new_org(config: Path | None, folder: Path | None) -> None:
    """Make the organisation's root key, its mirror key and the key of its log.

    The root key says which other keys are yours; others pin it. The mirror key signs every attestation, the log key every
    checkpoint of the transparency log. A file that exists is kept as it is.
    """
    from matrix_pypi_bot.process.secret_files import create_secret, new_seed

    for name, file in _files(config, folder):
        made = create_secret(file, new_seed())
        click.echo(f"{'made' if made else 'kept'} {file}")
        _show(name, file)


@command.command("show")
@_config
@_folder
def show(config: Path | None, folder: Path | None) -> None:
    """Show the public halves of the keys. Never the secret ones.

    With -c FILE and a bot that runs also the keys that the organisation's manifest lists, former and revoked ones too.
    """
    for name, file in _files(config, folder):
        click.echo(file)
        _show(name, file)
    if config is not None:
        _show_manifest(config)


@command.command("rotate")
@click.argument("which", type=click.Choice(["mirror", "log"]))
@_config
@_folder
def rotate(which: str, config: Path | None, folder: Path | None) -> None:
    """Put a new mirror key or log key in place of the one in use. The old file is kept beside it, under its key id.

    Restart the bot then: its next manifest names the new key. What the old mirror key signed stays good until the key is revoked.
    With another log key a new log begins.
    """
    import os

    from matrix_pypi_bot.process.secret_files import SecretProblem, new_seed, write_private

    file = dict(_files(config, folder))[which]
    keyid, _ = _public(file)
    kept = file.with_name(f"{file.name}.{keyid[:16]}")
    if kept.exists():
        raise click.UsageError(f"{kept} is there already: the key in use was put away before; nothing is changed")
    try:
        os.link(file, kept)  # the old one has both names until the new one takes the first: at no moment is there none
        write_private(file, f"{new_seed()}\n")
    except OSError as error:
        hint = "run it as a user who may write there; nothing is changed"
        raise SecretProblem(f"cannot put a new key into {file}: {error.strerror}", hint=hint) from error
    click.echo(f"kept {kept}")
    click.echo(f"made {file}")
    _show(which, file)
    click.echo("Now restart the bot. If somebody else may have the old key, then:")
    click.echo(f"  matrix-pypi keys revoke {keyid} --reason TEXT --compromised-since YYYY-MM-DDThh:mm:ssZ")


@command.command("revoke")
@click.argument("key", metavar="KEY")
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
    import msgspec

    from matrix_pypi_bot.cli.bot_client import find_bot
    from matrix_pypi_bot.wire.messages import API, KeyRevocation, KeysTold, decode_as, encode

    revocation = KeyRevocation(key=key, reason=reason, compromised_since=compromised_since)
    data = find_bot(config, home, operator=True).ask("POST", f"{API}/keys/revocations", encode(revocation))
    if as_json:
        click.echo(msgspec.json.format(data, indent=2).decode())
    else:
        _show_keys(decode_as(KeysTold, data))


def _files(config: Path | None, folder: Path | None) -> Iterator[tuple[str, Path]]:
    if (config is None) == (folder is None):
        raise click.UsageError("give -c FILE or --folder DIR")
    if folder is not None:
        yield "root", folder / "root_key"
        yield "mirror", folder / "mirror_key"
        yield "log", folder / "log_key"
    else:
        assert config is not None
        from matrix_pypi_bot.config import load

        organisation = load(config).organisation
        yield "root", organisation.root_key_file
        yield "mirror", organisation.mirror_key_file
        yield "log", organisation.log_key


def _show(name: str, file: Path) -> None:
    keyid, public = _public(file)
    click.echo(f"  {name} public key  ed25519:{public}")
    click.echo(f"  {name} key id      {keyid}")


def _public(file: Path) -> tuple[str, str]:
    """Key id and public key, in hex, of the seed in `file`."""
    from matrix_pypi_bot.core.signers import SigningKey
    from matrix_pypi_bot.process.secret_files import read_seed

    key = SigningKey(read_seed(file, hint="matrix-pypi keys new-org makes it"))
    return key.keyid, key.public.hex()


def _show_manifest(config: Path) -> None:
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
    for key in told.keys:
        click.echo(f"  {key.keyid}  {', '.join(key.roles)}, since {key.added}")
        if key.revoked is not None:
            since = f", compromised since {key.compromised_since}" if key.compromised_since is not None else ""
            click.echo(f"    revoked {key.revoked}{since}: {clean_line(key.reason or '')}")
