"""`matrix-pypi`: one module a command."""

from __future__ import annotations

import click

from matrix_pypi_bot import __version__
from matrix_pypi_bot.process.command_line import CommandGroup

_COMMANDS = {
    "up": "Start a whole local stack: homeserver, bot and index frontend.",
    "explain": "The decision on a file or a project, with every piece of evidence.",
    "approve": "Serve a file although the rules refuse it: signed and logged.",
    "quarantine": "Stop serving a file or a project: signed and logged.",
    "release": "End an approval or a quarantine: signed and logged.",
    "bot": "Run the appservice.",
    "registration": "Write the appservice registration for the homeserver.",
    "check-config": "Parse the configuration and say what is wrong.",
    "keys": "Make and show the organisation's keys.",
    "conformance": "Answer protocol questions as JSON lines, for other implementations.",
}


@click.group(
    cls=CommandGroup,
    package=__name__,
    lines=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="matrix-pypi")
def main() -> None:
    """A PyPI proxy that checks every file and shares signed attestations over Matrix."""
