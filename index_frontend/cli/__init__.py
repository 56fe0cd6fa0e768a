"""`matrix-pypi-index`: one module a command."""

from __future__ import annotations

import click

from matrix_pypi_bot import __version__
from matrix_pypi_bot.process.command_line import CommandGroup

_COMMANDS = {
    "run": "Run the index frontend.",
    "check-config": "Parse the configuration and say what is wrong.",
    "conformance": "Answer protocol questions as JSON lines, for other implementations.",
}


@click.group(
    cls=CommandGroup,
    package=__name__,
    lines=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="matrix-pypi-index")
def main() -> None:
    """The index that pip, uv and poetry talk to. What it may serve, the bot decides."""
