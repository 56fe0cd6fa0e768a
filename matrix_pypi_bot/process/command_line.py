"""What every command line of ours does alike: exit codes, problems shown as two lines, commands imported when they are asked for."""

from __future__ import annotations

import enum
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Never

import click

from matrix_pypi_bot import __version__
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line


class ExitCode(enum.IntEnum):
    """What the shell is told."""

    DONE = 0
    NO = 1  # verification failed, refused, not found
    USAGE = 2
    CONFIGURATION = 3
    UNREACHABLE = 4  # something needed is not there


class NeededIsMissing(Problem):
    """Something that the command needs is not there: a process that does not answer, a port that is taken, a library."""


_CODES: Final[Mapping[ProblemCode, ExitCode]] = {
    ProblemCode.CONFIGURATION: ExitCode.CONFIGURATION,
    ProblemCode.UNAUTHORISED: ExitCode.CONFIGURATION,
    ProblemCode.BAD_REQUEST: ExitCode.USAGE,
    ProblemCode.INVALID_NAME: ExitCode.USAGE,
    ProblemCode.UPSTREAM_AWAY: ExitCode.UNREACHABLE,
    ProblemCode.UPSTREAM_WRONG: ExitCode.UNREACHABLE,
    ProblemCode.ORACLE_AWAY: ExitCode.UNREACHABLE,
    ProblemCode.FILE_UNAVAILABLE: ExitCode.UNREACHABLE,
    ProblemCode.STORAGE: ExitCode.UNREACHABLE,
}


def exit_code_of(problem: Problem) -> ExitCode:
    """The exit code that tells a script what kind of problem it was."""
    if isinstance(problem, NeededIsMissing):
        return ExitCode.UNREACHABLE
    return _CODES.get(problem.code, ExitCode.NO)


def fail(problem: Problem) -> Never:
    """Say what is wrong and what to do, on standard error, and exit."""
    click.echo(f"error: {clean_line(problem.detail, 2_000)}", err=True)
    if problem.hint:
        click.echo(f"hint: {clean_line(problem.hint, 2_000)}", err=True)
    sys.exit(exit_code_of(problem))


def readable_size(count: int) -> str:
    """Bytes for people, e.g. `1.4 GiB`."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1_024 and len(units) > 1:
        value /= 1_024
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def command_group(program: str, package: str, lines: Mapping[str, str]) -> Callable[[Callable[[], None]], click.Group]:
    """Makes a function, of which only the docstring counts, the command line `program`.

    Its commands live in modules of `package`, each as `command`; `lines` maps a command's name to its one-line help.
    """

    def decorate(function: Callable[[], None]) -> click.Group:
        named = click.version_option(__version__, prog_name=program)(function)
        context = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
        return click.group(cls=CommandGroup, package=package, lines=lines, context_settings=context)(named)

    return decorate


class CommandGroup(click.Group):
    """Commands of which each is imported when it is run, so that one does not pay for what another needs."""

    def __init__(self, *arguments: Any, package: str, lines: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._package = package
        self._lines = lines

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were given: the first to know come first."""
        return list(self._lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in self._lines:
            return None
        module = importlib.import_module(f"{self._package}.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """A Problem becomes its sentence, its hint and an exit code; anything else is a bug and keeps its traceback."""
        try:
            return super().invoke(ctx)
        except Problem as problem:
            fail(problem)
