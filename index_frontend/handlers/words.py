"""What the bot says of a file, asked again while its bytes go out: clients read slowly, hosts send slowly, and files are withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from index_frontend.ports import Oracle
from index_frontend.serve_plan import Deny, Later, Wanted, judge
from matrix_pypi_bot.wire.names import FileName, FilePath
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

WHEREABOUTS_SECONDS: Final = 1.0  # there are other ways to the file
PEERS_SECONDS: Final = 6.0
"""With others pinned: the bot may take 5 s for a look at upstream before it tells who has the file, and then upstream is no way."""


class Withdrawn(Problem):
    """The file was refused after its answer was begun. `word` is the refusal."""

    code = ProblemCode.REFUSED

    def __init__(self, word: Deny) -> None:
        super().__init__(word.reason)
        self.word = word


class Words:
    """The oracle's decisions as what is to be done about them."""

    def __init__(self, oracle: Oracle, *, max_file_bytes: int) -> None:
        self._oracle = oracle
        self._max_file_bytes = max_file_bytes

    async def on(self, path: FilePath) -> Wanted | Deny | Later:
        """The word on the file at `path`. Raises what `Oracle.standing` raises."""
        decision = await self._oracle.standing(path)
        return judge(decision, metadata=path.metadata, max_file_bytes=self._max_file_bytes)

    async def with_whereabouts(self, wanted: Wanted) -> Wanted:
        """`wanted` with the CIDs that were attested, with the gateways of others, and the size if nobody told it and we attested it.

        As it is when the bot cannot be asked.
        """
        try:
            async with asyncio.timeout(PEERS_SECONDS if wanted.has_peers else WHEREABOUTS_SECONDS):
                decision = await self._oracle.whereabouts(wanted.project, FileName(wanted.file))
        except (Problem, TimeoutError):
            return wanted
        if decision.sha256 != (wanted.wheel if wanted.is_metadata else wanted.sha256):
            return wanted
        ours = bool(decision.attested_by)
        # Another's word on the size may be wrong; then the right bytes would be refused for it.
        size = decision.size if ours and wanted.size is None and not wanted.is_metadata else wanted.size
        return replace(
            wanted,
            cids=decision.cids,
            cids_are_ours=ours,
            size=size,
            peers=decision.peers,
            peer_origins=frozenset(decision.peer_origins),
        )

    async def still(self, path: FilePath, wanted: Wanted) -> None:
        """Raises Withdrawn when `wanted` is refused by now, or is another object.

        What is only unavailable now, or cannot be asked about, was decided when the answer was begun, and goes on.
        """
        try:
            word = await self.on(path)
        except Problem as problem:
            if problem.code is not ProblemCode.NOT_FOUND:
                return
            word = Deny(status=404, rule=wanted.rule, reason=problem.detail)
        if isinstance(word, Wanted) and word.sha256 != wanted.sha256:
            told = f"matrix-pypi: {wanted.name}: another digest is served from now on"
            word = Deny(status=403, rule=word.rule, reason=told)
        if isinstance(word, Deny):
            raise Withdrawn(word)

    async def while_allowed(
        self, path: FilePath, wanted: Wanted, pieces: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """`pieces`, each only if the file is not withdrawn. Raises Withdrawn."""
        async with aclosing(pieces):
            async for piece in pieces:
                await self.still(path, wanted)
                yield piece
