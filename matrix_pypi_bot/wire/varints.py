"""Numbers as multiformats and protobuf write them: seven bits a byte, the lowest first. Source: unsigned-varint."""

from __future__ import annotations


class InvalidVarint(ValueError):
    """Too long for what may stand there, or padded with zeroes."""


def write_varint(number: int) -> bytes:
    """The shortest form of a number that is not negative."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes | bytearray, position: int, max_bytes: int) -> tuple[int, int] | None:
    """(number, position behind it); None while it is not complete. Raises InvalidVarint."""
    if position < len(data) and data[position] < 0x80:  # most are: a node with a thousand links has ten thousand
        return data[position], position + 1
    number = 0
    for shift, byte in enumerate(data[position : position + max_bytes]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            if byte == 0 and shift:
                raise InvalidVarint("a number is padded")
            return number, position + shift + 1
    if len(data) - position < max_bytes:
        return None
    raise InvalidVarint("a number is too long")
