"""Finished protocols on disk, so that an evaluation that was stopped goes on. Writes below one folder per run.

A part counts as done when its key agrees: protocol, settings, checkpoint, judge and data. Pictures are written before
the JSON that names them.
"""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ccvae_deploy.storage.plain import read_plain
from ccvae_deploy.storage.store import inside, replace_file

from .finding import Finding
from .results import Part

VERSION = 5
"""Part of every key: another way to compute is another result."""
NAME = re.compile(r"[a-z0-9-]{1,64}")
PART_LIMIT = 64 << 20


def part_key(*parts: object) -> str:
    """What a stored part must agree with."""
    return hashlib.sha256(json.dumps([VERSION, *map(str, parts)]).encode()).hexdigest()


def read_part(folder: Path, protocol: str, key: str) -> Part | None:
    """A stored part, or None where it is absent, of another key, or not whole."""
    try:
        stored = json.loads(read_plain(folder / f"{protocol}.json", PART_LIMIT))
        if stored["key"] != key:
            return None
        found = {name: stored["finding"][name] for name in ("figures", "tables", "pictures", "note", "images")}
        # they become names of files
        names = [*found["pictures"], *(table["name"] for table in found["tables"])]
        if not all(NAME.fullmatch(name) for name in names):
            return None
        pictures = {name: folder / f"{protocol}-{name}.png" for name in found["pictures"]}
        if not all(path.is_file() and inside(path, folder) for path in pictures.values()):
            return None
        return Part(protocol, found, "", float(stored["seconds"]), pictures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_part(folder: Path, protocol: str, key: str, finding: Finding, seconds: float) -> Part:
    """Store a finding and its pictures.

    Raises:
        WriteError: the disk is full or refuses.
    """
    pictures = {}
    for name, image in finding.pictures.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        pictures[name] = folder / f"{protocol}-{name}.png"
        replace_file(pictures[name], [buffer.getvalue()])
    part = Part(protocol, finding.to_json(), "", round(seconds, 2), pictures)
    content = {"key": key, "finding": part.finding, "seconds": part.seconds}
    replace_file(folder / f"{protocol}.json", [json.dumps(content, indent=1).encode()])
    return part


def runs_folders(names: Sequence[str], digests: Sequence[str]) -> list[str]:
    """A name for every run that tells it from the others: its own, with digits of its checkpoint where two agree."""
    return [
        name if names.count(name) == 1 else f"{name}-{digest[:8]}" for name, digest in zip(names, digests, strict=True)
    ]
