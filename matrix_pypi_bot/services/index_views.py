"""What upstream lists, said in this organisation's name: so that others notice what upstream hides from them, and rebuild its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.core.events import post_of
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import MAX_INDEX_VIEW_SECONDS
from matrix_pypi_bot.core.list_document import MAX_LIST_BYTES, list_document
from matrix_pypi_bot.core.statements.index import IndexView
from matrix_pypi_bot.ports import PROJECT_ROOM, Transaction
from matrix_pypi_bot.services.known import Known, View
from matrix_pypi_bot.services.signing import Chain, Voice
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.names import ProjectName

MAX_ROOTS: Final = 10_000
RENEW_MS: Final = 48 * 3_600_000  # before it expires, a third of its life


@dataclass(frozen=True, slots=True)
class IndexViews:
    """Says them with the organisation's voice."""

    voice: Voice
    index_name: str
    _roots: LRUCache[ProjectName, tuple[Sha256, Sha256 | None]] = field(default_factory=lambda: LRUCache(MAX_ROOTS))

    async def say(self, tables: Transaction, known: Known, *, now_ms: int) -> bool:
        """Whether the project's list was said anew: upstream shows another one than the one said last, or that one is old.

        Only of projects of which a file was accepted here: nobody else asks what the others look like. The list is kept beside it.
        """
        view = known.view
        if view is None or view.state != "live" or not known.accepted:
            return False
        page_root, root = self._roots.get(known.project, (None, None))
        body = None
        if page_root != view.root:  # spelling a list of thousands takes a tenth of a second
            body = list_document(view.page.files.values())
            root = sha256_of(body) if len(body) <= MAX_LIST_BYTES else None
            self._roots[known.project] = view.root, root
        if root is None:
            return False  # nobody would read it
        last = await tables.ledger.last_index(self.voice.keyid, known.project)
        if last is not None and last.sha256 == root and 0 <= now_ms - last.first_seen_ms < RENEW_MS:
            return False
        await tables.ledger.keep_document(root, body or list_document(view.page.files.values()))
        subjects = {str(known.project): root}
        checked = await self.voice.say(tables, subjects, self._predicate(known, view), file=None, now_ms=now_ms)
        post = post_of(checked)
        content = json.dumps(post.content, sort_keys=True, separators=(",", ":")).encode()
        await tables.mail.send(f"{PROJECT_ROOM}{known.project}", post.type, post.state_key, content, now_ms)
        return True

    def _predicate(self, known: Known, view: View) -> Callable[[Chain], IndexView]:
        def predicate(chain: Chain) -> IndexView:
            signer, seq, prev, issued = chain
            return IndexView(
                project=known.project,
                index=self.index_name,
                serial=view.page.serial,
                status=view.page.status,
                count=len(view.page.files),
                expires=Instant(issued + MAX_INDEX_VIEW_SECONDS),
                signer=signer,
                seq=seq,
                prev=prev,
                issued=issued,
            )

        return predicate
