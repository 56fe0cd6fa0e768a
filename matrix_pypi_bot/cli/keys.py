"""`matrix-pypi keys`: the organisation's Ed25519 keys. Seeds are files of 64 hex digits, mode 0600, never overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

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
    """Make and show the organisation's keys."""


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
    """Show the public halves of the keys. Never the secret ones."""
    for name, file in _files(config, folder):
        click.echo(file)
        _show(name, file)


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
    import hashlib

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from matrix_pypi_bot.process.secret_files import read_seed

    public = (
        Ed25519PrivateKey.from_private_bytes(read_seed(file, hint="matrix-pypi keys new-org makes it"))
        .public_key()
        .public_bytes_raw()
    )
    click.echo(f"  {name} public key  ed25519:{public.hex()}")
    click.echo(f"  {name} key id      {hashlib.sha256(public).hexdigest()}")
