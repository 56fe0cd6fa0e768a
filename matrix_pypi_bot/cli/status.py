"""`matrix-pypi status`: figures of a running stack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from matrix_pypi_bot.devstack.status import Holding, OrgStatus, ProcessStatus
    from matrix_pypi_bot.wire.messages import PeerTold


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The stack that was started by `matrix-pypi up --home DIR`. Default: that of plain `up`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(home: Path | None, as_json: bool) -> None:
    """How the local stack is: its organisations and processes, what is held where, what is logged, which mail waits, who the peers are.

    The storage's figures are at most 10 s old. Exit code 0 when everything is ready, 1 when something is not, 4 when no stack runs.
    """
    import msgspec

    from matrix_pypi_bot.devstack.home import default_home
    from matrix_pypi_bot.devstack.status import look
    from matrix_pypi_bot.process.command_line import ExitCode

    stack = look(home or default_home())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(stack), indent=2).decode())
    else:
        from rich.console import Console

        console = Console(highlight=False)
        console.print(f"{stack.home}  mirrors {stack.upstream}", soft_wrap=True, markup=False)
        for org in stack.orgs:
            show(org)
    if not all(org.is_ready for org in stack.orgs):
        sys.exit(ExitCode.NO)


def show(org: OrgStatus) -> None:
    """For people."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text.assemble("\n", (org.name, "bold"), f"  {org.server_name}  {org.simple}"), soft_wrap=True)
    console.print(_processes(org.processes))
    if org.holdings:
        console.print(_held(org.holdings))
    if org.figures is not None:
        told = org.figures
        line = f"  {told.log_leaves:,} statements logged, {told.rooms:,} rooms; to send: {told.queued:,}, to read: {told.unread:,}"
        console.print(line, soft_wrap=True)
        for peer in told.peers:
            console.print(_peer(peer), soft_wrap=True)
        if told.aside or told.unreadable:
            console.print(
                f"  [yellow]put away for you to look at:[/] {told.aside:,} messages not sent, {told.unreadable:,} events not read"
            )


def _peer(peer: PeerTold) -> Text:
    from rich.text import Text

    where = peer.gateway or "no gateway known"
    until = "announced nothing" if peer.announced_until is None else f"announced until {peer.announced_until}"
    return Text.assemble(f"  peer {peer.org}  {where}  ", ("as configured" if peer.configured else until, "dim"))


def _processes(processes: tuple[ProcessStatus, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for one in processes:
        state = ("ready", "green") if one.ready else ("not ready", "yellow") if one.alive else ("dead", "red")
        pid = f"process {one.pid}" if one.pid else ""
        table.add_row(f"  {one.name}", Text(*state), pid, one.url, Text(one.detail, "dim"))
    return table


def _held(holdings: tuple[Holding, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "degraded": "yellow"}
    table = Table("  storage", "health", "files", "to copy", "held", "limit", "pinned", box=None, padding=(0, 2, 0, 0))
    for one in holdings:
        table.add_row(
            f"  {one.backend}",
            Text(one.health, colours.get(one.health, "red")),
            _count(one.files),
            _count(one.uncopied_files),
            _size(one.bytes),
            _size(one.limit_bytes),
            _count(one.pinned_files),
        )
    return table


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _size(count: int | None) -> str:
    from matrix_pypi_bot.process.command_line import readable_size

    return "" if count is None else readable_size(count)
