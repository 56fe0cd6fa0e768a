"""`matrix-pypi attest`: a maintainer signs what he built."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from matrix_pypi_bot.cli.options import bot_options

if TYPE_CHECKING:
    from matrix_pypi_bot.core.envelope import Envelope
    from matrix_pypi_bot.core.instants import Instant
    from matrix_pypi_bot.core.signers import SigningKey

_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A file that a maintainer built, hashed."""

    name: str
    sha256: str
    size: int
    cid: str


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    default="maintainer_key",
    show_default=True,
    metavar="FILE",
    help="The maintainer's key, made by `keys new-maintainer`.",
)
@click.option("--index", default="pypi", show_default=True, metavar="NAME", help="The index to which it is uploaded.")
@click.option("--send", is_flag=True, help="Give the statements to the bot (-c or --home) instead of printing them.")
@bot_options
def command(
    files: tuple[Path, ...], key: Path, index: str, *, send: bool, config: Path | None, home: Path | None, as_json: bool
) -> None:
    """Sign that you built these files: their sha256, size and CID.

    Prints what you paste into the project's Matrix room, one line a file: `!pypi attest ...`. Mirrors that know your key then compare
    with it what the index names. What was signed is written beside the key, into KEY.signed: a second digest under the name
    of a file that was signed once is refused, because two of them would convict the key.
    """
    import json

    from matrix_pypi_bot.adapters.clock import SystemClock
    from matrix_pypi_bot.core.instants import Instant
    from matrix_pypi_bot.core.signers import SigningKey
    from matrix_pypi_bot.process.secret_files import read_seed
    from matrix_pypi_bot.services.relay import write_blob

    signing = SigningKey(read_seed(key, hint="matrix-pypi keys new-maintainer makes it"))
    built = [_hashed(file) for file in files]
    now = Instant.of_ms(SystemClock().now_ms())
    envelopes = [_signed(one, signing, index, now) for one in built]
    _note(key, built)
    for one, envelope in zip(built, envelopes, strict=True):
        if send:
            _send(envelope, config, home)
        elif as_json:
            click.echo(json.dumps(envelope.to_json()))
        else:
            click.echo(f"{one.name}  sha256 {one.sha256}", err=True)
            click.echo(f"!pypi attest {write_blob(envelope.to_json())}")


def _hashed(path: Path) -> Built:
    """Reads the file once."""
    from matrix_pypi_bot.core.limits import MAX_FILE_BYTES
    from matrix_pypi_bot.wire.cids import CidBuilder
    from matrix_pypi_bot.wire.names import is_attestable

    if not is_attestable(path.name):
        raise click.BadParameter(f"{path.name} is not the name of a wheel or a source distribution", param_hint="FILE")
    digest, builder, size = hashlib.sha256(), CidBuilder(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                builder.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}", param_hint="FILE") from error
    if not 0 < size <= MAX_FILE_BYTES:
        raise click.BadParameter(f"{path} has {size} bytes", param_hint="FILE")
    return Built(name=path.name, sha256=digest.hexdigest(), size=size, cid=builder.finish())


def _signed(built: Built, key: SigningKey, index: str, now: Instant) -> Envelope:
    """The statement, checked as those will check it who know the key. Its number is the time: there is no memory of a chain here."""
    from matrix_pypi_bot.core.events import check_envelope, sign_statement
    from matrix_pypi_bot.core.keyring import MAINTAINER_ORG
    from matrix_pypi_bot.core.signers import MAINTAINER, PinnedKey
    from matrix_pypi_bot.core.statements.attestation import Attestation, Source
    from matrix_pypi_bot.core.statements.common import SignedBy
    from matrix_pypi_bot.wire.digests import Sha256
    from matrix_pypi_bot.wire.names import parse_file_name, project_and_version

    project, version = project_and_version(parse_file_name(built.name))
    attestation = Attestation(
        project=project,
        version=version,
        size=built.size,
        source=Source(kind="build", method="bytes", index=index),
        expires=None,
        told_cid=built.cid,
        signer=SignedBy(org=MAINTAINER_ORG, key=key.keyid),
        seq=int(now),
        prev=None,
        issued=now,
    )
    envelope = sign_statement({built.name: Sha256(built.sha256)}, attestation, key)
    known = PinnedKey(
        public=key.public, org=MAINTAINER_ORG, roles=frozenset({MAINTAINER}), projects=frozenset({project})
    )
    return check_envelope(envelope.to_json(), {key.keyid: known}, Attestation).envelope


def _note(key: Path, built: list[Built]) -> None:
    """Writes down what is signed, as sha256sum does; raises Problem when another digest was signed under one of the names."""
    from matrix_pypi_bot.process.secret_files import write_private
    from matrix_pypi_bot.wire.problems import Problem, ProblemCode

    file = key.with_name(f"{key.name}.signed")
    try:
        signed = _read_notes(file)
        for one in built:
            if signed.setdefault(one.name, one.sha256) != one.sha256:
                raise Problem(
                    f"{one.name} was signed with another digest before, {signed[one.name][:12]}: nothing is signed now",
                    hint="an index never takes a name twice either: build it as another version",
                    code=ProblemCode.REFUSED,
                )
        write_private(file, "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(signed.items())))
    except OSError as error:
        raise Problem(f"cannot write {file}: {error.strerror}", code=ProblemCode.CONFIGURATION) from error


def _read_notes(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="ascii", errors="replace").splitlines() if file.exists() else []
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def _send(envelope: Envelope, config: Path | None, home: Path | None) -> None:
    import json

    from matrix_pypi_bot.cli.bot_client import find_bot
    from matrix_pypi_bot.wire.messages import API, Relayed, decode_as

    body = json.dumps(envelope.to_json()).encode()
    told = decode_as(Relayed, find_bot(config, home, operator=True).ask("POST", f"{API}/statements", body))
    click.echo(f"{told.file}: {'published' if told.new else 'known already'}, statement {told.statement_id}")
