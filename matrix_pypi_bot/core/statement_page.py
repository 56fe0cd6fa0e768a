"""Files as a page lists them, made of what others attest: for the time in which upstream shows no page, or one that is older.

What an entry says beside the digest counts when as many organisations agree on it as a quorum needs; a digest is chosen by nobody
here: `decide` is told of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

from matrix_pypi_bot.core.claims import Claim, Facts
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.list_document import Listed
from matrix_pypi_bot.core.standing import Standing
from matrix_pypi_bot.core.witnesses import Witnesses
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName

T = TypeVar("T")
Lists: TypeAlias = Mapping[str, Mapping[FileName, Listed]]
"""By organisation, what its newest index statement lists."""

NO_LISTS: Final[Lists] = {}


def attested_files(
    witnesses: Mapping[FileName, Witnesses],
    standing: Standing,
    *,
    known: Callable[[FileName], bool],
    serial: int | None,
    lists: Lists = NO_LISTS,
) -> dict[FileName, IndexFile]:
    """An entry for each attested file that is not `known` here, and that others saw after the page with `serial` was shown.

    A page that upstream showed without the file tells that it was removed, unless as many organisations as a quorum needs saw the file
    at a later serial. `serial` None: no page was ever shown here. `lists` are what organisations last saw upstream list.
    """
    return {
        file: entry_of(file, one, standing, lists)
        for file, one in witnesses.items()
        if one.digests and not known(file) and (serial is None or _later(one.claims, serial) >= standing.needed)
    }


def entry_of(file: FileName, witnesses: Witnesses, standing: Standing, lists: Lists = NO_LISTS) -> IndexFile:
    """The entry of an attested file, saying the digest that most organisations name. It has no address at upstream."""
    digest = max(witnesses.digests, key=lambda one: (len(witnesses.digests[one].hashed), one))
    claims = {claim.org: claim for claim in witnesses.claims if claim.subject == digest}  # the newest of each
    facts = {org: _newest(claim, lists) for org, claim in claims.items()}
    common = _common(list(facts.values()), standing.needed)
    metadata = _metadata({org: told.core_metadata for org, told in facts.items()}, standing)
    return IndexFile(
        name=file,
        sha256=digest,
        url="",
        size=common.size,
        requires_python=common.requires_python,
        yanked=common.yanked or False,
        core_metadata=False if metadata is None else metadata,
        upload_time=_agreed([claim.upload_time for claim in claims.values()], standing.needed),
        provenance=None,
        extras={},
    )


def _metadata(told: Mapping[str, Sha256 | None], standing: Standing) -> Sha256 | None:
    """METADATA's digest, where it rests on as many as the file itself in mode `acked`; else it is read from the file.

    What it names gets installed, and whoever reviewed the file compared nothing of it.
    """
    digests = set(told.values()) - {None}
    silent = [org for org in standing.watchers if told.get(org) is None]
    enough = sum(one is not None for one in told.values()) >= standing.needed
    return digests.pop() if len(digests) == 1 and enough and len(silent) <= standing.acks_missing_allowed else None


def _common(told: Sequence[Facts], needed: int) -> Facts:
    """What enough organisations say alike of a file, word by word; of its METADATA and its CID nothing."""
    if len(told) >= needed and told.count(told[0]) == len(told):
        return told[0]
    return Facts(
        size=_agreed([one.size for one in told], needed),
        requires_python=_agreed([one.requires_python for one in told], needed),
        yanked=_agreed([one.yanked for one in told], needed) or False,
    )


def _agreed(told: Sequence[T], needed: int) -> T | None:
    """What enough organisations say alike; each has one voice."""
    enough = {value for value in told if told.count(value) >= needed}
    return enough.pop() if len(enough) == 1 else None


def _newest(claim: Claim, lists: Lists) -> Facts:
    """What the organisation says of the file: what it last saw listed, where that is the file it attested, else what it attested."""
    listed = lists.get(claim.org, {}).get(claim.file)
    if listed is None or listed.sha256 != claim.subject:
        return claim.facts
    return Facts(
        size=claim.facts.size if listed.size is None else listed.size,
        cid=claim.facts.cid,
        core_metadata=None if listed.core_metadata is None else Sha256(listed.core_metadata),
        requires_python=listed.requires_python,
        yanked=listed.yanked,
    )


def _later(claims: Iterable[Claim], serial: int) -> int:
    return len({claim.org for claim in claims if claim.serial is not None and claim.serial > serial})
