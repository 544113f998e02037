"""The folder of a bundle: what may be replaced in it, and how one takes the place of another.

A bundle is built beside its place and swapped in, so at any moment a whole one is there. Touches nothing else.
"""

import contextlib
import glob
import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ccvae_deploy.bundle import MANIFEST, read_manifest
from ccvae_deploy.errors import BundleError, UsageError, WriteError
from ccvae_deploy.inspection import PARITY, read_measured

from .model_card import CARD, SHEET

WRITTEN = "written"
"""Where `parity.json` keeps the sha256 of what stands beside the graphs for people, who may change it."""


def refuse_foreign(target: Path) -> None:
    """A bundle is replaced as a whole, so its folder may hold nothing else, and nobody may stand in it.

    Raises:
        UsageError: they do, or its card is not as it was written.
    """
    if Path.cwd().is_relative_to(target.resolve()):
        raise UsageError(f"--out {target} is the current folder or around it, and is replaced as a whole; give a name")
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    try:
        manifest, _ = read_manifest(target)
    except BundleError as error:
        raise UsageError(f"{target} holds something that is no bundle; give another --out") from error
    ours = {MANIFEST, PARITY, CARD, SHEET, *(entry.file for entry in manifest.files.values())}
    foreign = sorted(path.name for path in target.iterdir() if path.name not in ours)
    if foreign:
        raise UsageError(
            f"{target} holds {foreign[0]!r}, which is no part of its bundle; move it, or give another --out"
        )
    _refuse_edited(target)


def _refuse_edited(target: Path) -> None:
    """Terms that someone has written into the card are theirs. Bundles of before 0.3 do not say what was written."""
    measured = read_measured(target)
    written = measured.get(WRITTEN) if isinstance(measured, dict) else None
    for name in (CARD, SHEET):
        if isinstance(written, dict) and (target / name).exists() and sha256(target / name) != written.get(name):
            raise UsageError(
                f"{target / name} was changed since it was exported, and an export replaces it; move it out of the "
                "bundle, or give another --out"
            )


def sha256(path: Path) -> str:
    """Of a file's bytes; a folder in its place has none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@contextlib.contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """An empty folder beside a target, gone at the end unless it was swapped in."""
    place = target.resolve()
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise BundleError(f"cannot write {target}: {error.strerror or error}; give another --out") from error
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def writing(target: Path, written: Sequence[Path] = ()) -> Iterator[None]:
    """Around what writes a bundle; `written` are those of this export that are in their places.

    Raises:
        WriteError: the disk is full or refuses.
    """
    try:
        yield
    except OSError as error:
        done = f" (written: {', '.join(map(str, written))})" if written else ""
        raise WriteError(
            f"cannot write {target}: {error.strerror or error}{done}; make room, or give another --out, and start again"
        ) from error


def swap_all(folders: Iterable[tuple[Path, Path]]) -> None:
    """Put every folder in the place of its target."""
    written: list[Path] = []
    for beside, target in folders:
        with writing(target, written):
            swap(beside, target)
        written.append(target)


def swap(beside: Path, target: Path) -> None:
    """Put a bundle in place; what a link names, where the target is one."""
    place = target.resolve()
    old = place.with_name(f".{place.name}.old.{secrets.token_hex(4)}")
    if place.exists():
        place.replace(old)
    try:
        beside.replace(place)
    except OSError:
        if old.exists():
            old.replace(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def put_back(target: Path) -> bool:
    """Whether a bundle that an export moved aside before it was killed is in its place again."""
    place = target.resolve()
    if place.exists() or not place.parent.is_dir():
        return False
    for aside in place.parent.glob(f".{glob.escape(place.name)}.old." + 8 * "[0-9a-f]"):
        with contextlib.suppress(BundleError):
            if not aside.is_symlink():
                read_manifest(aside)
                aside.replace(place)
                return True
    return False
