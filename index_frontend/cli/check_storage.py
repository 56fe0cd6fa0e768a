"""`matrix-pypi-index check-storage`: the conformance suite on a backend of the configuration."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from index_frontend.cli.options import config_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from index_frontend.storage.suite import Outcome
    from index_frontend.storage.verified import Verified

_MARKS: Final = {"ok": ("ok", "green"), "failed": ("FAILED", "bold red"), "not applicable": ("-", "dim")}


@click.command()
@click.argument("name", metavar="NAME")
@config_option
@click.option(
    "--known",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="A file that the backend is known to have, for one that cannot store. May be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(name: str, config: Path, known: tuple[Path, ...], as_json: bool) -> None:
    """Try out the backend NAME, as it is configured, point by point.

    NAME is a key of `backends` in the configuration, or `file`, the store in `storage.folder`. It may be in use: the trial stores about
    60 MB of random files of its own, looks at no others, and removes them again.

    Exit code 0 when every point that applies is met, 1 when one is not, 3 when the configuration is wrong, 4 when the backend is down.
    """
    from index_frontend.cli.backends import maker, run
    from matrix_pypi_bot.process.command_line import ExitCode

    data = [path.read_bytes() for path in known]
    outcomes = run(_run(name, maker(config, name), data, as_json=as_json))
    if any(outcome.result == "failed" for outcome in outcomes):
        sys.exit(ExitCode.NO)


async def _run(name: str, make: Callable[[], Verified], known: Sequence[bytes], *, as_json: bool) -> list[Outcome]:
    """Every outcome, shown as soon as it is there. Raises NeededIsMissing when the backend is down."""
    from index_frontend.cli.backends import opened_well
    from index_frontend.storage.suite import check

    await (await opened_well(make())).close()
    show = _json if as_json else _Table(name)
    outcomes = []
    with show as shown:
        async for outcome in check(make, known=known):
            outcomes.append(outcome)
            shown(outcome)
    return outcomes


class _Json:
    """A line an outcome."""

    def __enter__(self) -> Callable[[Outcome], None]:
        import msgspec

        return lambda outcome: click.echo(msgspec.json.encode(outcome))

    def __exit__(self, *_: object) -> None: ...


_json = _Json()


class _Table:
    """A row an outcome, below them what is being tried, in the end how many of each kind."""

    def __init__(self, name: str) -> None:
        from rich.console import Console

        from index_frontend.storage.suite import points

        self._name = name
        self._console = Console(highlight=False)
        self._points = points()
        self._counts: Counter[str] = Counter()
        self._status: Any = self._console.status(self._points[0])

    def __enter__(self) -> Callable[[Outcome], None]:
        self._status.start()
        return self._row

    def _row(self, outcome: Outcome) -> None:
        from rich.text import Text

        mark, style = _MARKS[outcome.result]
        self._counts[outcome.result] += 1
        done = sum(self._counts.values())
        width = max(map(len, self._points))
        row = Text.assemble((f"{mark:>6}", style), "  ", f"{outcome.point:<{width}}", "  ", (outcome.detail, "dim"))
        row.rstrip()
        self._console.print(row, soft_wrap=True)
        following = self._points[done] if done < len(self._points) else ""
        self._status.update(f"{done}/{len(self._points)}  {following}")

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        told = ", ".join(f"{count} {result}" for result, count in self._counts.items())
        self._console.print(f"{self._name}: {told or 'nothing was tried'}")
