"""`matrix-pypi-index storage`: what the backends hold, and ways from one to another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from index_frontend.cli.options import config_option

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T", bound=Callable[..., Any])

_names = click.argument("files", nargs=-1, metavar="[SHA256|CID]...")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_all = click.option("--all", "everything", is_flag=True, help="Every file that is there.")


@click.group()
def command() -> None:
    """What the storage backends hold, and ways from one to another.

    Backends are called by their names under `backends` in the configuration; `file` is the store in `storage.folder`. Files are
    named by sha256 or CID, in full. Nothing here changes a CID: bytes are checked against it wherever they go.

    \b
    matrix-pypi-index storage list -c frontend.yaml
    matrix-pypi-index storage copy file office --all -c frontend.yaml
    matrix-pypi-index storage export file bafybei... -o backup/ -c frontend.yaml
    matrix-pypi-index storage import office backup/ -c frontend.yaml

    Everything may be broken off and said again: what is done is not done twice. Running frontends are not disturbed.
    Exit codes: 0 done, 1 something was refused or not found, 3 configuration, 4 a backend is down.
    """


@command.command("list", short_help="The backends and how they are, or the files of one.")
@click.argument("name", required=False)
@config_option
@_json
def list_command(name: str | None, config: Path, as_json: bool) -> None:
    """The backends: how they are and how much they hold. With NAME: its files, by sha256."""
    from index_frontend.cli.storing import list_backends, list_files

    _run(list_files(config, name, as_json=as_json) if name else list_backends(config, as_json=as_json))


@command.command(short_help="Write files as archives (CARv1).")
@click.argument("name")
@_names
@_all
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Made when missing.",
)
@config_option
def export(name: str, files: tuple[str, ...], everything: bool, output: Path, config: Path) -> None:
    """Write files of NAME as archives: DIR/<CID>.car, CARv1, one root each, byte for byte what `ipfs dag export` writes."""
    from index_frontend.cli.storing import export_files

    _run(export_files(config, name, _wanted(files, everything), output))


@command.command("import", short_help="Store the files that are in archives.")
@click.argument("name")
@click.argument("cars", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="CAR|DIR...")
@config_option
def import_command(name: str, cars: tuple[Path, ...], config: Path) -> None:
    """Store in NAME every file whose root an archive names, if all of it is in there and in the profile unixfs-v1-2025.

    A DIR stands for the archives in it. Blocks may come in any order. An archive with a wrong block is refused whole.
    """
    from index_frontend.cli.storing import import_files

    _run(import_files(config, name, cars))


@command.command(short_help="Copy files from one backend to another.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@_names
@_all
@click.option("--pins", is_flag=True, help="Pin in TO what is pinned in FROM, under the same name.")
@config_option
def copy(source: str, target: str, files: tuple[str, ...], everything: bool, pins: bool, config: Path) -> None:
    """Copy files from one backend to another; what TO has already is skipped."""
    from index_frontend.cli.storing import copy_files

    _run(copy_files(config, source, target, _wanted(files, everything), pins=pins))


@command.command(short_help="Keep files from being evicted.")
@click.argument("name")
@_names
@_all
@click.option("--as", "pin", default="operator", show_default=True, metavar="TEXT", help="The pin's name.")
@config_option
def pin(name: str, files: tuple[str, ...], everything: bool, pin: str, config: Path) -> None:
    """Pin files in NAME: they are not evicted."""
    from index_frontend.cli.storing import pin_files

    _run(pin_files(config, name, _wanted(files, everything), pin))


@command.command(short_help="Let files be evicted again.")
@click.argument("name")
@_names
@_all
@config_option
def unpin(name: str, files: tuple[str, ...], everything: bool, config: Path) -> None:
    """Unpin files in NAME: they go when room is needed."""
    from index_frontend.cli.storing import pin_files

    _run(pin_files(config, name, _wanted(files, everything), None))


@command.command(short_help="Free the room that files take.")
@click.argument("name")
@_names
@config_option
def delete(name: str, files: tuple[str, ...], config: Path) -> None:
    """Delete files from NAME. What is pinned stays; unpin it first.

    This frees room. It does not withdraw a file: a client who asks for it has it fetched again. `matrix-pypi quarantine` withdraws.
    """
    from index_frontend.cli.storing import delete_files

    if not files:
        raise click.UsageError("name files by sha256 or CID")
    _run(delete_files(config, name, files))


@command.command(short_help="Read and hash everything; repair from another backend.")
@click.argument("name")
@_names
@click.option(
    "--from", "repair", metavar="OTHER", help="Replace what is wrong by what the backend OTHER has, if that is right."
)
@config_option
def scrub(name: str, files: tuple[str, ...], repair: str | None, config: Path) -> None:
    """Read every file of NAME, or those named, and hash it."""
    from index_frontend.cli.storing import scrub_files

    _run(scrub_files(config, name, files, repair))


def _wanted(files: tuple[str, ...], everything: bool) -> tuple[str, ...]:
    """The names; none for everything, which must be said."""
    if everything == bool(files):
        raise click.UsageError(
            "name files by sha256 or CID, or say --all" if not files else "name files or say --all, not both"
        )
    return files


def _run(work: Coroutine[Any, Any, bool]) -> None:
    """Exit code 1 unless all went well."""
    import sys

    from index_frontend.cli.backends import run
    from matrix_pypi_bot.process.command_line import ExitCode

    if not run(work):
        sys.exit(ExitCode.NO)
