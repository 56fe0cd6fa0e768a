"""`matrix-pypi`: one module a command."""

from __future__ import annotations

from matrix_pypi_bot.process.command_line import command_group

_COMMANDS = {
    "up": "Start a whole local stack: homeserver, bot and index frontend.",
    "status": "How a running stack is, and what is held where.",
    "explain": "The decision on a file or a project, with every piece of evidence.",
    "verify": "Check every hash of a lock file against signed attestations; believes no mirror.",
    "approve": "Serve a file although the rules refuse it: signed and logged.",
    "quarantine": "Stop serving a file or a project: signed and logged.",
    "release": "End an approval or a quarantine: signed and logged.",
    "attest": "Sign that you built these files: what a maintainer pastes into the project's room.",
    "bot": "Run the appservice.",
    "registration": "Write the appservice registration for the homeserver.",
    "check-config": "Parse the configuration and say what is wrong.",
    "trusted-root": "Write the root under which provenance is verified.",
    "keys": "Make, show, replace and end keys: the organisation's, and maintainers'.",
    "conformance": "Answer protocol questions as JSON lines, for other implementations.",
}


@command_group("matrix-pypi", __name__, _COMMANDS)
def main() -> None:
    """A PyPI proxy that checks every file and shares signed attestations over Matrix."""
