"""`matrix-pypi verify`: a client's own check of every hash, with keys that it pinned."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from matrix_pypi_bot.cli.options import bot_options

if TYPE_CHECKING:
    from matrix_pypi_bot.cli.mirrors import Mirror
    from matrix_pypi_bot.core.gathering import Pins
    from matrix_pypi_bot.core.locks import Wanted
    from matrix_pypi_bot.core.verifying import FileReport

_COLOURS: Final = {"ok": "green", "unattested": "yellow", "contradicted": "red", "refuted": "red"}
_LONG_WORK: Final = 20  # files


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="REQUIREMENTS|PYLOCK|UVLOCK|NAME==VERSION...")
@click.option(
    "--from", "addresses", multiple=True, metavar="URL", help="A mirror to ask. Default: those of the local stack."
)
@click.option(
    "--trust",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Whom to believe: a trust.yaml. Default: the bot's organisation, and whom its configuration trusts.",
)
@click.option(
    "--quorum",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many organisations must have hashed the bytes.",
)
@click.option(
    "--index", default="pypi", show_default=True, metavar="NAME", help="The index that statements must be about."
)
@click.option(
    "--trusted-root",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Check provenance too, under this Sigstore root. Default: that of the bot's configuration, if it has one.",
)
@click.option("--logged", is_flag=True, help="Count only statements that their organisation's log is proved to hold.")
@click.option("--no-bytes", is_flag=True, help="Do not fetch the files themselves from the mirrors.")
@click.option(
    "--allow-unattested", is_flag=True, help="Files that nobody attests are shown, and do not fail the check."
)
@bot_options
def command(
    targets: tuple[str, ...],
    addresses: tuple[str, ...],
    trust: Path | None,
    quorum: int,
    index: str,
    trusted_root: Path | None,
    *,
    logged: bool,
    no_bytes: bool,
    allow_unattested: bool,
    config: Path | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Check every hash of lock files against signed attestations, logs, provenance, and the bytes that mirrors send.

    No mirror is believed: signatures are checked with root keys that were pinned, and the logs' proofs with the logs' keys. A lock is
    a requirements file with hashes, a pylock.toml or a uv.lock. Of NAME==VERSION the hashes are taken that the first mirror lists.
    Mirrors named by --from are asked for pages and files as pip asks; those of the local stack only for what they attest already.

    Each file is ok, unattested, contradicted (somebody names or sends other bytes), or refuted. The exit code is 0 when all are ok.
    """
    import msgspec

    from matrix_pypi_bot.adapters.clock import SystemClock
    from matrix_pypi_bot.adapters.provenance.root import open_verifier
    from matrix_pypi_bot.cli.verification import Verification
    from matrix_pypi_bot.core.instants import Instant
    from matrix_pypi_bot.core.verifying import Bar
    from matrix_pypi_bot.process.command_line import ExitCode
    from matrix_pypi_bot.wire.problems import clean_line

    wanted, mirrors = _wanted(targets), _mirrors(addresses, home)
    pins, root = _pins(trust, config, home)
    verification = Verification(
        mirrors=mirrors,
        pins=pins,
        bar=Bar(needed=quorum, index=index, in_log=logged),
        with_bytes=not no_bytes,
        as_installer=bool(addresses),
        now=Instant.of_ms(SystemClock().now_ms()),
        verifier=open_verifier(trusted_root or root),
    )
    with _progress(len(wanted)) as progress:
        reports = verification.run(wanted, progress)
    for problem in verification.away.values():
        click.echo(f"warning: {clean_line(problem.detail)}", err=True)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"files": reports}), indent=2).decode())
    else:
        _show(reports)
    good = {"ok", "unattested"} if allow_unattested else {"ok"}
    if not all(report.status in good for report in reports):
        sys.exit(ExitCode.NO)


