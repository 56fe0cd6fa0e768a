"""The rows of blocks: where the leaves and nodes of files of more than one leaf lie. About 100 bytes a MiB of a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from index_frontend.ports import BlockPlace
from index_frontend.storage.filestore.graph import Graph
from matrix_pypi_bot.wire.cids import Cid, format_cid, split_cid
from matrix_pypi_bot.wire.digests import Sha256


def places_of(connection: sqlite3.Connection, cid: Cid, limit: int) -> list[BlockPlace]:
    """One place in each of at most `limit` files."""
    query = """SELECT files.sha256, blocks.size, blocks.offset FROM blocks JOIN files ON files.id = blocks.file
        WHERE blocks.cid = ? LIMIT ?"""
    found = connection.execute(query, (_key(cid), limit)).fetchall()
    return [BlockPlace(cid=cid, sha256=Sha256(sha256), size=size, offset=offset) for sha256, size, offset in found]


def places_from(
    connection: sqlite3.Connection, cid: Cid, limit: int, ahead_bytes: int
) -> dict[Cid, tuple[BlockPlace, ...]]:
    """The places of a block; of a leaf also those of the leaves that follow it in its file, up to `ahead_bytes` further on."""
    places = {cid: tuple(places_of(connection, cid, limit))}
    first = next((place for place in places[cid] if place.offset is not None), None)
    if first is not None and first.offset is not None:
        query = """SELECT cid FROM blocks WHERE file = (SELECT id FROM files WHERE sha256 = ?)
            AND offset > ? AND offset <= ?"""
        found = connection.execute(query, (first.sha256, first.offset, first.offset + ahead_bytes)).fetchall()
        for (key,) in found:
            following = _cid(key)
            places.setdefault(following, tuple(places_of(connection, following, limit)))
    return places


def put_blocks(connection: sqlite3.Connection, sha256: Sha256, graph: Graph) -> None:
    """Writes the rows of a file that has a row itself. Of a leaf that is there twice the first place is enough."""
    if not graph.nodes:
        return
    (file,) = connection.execute("SELECT id FROM files WHERE sha256 = ?", (sha256,)).fetchone()
    insert = "INSERT OR IGNORE INTO blocks (cid, file, offset, size) VALUES (?, ?, ?, ?)"
    connection.executemany(insert, ((_key(node.cid), file, None, len(node.data)) for node in graph.nodes))
    connection.executemany(insert, ((_key(cid), file, offset, size) for cid, offset, size in graph.leaves()))


def drop_blocks(connection: sqlite3.Connection, sha256: Sha256, forget: Callable[[Cid], None]) -> None:
    """Removes the rows of a file; `forget` is told of every node that no other file has."""
    row = connection.execute("SELECT id FROM files WHERE sha256 = ?", (sha256,)).fetchone()
    if row is None:
        return
    nodes = connection.execute("SELECT cid FROM blocks WHERE file = ? AND offset IS NULL", row).fetchall()
    connection.execute("DELETE FROM blocks WHERE file = ?", row)
    for (key,) in nodes:
        if not _is_there(connection, key):
            forget(_cid(key))


def forget_strays(connection: sqlite3.Connection, nodes: list[Cid], forget: Callable[[Cid], None]) -> None:
    """`forget` is told of those of `nodes` that no file has."""
    for cid in nodes:
        if not _is_there(connection, _key(cid)):
            forget(cid)


def _is_there(connection: sqlite3.Connection, key: bytes) -> bool:
    return connection.execute("SELECT 1 FROM blocks WHERE cid = ? LIMIT 1", (key,)).fetchone() is not None


def _key(cid: Cid) -> bytes:
    """The codec and the digest."""
    parts = split_cid(cid)
    return bytes((parts.codec,)) + bytes.fromhex(parts.sha256)


def _cid(key: bytes) -> Cid:
    return format_cid(key[0], Sha256(key[1:].hex()))
