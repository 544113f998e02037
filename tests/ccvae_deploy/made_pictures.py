"""A made picture, and pictures as the bytes of files."""

import io
import itertools
import struct

import numpy as np
from PIL import Image

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def cmyk_profile() -> bytes:
    """A small printer profile in which every ink only darkens: CMYK to grey Lab by a table of two points per ink."""
    corners = [[255 - 255 * max(c, m, y, k), 128, 128] for c, m, y, k in itertools.product((0, 1), repeat=4)]
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(itertools.chain(*corners)) + ramp * 3
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"made\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    parts = [(b"desc", text), (b"A2B0", table), (b"wtpt", white), (b"cprt", b"text" + bytes(4) + b"none\0")]
    directory, body, at = struct.pack(">I", len(parts)), b"", 128 + 4 + 12 * len(parts)
    for name, part in parts:
        directory += name + struct.pack(">II", at + len(body), len(part))
        body += part + bytes(-len(part) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + directory + body
