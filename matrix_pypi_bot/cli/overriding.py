"""What `approve`, `quarantine` and `release` have in common: one signed, logged decision of an operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from matrix_pypi_bot.cli.options import bot_options

if TYPE_CHECKING:
    from matrix_pypi_bot.wire.messages import OverrideDone

Action = Literal["approve", "quarantine", "release"]

target_argument = click.argument("target", metavar="FILE|PROJECT")
reason_option = click.option(
    "--reason", required=True, metavar="TEXT", help="Why, for the public log. At most 200 characters."
)
options = bot_options

_MAX_REASON = 200
_MAX_NAMED = 3


def decide(
    action: Action,
    target: str,
    reason: str,
    *,
    sha256: str | None = None,
    config: Path | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Have the bot sign the decision with the operator's token, and show how the files stand now."""
    import msgspec

    from matrix_pypi_bot.cli.bot_client import find_bot
    from matrix_pypi_bot.wire.messages import API, Override, OverrideDone, decode_as, encode

    if not reason.strip() or len(reason) > _MAX_REASON:
        raise click.UsageError(f"--reason takes 1 to {_MAX_REASON} characters")
    override = Override(action=action, target=_name(target), reason=reason, sha256=sha256)
    data = find_bot(config, home, operator=True).ask("POST", f"{API}/overrides", encode(override))
    if as_json:
        click.echo(msgspec.json.format(data, indent=2).decode())
    else:
        _show(action, decode_as(OverrideDone, data))


def _name(target: str) -> str:
    """`target` as the bot wants it: a safe file name or a normalised project. Raises InvalidName for what is neither."""
    from matrix_pypi_bot.wire.names import InvalidName, normalise_project, parse_file_name

    try:
        return parse_file_name(target)
    except InvalidName:
        return normalise_project(target)


def _show(action: Action, done: OverrideDone) -> None:
    """One line for each way in which files stand now; the files themselves where they are few."""
    click.echo(f"{action}: {done.file or done.project} (statement {done.statement_id})")
    alike: dict[tuple[str, str, str], list[str]] = {}
    for file, decision in done.decisions.items():
        alike.setdefault((decision.action, decision.rule, decision.reason), []).append(file)
    for (word, rule, reason), files in alike.items():
        named = ", ".join(files) if len(files) <= _MAX_NAMED else f"{len(files)} files"
        click.echo(f"  {word} {rule}  {named}{f'  {reason}' if reason else ''}")
