"""Reviews as statements: what was compared with upstream here, a few dozen files each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, cast

from msgspec import UNSET

from matrix_pypi_bot.core.statements.review import Review
from matrix_pypi_bot.services.signing import Chain
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

FILES_EACH: Final = 32
"""Files a statement: with names as long as they may be, and their digests, that stays below 16 KiB."""

Word = Literal["ok", "bad", "unknown"]


def review_statements(
    project: ProjectName, index: str, found: Mapping[FileName, tuple[Sha256, str]], *, serial: int | None
) -> Iterator[tuple[dict[str, Sha256], Callable[[Chain], Review]]]:
    """Subjects and predicate of each review that says the words in `found`, by file: (digest, word)."""
    items = sorted(found.items())
    for start in range(0, len(items), FILES_EACH):
        batch = items[start : start + FILES_EACH]
        words = tuple(cast(Word, word) for _, (_, word) in batch)
        yield {file: digest for file, (digest, _) in batch}, _predicate(project, index, words, serial)


def _predicate(
    project: ProjectName, index: str, words: tuple[Word, ...], serial: int | None
) -> Callable[[Chain], Review]:
    def predicate(chain: Chain) -> Review:
        signer, seq, prev, issued = chain
        return Review(
            project=project,
            index=index,
            verdicts=words,
            serial=UNSET if serial is None else serial,
            signer=signer,
            seq=seq,
            prev=prev,
            issued=issued,
        )

    return predicate
