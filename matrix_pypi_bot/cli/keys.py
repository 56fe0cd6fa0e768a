"""`matrix-pypi keys`: the organisation's Ed25519 keys. Seeds are files of 64 hex digits, mode 0600, never overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from matrix_pypi_bot.cli.manifest import delegate, revoke, show_manifest, undelegate

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
    """Make, show, replace and end the organisation's keys, and those of maintainers."""


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


@command.command("new-maintainer")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--project", default="PROJECT", show_default=True, metavar="NAME", help="The project that it speaks for.")
def new_maintainer(file: Path, project: str) -> None:
    """Make the key with which a maintainer attests his own builds, in FILE. One that exists is kept as it is.

    Give the lines that it prints to those who run mirrors: for their trust.yaml, or for `keys delegate`. Then `matrix-pypi attest`
    signs what you built.
    """
    from matrix_pypi_bot.process.secret_files import create_secret, new_seed

    made = create_secret(file, new_seed())
    click.echo(f"{'made' if made else 'kept'} {file}")
    _show("maintainer", file)
    _, public = _public(file)
    click.echo("For the trust.yaml of others:")
    click.echo(f'maintainers:\n  {project}:\n    keys: ["ed25519:{public}"]')


@command.command("show")
@_config
@_folder
def show(config: Path | None, folder: Path | None) -> None:
    """Show the public halves of the keys. Never the secret ones.

    With -c FILE also what others put into their trust.yaml to pin this organisation, and, if the bot runs, the keys that the
    organisation's manifest lists, former and revoked ones too.
    """
    for name, file in _files(config, folder):
        click.echo(file)
        _show(name, file)
    if config is not None:
        show_manifest(config)
        _show_pin(config)


@command.command("rotate")
@click.argument("which", type=click.Choice(["mirror", "log", "root"]))
@_config
@_folder
def rotate(which: str, config: Path | None, folder: Path | None) -> None:
    """Put a new key in place of the one in use. The old file is kept beside it, under its key id.

    Restart the bot then: its next manifest names the new key. What the old mirror key signed stays good until the key is revoked.
    With another log key a new log begins. A manifest that names another root is signed by the old root and by the new one, so the
    bot reads the old file once more; those who pinned the old root follow by themselves, new ones pin the new root.
    """
    import os

    from matrix_pypi_bot.process.secret_files import SecretProblem, new_seed, put_away_name, write_private

    file = dict(_files(config, folder))[which]
    keyid, _ = _public(file)
    kept = put_away_name(file, keyid)
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
    if which == "root":
        click.echo(
            "Now restart the bot. When `matrix-pypi keys show` tells a manifest by the new root, back that up, and take"
        )
        click.echo(f"  {kept}")
        click.echo("off this machine: to those who have not heard of the new root yet it still speaks for you.")
        return
    click.echo("Now restart the bot. If somebody else may have the old key, then:")
    click.echo(f"  matrix-pypi keys revoke {keyid} --reason TEXT --compromised-since YYYY-MM-DDThh:mm:ssZ")


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


def _show_pin(config: Path) -> None:
    """The lines of a trust.yaml that pin this organisation."""
    from matrix_pypi_bot.config import load

    settings = load(config)
    _, public = _public(settings.organisation.root_key_file)
    click.echo("For the trust.yaml of others:")
    lines = [f'root: ["ed25519:{public}"]', f'user: "{settings.bot_mxid}"']
    announced = settings.announce
    lines += [f"log: {announced.log}"] if announced.log is not None else []
    lines += [f"gateway: {announced.gateway}"] if announced.gateway is not None else []
    click.echo("\n".join(("orgs:", f"  {settings.organisation.name}:", *(f"    {line}" for line in lines))))


def _public(file: Path) -> tuple[str, str]:
    """Key id and public key, in hex, of the seed in `file`."""
    from matrix_pypi_bot.core.signers import SigningKey
    from matrix_pypi_bot.process.secret_files import read_seed

    key = SigningKey(read_seed(file, hint="matrix-pypi keys new-org makes it"))
    return key.keyid, key.public.hex()


for _one in (revoke, delegate, undelegate):
    command.add_command(_one)
