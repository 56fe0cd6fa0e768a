"""Inner nodes on the disk, each in a file named by its CID. They can be made anew from the files at any time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from index_frontend.dag.blocks import MAX_BLOCK_BYTES, BadBlock, check_block
from index_frontend.ports import Damaged, StorageBroken
from index_frontend.storage.filestore.disk import Disk, told
from index_frontend.storage.filestore.graph import Graph, Node
from index_frontend.storage.filestore.layout import Layout
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256


class Nodes:
    """All calls block: make them in a thread."""

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._layout = layout
        self._disk = disk

    def write(self, sha256: Sha256, graph: Graph) -> None:
        """The nodes of a file are there and durable; under the file's claim. Raises StorageFull or StorageBroken.

        Those that are there already, and right, are left alone.
        """
        missing = [node for node in graph.nodes if not self._has(node)]
        for node in missing:
            self._write(self._layout.node_part(sha256), node)
        if missing:
            self._disk.sync_folder(self._layout.nodes)

    def read(self, cid: Cid) -> bytes:
        """The node's bytes, checked. Raises Damaged when they are not what their name says, or gone."""
        data = self._read(self._layout.node(cid))
        if data is None:
            raise Damaged(f"the stored node {cid} is gone")
        try:
            check_block(cid, data)
        except BadBlock as bad:
            raise Damaged(f"the stored node {cid} was changed after it was stored") from bad
        return data

    def remove(self, cid: Cid) -> None:
        """No error when it is not there. Raises StorageBroken."""
        self._disk.remove(self._layout.node(cid))

    def all(self) -> Iterator[Cid]:
        """Every node that lies there, in no order."""
        return self._layout.all_nodes()

    def _has(self, node: Node) -> bool:
        return self._read(self._layout.node(node.cid)) == node.data

    def _write(self, part: Path, node: Node) -> None:
        self._disk.remove(part)
        descriptor = self._disk.create(part)
        try:
            self._disk.append(descriptor, node.data)
            self._disk.seal(descriptor)
            self._disk.sync(descriptor)
            self._disk.publish(part, self._layout.node(node.cid))
        except BaseException:
            self._disk.remove(part)
            raise
        finally:
            os.close(descriptor)

    def _read(self, path: Path) -> bytes | None:
        """What lies there, None for nothing. Raises StorageBroken."""
        try:
            with told("read", path), path.open("rb", buffering=0) as file:
                return file.read(MAX_BLOCK_BYTES + 1)
        except StorageBroken as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                return None
            raise
