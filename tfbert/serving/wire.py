"""The little of the protocol buffers' wire format that warmup requests need, so that no TF Serving package need be installed.

tensorflow-serving-api pins versions of TensorFlow and protobuf that conflict with others (serving#2124, #2138). A message is a sequence
of fields: a key (number and wire type), then the value. https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def message(*fields: tuple[int, bytes | str]) -> bytes:
    """Encodes a message whose fields are strings, bytes or messages.

    Example:
        >>> message((1, "ab"), (3, message((1, b"c"))))
        b'\\n\\x02ab\\x1a\\x03\\n\\x01c'
    """
    parts = []
    for number, value in fields:
        data = value.encode("utf-8") if isinstance(value, str) else value
        parts += [_varint(number << 3 | LENGTH), _varint(len(data)), data]
    return b"".join(parts)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Decodes a message into (field number, value); a value of wire type LENGTH is bytes, all others are whole numbers.

    Raises:
        ValueError: the bytes are no message.

    Example:
        >>> list(fields(message((1, "ab"), (3, b""))))
        [(1, b'ab'), (3, b'')]
    """
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _read_varint(data, place)
            yield number, value
            continue
        if kind == LENGTH:
            size, place = _read_varint(data, place)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if number == 0 or place + size > len(data):
            raise ValueError(f"field {number} at byte {place} does not end within the message")
        piece, place = data[place : place + size], place + size
        yield number, piece if kind == LENGTH else int.from_bytes(piece, "little")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError(f"no whole number at byte {place}")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
