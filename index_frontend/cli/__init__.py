"""`matrix-pypi-index`: one module a command."""

from __future__ import annotations

from matrix_pypi_bot.process.command_line import command_group

_COMMANDS = {
    "run": "Run the index frontend.",
    "check-config": "Parse the configuration and say what is wrong.",
    "check-storage": "Try out a storage backend, as it is configured, point by point.",
    "storage": "List, copy, export, import, pin, delete and check what the storage backends hold.",
    "conformance": "Answer protocol questions as JSON lines, for other implementations.",
}


@command_group("matrix-pypi-index", __name__, _COMMANDS)
def main() -> None:
    """The index that pip, uv and poetry talk to. What it may serve, the bot decides."""