def _wanted(targets: Sequence[str]) -> list[Wanted]:
    from matrix_pypi_bot.core.locks import MAX_LOCK_BYTES, UnreadableLock, pinned_version, read_lock

    found: list[Wanted] = []
    for target in targets:
        path = Path(target)
        if not path.is_file() and (one := pinned_version(target)) is not None:
            found.append(one)
            continue
        try:
            with path.open("rb") as file:
                found += read_lock(path.name, file.read(MAX_LOCK_BYTES + 1))
        except OSError as error:
            raise UnreadableLock(
                f"{target}: {error.strerror}", hint="name a lock file, or one release as NAME==VERSION"
            ) from error
    if not found:
        raise UnreadableLock("there is nothing to verify in it")
    return found


def _mirrors(addresses: Sequence[str], home: Path | None) -> list[Mirror]:
    from matrix_pypi_bot.cli.bot_client import read_stack
    from matrix_pypi_bot.cli.mirrors import Mirror
    from matrix_pypi_bot.process.setting_types import HttpUrl

    if not addresses:
        return [Mirror(str(org["frontend"])) for org in read_stack(home)]
    try:
        return [Mirror(HttpUrl.from_setting(one, Path("/")).rstrip("/")) for one in dict.fromkeys(addresses)]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--from") from error


def _pins(trust: Path | None, config: Path | None, home: Path | None) -> tuple[Pins, Path | None]:
    """Whom to believe: the trust file alone, or the bot's own organisation and whom it trusts; then also its Sigstore root."""
    from matrix_pypi_bot.cli.bot_client import find_settings
    from matrix_pypi_bot.core.gathering import Pins
    from matrix_pypi_bot.core.keyring import PinnedOrg
    from matrix_pypi_bot.core.signers import MIRROR, WATCHER, SigningKey
    from matrix_pypi_bot.process.secret_files import read_seed
    from matrix_pypi_bot.process.settings import ConfigurationProblem
    from matrix_pypi_bot.trust_file import Trust, load_trust

    if trust is not None:
        told = load_trust(trust, own="")
        if not told.orgs:
            raise ConfigurationProblem(
                f"{trust} pins no organisation", hint="matrix-pypi keys show prints what belongs there"
            )
        return Pins(orgs=told.orgs, maintainers=told.maintainers or {}, publishers=told.publishers or {}), None
    settings = find_settings(config, home)
    organisation = settings.organisation
    told = Trust() if settings.trust.file is None else load_trust(settings.trust.file, own=organisation.name)
    own = PinnedOrg(
        name=organisation.name,
        roots=(SigningKey(read_seed(organisation.root_key_file)).public,),
        threshold=1,
        roles=frozenset({MIRROR, WATCHER}),
    )
    pins = Pins(
        orgs=(own, *told.orgs),
        maintainers=told.maintainers or {},
        publishers=told.publishers or {},
        quorum=settings.policy.quorum,
    )
    return pins, settings.provenance.trusted_root_file


@contextmanager
def _progress(files: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal while there is much to do."""
    if files < _LONG_WORK or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=files)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(reports: Sequence[FileReport]) -> None:
    """One line a file, and one for all."""
    from matrix_pypi_bot.wire.problems import clean_line

    width = max(len(report.status) for report in reports)
    for report in reports:
        name = report.file or f"{report.project} {report.version or ''} {''.join(report.sha256)[:16]}".rstrip()
        parts = [", ".join(report.orgs)] if report.orgs else []
        parts += [f"in the log of {', '.join(report.logged)}"] if report.logged else []
        parts += ["built by its maintainer"] if report.built_by_maintainer else []
        parts += [f"published by {', '.join(report.published_by)}"] if report.published_by else []
        parts += [*report.reasons, *report.notes]
        status = click.style(f"{report.status:<{width}}", fg=_COLOURS[report.status])
        click.echo(f"{status}  {name}  {clean_line('; '.join(parts), 500)}".rstrip())
    counts = Counter(str(report.status) for report in reports)
    click.echo(", ".join(f"{counts[status]:,} {status}" for status in _COLOURS if counts[status]))
