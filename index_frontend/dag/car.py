"""CARv1: blocks in a row, as gateways, Kubo and other IPFS software carry them.

    varint(length) header                           header = DAG-CBOR of {"roots": [CID, …], "version": 1}
    varint(length) CID block, again and again       length = that of CID and block together

Reading is for what strangers send: only CIDv1 with sha2-256 over raw or dag-pb, every block checked before it is given away, every
length bounded before anything is kept. The roots in a header are a claim; which blocks belong together is told by the blocks.
Source: CARv1 specification; unsigned-varint (minimal, here at most 4 bytes).
"""

from __future__ import annotations

from typing import Final

from index_frontend.dag.blocks import MAX_BLOCK_BYTES, PROBE_CID, BadBlock, check_block
from matrix_pypi_bot.wire.cids import Cid, InvalidCid, format_cid, parse_cid, split_cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from matrix_pypi_bot.wire.varints import InvalidVarint, read_varint, write_varint

MAX_HEADER_BYTES: Final = 64 << 10
"""About 1,500 roots."""

_CID_BYTES: Final = 36
_SHA2_256: Final = b"\x12\x20"
_PROBE_BYTES: Final = b"\x01\x55\x00\x00"
_MAX_VARINT_BYTES: Final = 4

# The header's DAG-CBOR, whose keys go by length, then alphabet: a map of two, `roots` with its list, `version` with its number.
_HEADER_START: Final = b"\xa2\x65roots"
_HEADER_END: Final = b"\x67version\x01"
_CID_TAG: Final = b"\xd8\x2a"
_CBOR_BYTES: Final = 2
_CBOR_LIST: Final = 4


class BadCar(Problem, ValueError):
    """Bytes that are no CARv1 of blocks such as ours."""

    code = ProblemCode.DIGEST_MISMATCH


def car_header(*roots: Cid) -> bytes:
    """How a CAR with these roots begins; the probe's CID may be one."""
    cids = b"".join(_CID_TAG + _cbor_head(_CBOR_BYTES, len(cid) + 1) + b"\0" + cid for cid in map(_binary, roots))
    header = _HEADER_START + _cbor_head(_CBOR_LIST, len(roots)) + cids + _HEADER_END
    return write_varint(len(header)) + header


def car_section(cid: Cid, data: bytes) -> bytes:
    """A block as it stands in a CAR."""
    return car_section_head(cid, len(data)) + data


def car_section_head(cid: Cid, data_bytes: int) -> bytes:
    """What stands in a CAR before the `data_bytes` of a block."""
    return write_varint(_CID_BYTES + data_bytes) + _binary(cid)


def car_section_bytes(data_bytes: int) -> int:
    """How long the section of a block of `data_bytes` is."""
    count = _CID_BYTES + data_bytes
    return len(write_varint(count)) + count


