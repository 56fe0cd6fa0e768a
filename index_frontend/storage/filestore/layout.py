"""Where everything lies in a store's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from index_frontend.ports import Held
from matrix_pypi_bot.wire.cids import Cid, InvalidCid, parse_cid
from matrix_pypi_bot.wire.digests import InvalidDigest, Sha256, parse_sha256

_SIZE_CHARACTERS: Final = 20
_OURS: Final = (".part", ".node", ".pin", ".lock")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a store in `root`. Paths of files are made of digests that were parsed, never of text from outside."""

    root: Path

    @property
    def files(self) -> Path:
        """Complete files."""
        return self.root / "files"

    @property
    def nodes(self) -> Path:
        """Inner nodes of the files of more than one leaf."""
        return self.root / "nodes"

    @property
    def pins(self) -> Path:
        """What may never be evicted: a file for each, with the pin's name in it."""
        return self.root / "pins"

    @property
    def damaged(self) -> Path:
        """Files that are not what they were, until they are repaired."""
        return self.root / "damaged"

    @property
    def tmp(self) -> Path:
        """Files on their way in, on the same filesystem."""
        return self.root / "tmp"

    @property
    def index(self) -> Path:
        """The SQLite index."""
        return self.root / "index.sqlite"

    @property
    def index_lock(self) -> Path:
        """Held while a process opens the index or makes it anew."""
        return self.root / "index.lock"

    def file(self, sha256: Sha256) -> Path:
        """The complete file, two levels down, so that no folder holds more than a few hundred names."""
        return self.root / "files" / sha256[:2] / sha256[2:4] / sha256

    def part(self, sha256: Sha256) -> Path:
        """The file while it is being written."""
        return self.root / "tmp" / f"{sha256}.part"

    def node(self, cid: Cid) -> Path:
        """An inner node."""
        return self.root / "nodes" / cid

    def node_part(self, sha256: Sha256) -> Path:
        """A node of the file while it is being written."""
        return self.root / "tmp" / f"{sha256}.node"

    def pin(self, sha256: Sha256) -> Path:
        """The pin of a file."""
        return self.root / "pins" / sha256

    def pin_part(self, sha256: Sha256) -> Path:
        """The pin while it is being written."""
        return self.root / "tmp" / f"{sha256}.pin"

    def turn(self, work: str) -> Path:
        """Locked by the process whose turn it is to do some work that one process does at a time."""
        return self.root / f"{work}.lock"

    def lock(self, sha256: Sha256) -> Path:
        """Locked by the process that writes the file; holds the length of the whole once it is known."""
        return self.root / "tmp" / f"{sha256}.lock"

    def leftovers(self, sha256: Sha256) -> tuple[Path, ...]:
        """What may lie in tmp of an object that nobody writes."""
        return tuple(self.tmp / f"{sha256}{suffix}" for suffix in _OURS if suffix != ".lock")

    def unfinished(self) -> Iterator[Sha256]:
        """Every object of which something lies in tmp."""
        names = {entry.name.partition(".")[0] for entry in self.tmp.iterdir() if entry.suffix in _OURS}
        return _digests(names)

    def complete(self, digit: str) -> Iterator[Sha256]:
        """Every object that lies in files and whose digest begins with this digit."""
        return _digests(path.name for path in self.files.glob(f"{digit}?/??/*"))

    def aside(self, held: Held) -> Path:
        """A damaged file. Its name says all that is to be known of what it was."""
        return self.root / "damaged" / f"{held.sha256}.{held.size}.{held.cid}"

    def all_aside(self) -> Iterator[Held]:
        """Every damaged file, as it was when it was whole, but where it lies now."""
        for path in self.damaged.iterdir():
            sha256, _, rest = path.name.partition(".")
            size, _, cid = rest.partition(".")
            if size.isascii() and size.isdigit() and len(size) < _SIZE_CHARACTERS:
                with suppress(InvalidDigest, InvalidCid):  # not ours
                    yield Held(sha256=parse_sha256(sha256), size=int(size), cid=parse_cid(cid), path=path)

    def pinned(self) -> Iterator[Sha256]:
        """Every object that has a pin."""
        return _digests(path.name for path in self.pins.iterdir())

    def all_nodes(self) -> Iterator[Cid]:
        """Every node that lies in nodes."""
        for path in self.nodes.iterdir():
            try:
                yield parse_cid(path.name)
            except InvalidCid:  # not ours
                continue


def _digests(names: Iterable[str]) -> Iterator[Sha256]:
    for name in names:
        try:
            yield parse_sha256(name)
        except InvalidDigest:  # not ours
            continue
