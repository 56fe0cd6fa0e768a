"""A frontend's report, checked before anything is done with it, and the attestation that follows from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, UnsetType

from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.limits import MAX_FILE_BYTES, MAX_TEXT_CHARACTERS
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.statements.attestation import Attestation, CoreMetadata, Source
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.services.signing import Chain
from matrix_pypi_bot.wire.cids import RAW, InvalidCid, raw_cid, split_cid
from matrix_pypi_bot.wire.digests import Sha256, parse_sha256
from matrix_pypi_bot.wire.messages import Stored
from matrix_pypi_bot.wire.names import FileName, parse_file_name, parse_project, project_and_version
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

ONE_BLOCK_BYTES: Final = 1 << 20  # up to here the CID follows from the sha256, above it the frontend is believed
SOURCES: Final = frozenset({"upstream", "peer", "kubo", "cache"})

_UPLOAD_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z", re.ASCII)


def read_report(stored: Stored) -> Stored:
    """`stored` when it can be true: names, digest, size, source and CID in their forms, the CID that of the digest.

    Raises Problem (BAD_REQUEST or INVALID_NAME).
    """
    parse_project(stored.project)
    parse_file_name(stored.file)
    sha256 = parse_sha256(stored.sha256)
    if not 0 <= stored.size <= MAX_FILE_BYTES or stored.source not in SOURCES:
        raise Problem("a size or a source that cannot be", code=ProblemCode.BAD_REQUEST)
    one_block = stored.size <= ONE_BLOCK_BYTES
    if one_block != (split_cid(stored.cid).codec == RAW) or (one_block and stored.cid != raw_cid(sha256)):
        raise InvalidCid("the CID is not that of a file with this digest and size")
    return stored


def draft(
    known: Known, report: Stored, listed: IndexFile, *, index_name: str
) -> tuple[dict[str, Sha256], Callable[[Chain], Attestation]]:
    """The subject, and the attestation once its place in the chain is known.

    Raises InvalidName for a name without a version, Rejected for one that tells another project (`a-1-b-2.zip` is ambiguous).
    """
    project, version = project_and_version(FileName(report.file))
    if project != known.project:
        raise Rejected(Code.NAME_MISMATCH, f"the name tells {project}")
    serial = known.view.page.serial if known.view is not None else None
    source = Source(
        kind="pypi",
        method="bytes",
        index=index_name,
        serial=UNSET if serial is None else serial,
        upload_time=_upload_time(listed.upload_time),
    )
    metadata = listed.core_metadata
    ext: dict[str, object] = {}
    if listed.requires_python is not None and len(listed.requires_python) <= MAX_TEXT_CHARACTERS:
        ext["requiresPython"] = listed.requires_python
    if listed.yanked:
        ext["yanked"] = listed.yanked if isinstance(listed.yanked, bool) else listed.yanked[:MAX_TEXT_CHARACTERS]

    def predicate(chain: Chain) -> Attestation:
        signer, seq, prev, issued = chain
        return Attestation(
            project=project,
            version=version,
            size=report.size,
            source=source,
            expires=None,
            told_cid=report.cid,
            core_metadata=UNSET if isinstance(metadata, bool) else CoreMetadata(sha256=metadata),
            ext=ext or UNSET,
            signer=signer,
            seq=seq,
            prev=prev,
            issued=issued,
        )

    return {report.file: Sha256(report.sha256)}, predicate


def _upload_time(told: str | None) -> str | UnsetType:
    return told if told is not None and _UPLOAD_TIME.fullmatch(told) else UNSET
