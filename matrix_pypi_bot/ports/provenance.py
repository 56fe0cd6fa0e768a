"""Provenance (PEP 740) as services see it: where documents come from, who verifies them, and what is kept of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from matrix_pypi_bot.core.provenance import Finding, Pin
from matrix_pypi_bot.ports.outside import Absent, Away, Wrong
from matrix_pypi_bot.wire.names import FileName, ProjectName


class NotProvenance(ValueError):
    """Bytes that are no provenance document at all; the text says why."""


@dataclass(frozen=True, slots=True)
class Document:
    """What stands at the address of a file's provenance, not read yet."""

    raw: bytes


class Documents(Protocol):
    """Where documents come from. Never raises for what the other side does."""

    async def fetch(self, url: str, *, opened: Collection[str]) -> Document | Absent | Away | Wrong:
        """The document at an address that a page named, within caps of time and bytes; `opened` as in `FetchedPage.opened_origins`."""
        ...


class Verifier(Protocol):
    """Checks signatures under one trusted root, offline: no call opens a connection."""

    root: str
    """Which root, and which version of the rules it is applied by."""

    async def document(self, file: FileName, raw: bytes) -> Finding:
        """What a whole document tells of `file`. Raises NotProvenance."""
        ...

    async def bundle(self, file: FileName, bundle: Mapping[str, object]) -> Finding:
        """The same of one attestation bundle, as a document holds it (`publisher` and `attestations`). Raises NotProvenance."""
        ...


class Proofs(Protocol):
    """What was verified, for ever: insert-only, refused otherwise by the database itself."""

    async def keep(
        self, project: ProjectName, file: FileName, *, root: str, raw: bytes, finding: Finding, at_ms: int
    ) -> bool:
        """Keeps the document and the finding. False, and nothing is kept, when that was done before, or it proves nothing and there
        are too many such."""
        ...

    async def pin(self, project: ProjectName, pin: Pin, at_ms: int) -> None:
        """The publishers of first sight. Nothing happens when the project has some."""
        ...

    async def pinned(self, project: ProjectName) -> Pin | None: ...

    async def findings(self, project: ProjectName, root: str) -> dict[FileName, Finding]:
        """The newest finding of each file under `root`."""
        ...

    async def document(self, project: ProjectName, file: FileName) -> bytes | None:
        """The document that was kept of the file last."""
        ...
