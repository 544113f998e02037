"""Seeded damage to manifests and to bytes of any kind: what a disk does, and what an attacker would choose."""

import contextlib
import json
import random
from collections.abc import Iterator
from typing import Any

INTEGERS = [0, 1, -1, 2, 3, 4, 7, 8, 16, 32, 64, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 62) + 1]
INTEGERS += [(1 << 63) - 1, -(1 << 31), -(1 << 63)]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, 1e308, float("inf"), float("-inf"), float("nan")]
STRINGS = [
    "",
    " ",
    "a",
    "x" * 5000,
    "../encoder.onnx",
    "/etc/passwd",
    "a\nb",
    "\x1b[2J",
    "\u202e",
    "\u0000",
    "ÅÅ",
    "😀",
]
STRINGS += ["\ud800", "1", "true", "null", "__class__", "NaN", "aux.onnx", "Encoder.onnx", "ORTMORTM", "image", "N"]

Json = Any


def odd_value(rng: random.Random) -> Json:
    """A JSON value that was not expected."""
    match rng.randrange(9):
        case 0:
            return rng.choice([None, True, False])
        case 1:
            return rng.choice(INTEGERS)
        case 2:
            return 10 ** rng.randrange(1, 400)
        case 3:
            return rng.choice(FLOATS)
        case 4:
            return rng.choice(STRINGS)
        case 5:
            return [odd_value(rng) for _ in range(rng.randrange(4))]
        case 6:
            return {rng.choice(STRINGS): odd_value(rng) for _ in range(rng.randrange(3))}
        case 7:
            return [rng.choice([0, 0.5, "a"])] * rng.choice([10, 1000, 20_000])
        case _:
            nested: Json = 1
            for _ in range(rng.choice([5, 17, 150, 300])):
                nested = [nested] if rng.random() < 0.5 else {"a": nested}
            return nested


def damaged_manifest(content: Json, rng: random.Random) -> bytes:
    """A manifest with one to three things wrong, some of them in its text rather than in what it says."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if len(json.dumps(content)) > 1 << 20:  # another doubling of so much would take too long
            break
        with contextlib.suppress(IndexError):  # nothing is left to change
            _change_place(content, rng)
    text = json.dumps(content, ensure_ascii=rng.random() < 0.9)
    if rng.random() < 0.1:
        key = rng.choice(['"schema_version"', '"files"', '"sha256"', '"file"', '"labels"'])
        text = text.replace(key, f"{key}: {json.dumps(odd_value(rng))}, {key}", 1)
    data = text.encode("utf-8", "surrogatepass")
    return damaged_bytes(data, rng) if rng.random() < 0.1 else data


def _change_place(content: Json, rng: random.Random) -> None:
    places = list(_places(content))
    place, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del place[key]
        case 1:
            other, name = rng.choice(places)
            place[key] = json.loads(json.dumps(other[name]))
        case 2 if isinstance(place, dict):
            place[rng.choice(STRINGS)] = odd_value(rng)
        case 3 if isinstance(place, list):
            text = json.dumps(place[key])
            # four times of what a manifest may have at most
            place.extend([json.loads(text)] * min(rng.choice([1, 2, 100, 5000]), (4 << 20) // len(text)))
        case 4 if isinstance(place[key], int | float) and abs(place[key]) < 1e9:
            number = place[key]
            place[key] = rng.choice([str(number), float(number), bool(number), -number, number + 1, [number]])
        case _:
            place[key] = odd_value(rng)


def _places(value: Json) -> Iterator[tuple[Json, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Truncated, flipped, spliced, doubled or swollen bytes."""
    changed = bytearray(data)
    here, there = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(6):
        case 0:
            del changed[here:]
        case 1:
            for _ in range(rng.choice([1, 1, 2, 8, 64])):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 2:
            del changed[here : min(there, here + rng.choice([1, 2, 8, 500]))]
        case 3:
            changed[here:here] = changed[there : there + rng.choice([1, 4, 100, 5000])]
        case 4:
            changed[here : here + 4] = bytes(rng.choice([0, 1, 8, 18, 127, 128, 255]) for _ in range(4))
        case _:
            changed += bytes(rng.choice([b"\x3a\x00", b"\x08\x01", b"\xff\xff", b"\x3b"])) * rng.choice([1, 50, 30_000])
    return bytes(changed)
