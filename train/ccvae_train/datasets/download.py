"""Fetch MNIST and Fashion-MNIST with torchvision. Uses the network; writes below DIR only.

Files come into a hidden folder in DIR and are moved to their places when all have come.
"""

import sys
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError

from ccvae_deploy.errors import DataError, FetchError, UsageError, WriteError
from ccvae_deploy.storage.remote import local_path

from .idx import read_idx
from .mnist import FILES, SIDE, IdxSet, locate, read_labels


def fetch(folder: Path | str, which: IdxSet) -> list[Path]:
    """Make DIR hold the four files of MNIST or Fashion-MNIST, where torchvision lays them.

    Whole files that are there already, under any name that `mnist:DIR` reads, are kept.

    Returns:
        the files that were fetched; none when all were there.

    Raises:
        DataError: a file that is there is damaged.
        FetchError: the network does not give what is missing.
        UsageError: DIR cannot be made, or torchvision is not installed.
        WriteError: the disk is full.
    """
    folder = local_path(folder)
    root, found = locate(which, folder)
    _refuse_damaged(which, found)
    missing = [name for name in FILES if name not in found]
    if not missing:
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}; give another folder") from error
    try:
        with TemporaryDirectory(prefix=f".{which.folder}.", dir=folder) as beside:
            fetched = _fetched(which, Path(beside), root)
            root.mkdir(parents=True, exist_ok=True)
            return [fetched[name].replace(root / name) for name in missing]
    except OSError as error:
        raise WriteError(
            f"cannot write {folder}: {error.strerror or error}; make room or give another folder"
        ) from error


def _fetched(which: IdxSet, beside: Path, root: Path) -> dict[str, Path]:
    """All four files, whole, below `beside`."""
    try:
        _download(which, beside)
    except (URLError, HTTPException, ConnectionError, TimeoutError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise FetchError(
            f"{which.folder} could not be fetched ({reason}); get {', '.join(f'{name}.gz' for name in FILES)} by hand "
            f"from {which.home} and put them into {root}"
        ) from error
    _, found = locate(which, beside)
    try:
        _refuse_damaged(which, found)
    except DataError as error:
        raise FetchError(f"what came is damaged: {error}") from error
    if set(found) != set(FILES):
        raise FetchError(f"{which.folder} came without {next(name for name in FILES if name not in found)}; try again")
    return found


def _download(which: IdxSet, beside: Path) -> None:
    """Let torchvision fetch, check and unpack; it prints its progress on stdout, which is for results."""
    try:
        from torchvision import datasets
    except ImportError as error:
        raise UsageError("fetching needs torchvision: pip install 'ccvae-deploy[train]'") from error
    with redirect_stdout(sys.stderr):
        getattr(datasets, which.folder)(str(beside), download=True)


def _refuse_damaged(which: IdxSet, files: dict[str, Path]) -> None:
    for name, path in files.items():
        if "images" in name:
            read_idx(path, SIDE, SIDE)
        else:
            read_labels(path, which.label)
