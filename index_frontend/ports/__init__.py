"""What the frontend's parts promise one another. Handlers and fills are written against these, never against an adapter."""

from index_frontend.digest_gate import DigestMismatch, Verified
from index_frontend.ports.content import (
    BlockPlace,
    BlockStore,
    ContentStore,
    Damaged,
    Held,
    Part,
    StorageBroken,
    StorageFull,
    StorageProblem,
    Writer,
)  # fmt: skip
from index_frontend.ports.oracle import Oracle, Page, ProjectNames
from index_frontend.ports.sources import (
    Source,
    SourceAway,
    SourceBody,
    SourceGone,
    SourceWrong,
    known_to_others,
    nowhere,
)  # fmt: skip
from index_frontend.serve_plan import Wanted

__all__ = [
    "BlockPlace", "BlockStore", "ContentStore", "Damaged", "DigestMismatch", "Held", "Oracle", "Page", "Part",
    "ProjectNames", "Source", "SourceAway", "SourceBody", "SourceGone", "SourceWrong", "StorageBroken", "StorageFull",
    "StorageProblem", "Verified", "Wanted", "Writer", "known_to_others", "nowhere",
]  # fmt: skip
