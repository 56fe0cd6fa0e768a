"""`matrix-pypi trusted-root`: the root under which provenance is verified, from what is installed."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def command(output: Path) -> None:
    """Write the trusted root of the public Sigstore to FILE, for provenance.trusted_root_file.

    It is the one in the installed package `sigstore`, nothing is fetched: as new, and as trustworthy, as that package is.
    """
    from matrix_pypi_bot.adapters.provenance.root import shipped_root
    from matrix_pypi_bot.wire.digests import sha256_of

    root = shipped_root()
    output.write_bytes(root)
    click.echo(f"wrote {output}, sha256 {sha256_of(root)}")
    click.echo("Now name it in the bot's configuration: provenance.trusted_root_file")
