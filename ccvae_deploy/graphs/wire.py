"""How much of an ONNX file is weights and how much is structure, told without parsing. Touches only the bytes.

A parser makes an object of every field, so a file of tiny fields grows some fifty-fold in memory. Weights do not: they
are copied as they are. So a file from a stranger is walked first, and only its structure has to be small.
https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator

GRAPH, INITIALIZER = 7, 5
"""Field numbers of ModelProto.graph and GraphProto.initializer."""
WEIGHTS = (4, 9, 10)
"""Of TensorProto's float_data, raw_data and double_data: what a parser copies as it is."""

FIELD_LIMIT = 20_000


def structure_bytes(data: bytes) -> int:
    """How many bytes of a serialised ModelProto are not the weights of its initialisers.

    Raises:
        ValueError: the bytes are no protobuf message, or the walked levels hold more than `FIELD_LIMIT` fields.
    """
    weights = 0
    fields = _walk(data, 0, len(data), (GRAPH, INITIALIZER))
    for count, (levels_below, number, size) in enumerate(fields, start=1):
        if count > FIELD_LIMIT:
            raise ValueError(f"more than {FIELD_LIMIT:,} fields")
        if levels_below == 0 and number in WEIGHTS:
            weights += size
    return len(data) - weights


def _walk(data: bytes, start: int, stop: int, path: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Every field of a message and of its parts along `path`: levels left below it, number, size."""
    for number, first, last in _fields(data, start, stop):
        yield len(path), number, last - first
        if path and number == path[0]:
            yield from _walk(data, first, last, path[1:])


def _fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, first and last byte of every field between two places."""
    at = start
    while at < stop:
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                end = _varint(data, at)[1]
            case 1:
                end = at + 8
            case 2:
                length, at = _varint(data, at)
                end = at + length
            case 5:
                end = at + 4
            case kind:
                raise ValueError(f"wire type {kind}")
        if end > stop:
            raise ValueError("a field that ends behind its message")
        yield key >> 3, at, end
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer in base 128, least digit first, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("an integer without an end")
