"""`matrix-pypi explain`: why a file is served or refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from matrix_pypi_bot.cli.options import bot_options

if TYPE_CHECKING:
    from matrix_pypi_bot.cli.bot_client import BotClient
    from matrix_pypi_bot.wire.messages import Explanation


@click.command()
@click.argument("target", metavar="FILE|PROJECT")
@bot_options
def command(target: str, config: Path | None, home: Path | None, as_json: bool) -> None:
    """The decision on a file or on every file of a project, its rule, and every piece of evidence.

    FILE is a file name such as flask-3.1.3-py3-none-any.whl, not a path. The exit code is 0 for a refused file too: it was explained.
    """
    import msgspec

    from matrix_pypi_bot.cli.bot_client import find_bot
    from matrix_pypi_bot.wire.messages import Explanation, decode_as

    data = ask(find_bot(config, home), target)
    if as_json:
        click.echo(msgspec.json.format(data, indent=2).decode())
    else:
        show(decode_as(Explanation, data))


def ask(bot: BotClient, target: str) -> bytes:
    """The bot's explanation. A file's project is guessed from its name, the likelier first, until the bot knows one."""
    from matrix_pypi_bot.cli.bot_client import NotKnown
    from matrix_pypi_bot.wire.messages import API
    from matrix_pypi_bot.wire.names import InvalidName, candidate_projects, normalise_project, parse_file_name

    paths = []
    name = Path(target).name
    try:
        file = parse_file_name(name)
        paths = [f"{project}/{file}" for project in candidate_projects(file)]
    except InvalidName:
        paths = [normalise_project(target)]
    unknown: NotKnown | None = None
    for path in paths:
        try:
            return bot.ask("GET", f"{API}/explain/{path}")
        except NotKnown as problem:
            unknown = unknown or problem
    raise unknown or InvalidName(f"{name} tells no project")


def show(explanation: Explanation) -> None:
    """Print it for people: the project, then each file with its decision and its evidence."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    about = [f"upstream {explanation.state}", f"page {explanation.view_age_seconds:.0f} s old"]
    about += [f"serial {explanation.serial}"] if explanation.serial is not None else []
    about += [f"room {explanation.room}"] if explanation.room else []
    console.print(Text.assemble((explanation.project, "bold"), "  ", ", ".join(about)), soft_wrap=True)
    for file, decision in explanation.files.items():
        style = "green" if decision.serves else "red"
        console.print(Text.assemble("\n", (file, "bold"), "  ", (f"{decision.action} {decision.rule}", style)))
        if decision.reason:
            console.print(Text(f"  {decision.reason}"), soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for one in explanation.evidence.get(file, ()):
            detail = " ".join(
                part for part in (one.detail, one.at, one.statement_id and f"({one.statement_id[:16]})") if part
            )
            table.add_row(Text(f"  {one.kind}"), Text((one.sha256 or "")[:16]), Text(detail))
        console.print(table)