class CarReader:
    """Takes a CAR in chunks of any length; what `feed` returns has been checked against its CID.

    It holds one block and one chunk at most. `max_bytes` bounds the whole CAR. `roots` is None until the header has been read. After
    BadCar it takes nothing more.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self.roots: tuple[Cid, ...] | None = None
        self._max_bytes = max_bytes
        self._taken_bytes = 0
        self._rest = bytearray()
        self._is_bad = False

    def feed(self, chunk: bytes) -> list[tuple[Cid, bytes]]:
        """The blocks that are complete with `chunk`, in order, duplicates included. Raises BadCar."""
        if self._is_bad:
            raise BadCar("the CAR was bad before")
        try:
            return self._fed(chunk)
        except BadCar:
            self._is_bad = True
            self._rest.clear()
            raise

    def finish(self) -> None:
        """Nothing more will come. Raises BadCar when something is missing."""
        if self._is_bad or self._rest or self.roots is None:
            raise BadCar("the CAR is cut off")

    def _fed(self, chunk: bytes) -> list[tuple[Cid, bytes]]:
        self._taken_bytes += len(chunk)
        if self._taken_bytes > self._max_bytes:
            raise BadCar(f"the CAR is longer than {self._max_bytes} bytes")
        self._rest += chunk
        blocks: list[tuple[Cid, bytes]] = []
        position = 0
        while (span := self._next_span(position)) is not None:
            start, position = span
            if self.roots is None:
                self.roots = _read_header(bytes(self._rest[start:position]))
            else:
                blocks.append(_read_section(self._rest, start, position))
        del self._rest[:position]
        return blocks

    def _next_span(self, position: int) -> tuple[int, int] | None:
        """Where the next header or section lies in what is here; None while it is not complete."""
        read = _read_varint(self._rest, position)
        if read is None:
            return None
        length, start = read
        least, most = (1, MAX_HEADER_BYTES) if self.roots is None else (_CID_BYTES, _CID_BYTES + MAX_BLOCK_BYTES)
        if not least <= length <= most:
            raise BadCar(f"a part of {length} bytes, which is not between {least} and {most}")
        return (start, start + length) if start + length <= len(self._rest) else None


def _read_section(data: bytearray, start: int, stop: int) -> tuple[Cid, bytes]:
    with memoryview(data) as view:
        cid, block = _read_cid(bytes(view[start : start + _CID_BYTES])), bytes(view[start + _CID_BYTES : stop])
    try:
        check_block(cid, block)
    except BadBlock as error:
        raise BadCar(error.detail) from error
    return cid, block


def _read_header(data: bytes) -> tuple[Cid, ...]:
    """The roots of a header, which must be written in the one way that DAG-CBOR has."""
    if not data.startswith(_HEADER_START) or not data.endswith(_HEADER_END):
        raise BadCar("what comes is not the header of a CARv1")
    count, position = _read_cbor_head(data, len(_HEADER_START), _CBOR_LIST)
    roots: list[Cid] = []
    for _ in range(min(count, len(data))):
        if data[position : position + 2] != _CID_TAG:
            raise BadCar("a root is not a CID")
        length, start = _read_cbor_head(data, position + 2, _CBOR_BYTES)
        position = start + length
        if data[start : start + 1] != b"\0" or position > len(data):
            raise BadCar("a root is not a CID")
        roots.append(_read_cid(data[start + 1 : position]))
    if len(roots) != count or position != len(data) - len(_HEADER_END):
        raise BadCar("the header has another length than its roots")
    return tuple(roots)


def _read_cid(data: bytes) -> Cid:
    if len(data) != _CID_BYTES or data[:1] != b"\x01" or data[2:4] != _SHA2_256:
        raise BadCar("a block is named in another way than by a CIDv1 with sha2-256")
    try:
        return parse_cid(format_cid(data[1], Sha256(data[4:].hex())))
    except InvalidCid as error:
        raise BadCar(error.detail) from error


def _binary(cid: Cid) -> bytes:
    if cid == PROBE_CID:
        return _PROBE_BYTES
    parts = split_cid(cid)
    return bytes((1, parts.codec)) + _SHA2_256 + bytes.fromhex(parts.sha256)


def _cbor_head(kind: int, number: int) -> bytes:
    """The head of a CBOR item of major type `kind`; `number` is less than 65,536."""
    if number < 24:
        return bytes((kind << 5 | number,))
    if number < 256:
        return bytes((kind << 5 | 24, number))
    return bytes((kind << 5 | 25,)) + number.to_bytes(2)


def _read_cbor_head(data: bytes, position: int, kind: int) -> tuple[int, int]:
    """(number, position behind it), written in as few bytes as it needs. Raises BadCar."""
    first = data[position]
    count = {24: 1, 25: 2}.get(first & 31, 0)
    stop = position + 1 + count
    number = int.from_bytes(data[position + 1 : stop]) if count else first & 31
    if data[position:stop] != _cbor_head(kind, number):
        raise BadCar("the header is not DAG-CBOR as it must be")
    return number, stop


def _read_varint(data: bytearray, position: int) -> tuple[int, int] | None:
    """(number, position behind it); None while it is not complete. Raises BadCar."""
    try:
        return read_varint(data, position, _MAX_VARINT_BYTES)
    except InvalidVarint as error:
        raise BadCar(f"a length makes no sense: {error}") from error
