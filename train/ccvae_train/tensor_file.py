"""Tensors in one safetensors file whose header holds a text; written beside and swapped in, never unpickled."""

import json
import os
import re
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ccvae_deploy.storage.lock import is_held, take

HEADER_LIMIT = 8 << 20


def write_tensors(path: Path, tensors: Mapping[str, Tensor], key: str, text: str) -> None:
    """Write a file so that at any moment a whole one is there; `text` stands in its header under `key`.

    What a process that was killed has left of the same file goes.

    Raises:
        OSError, SafetensorError: the disk is full or refuses; what was there before stays as it was.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _remove_left(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # a link of that name would lead elsewhere
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            take(file.fileno())
            # save_file, when killed, leaves a file of a name that nobody knows
            file.write(save(whole, metadata={key: text}))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _remove_left(path: Path) -> None:
    """Remove unfinished files of this name whose process is gone, and with it the lock that it held."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+")
    with suppress(OSError):
        for left in path.parent.iterdir():
            if ours.fullmatch(left.name) and stat.S_ISREG(left.lstat().st_mode) and not is_held(left):
                left.unlink(missing_ok=True)


def read_tensors(path: Path, key: str) -> tuple[str, dict[str, Tensor]]:
    """The text under `key`, empty where there is none, and the tensors by name, on the CPU.

    Raises:
        OSError, SafetensorError: the file cannot be read or is damaged.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        if length > HEADER_LIMIT:
            raise SafetensorError(f"a header of {length:,} bytes")
        with safe_open(path, framework="pt", device="cpu") as stored:
            header = stored.metadata() or {}
            return header.get(key, ""), {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (not a dict)
    except (struct.error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SafetensorError(str(error)) from error
