"""Scan folders for images, name what becomes of them, choose a shard. Reads directory listings, writes nothing."""

import hashlib
import heapq
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

from .errors import UsageError
from .pictures.decoding import ENDINGS
from .storage.remote import NAME_LIMIT, Place, Remote, refuse_url
from .storage.store import inside, refuse_unwritable
from .terminal.screen import counted

SHEET = re.compile(r"sheet(-\d+-of-\d+)?\.png")

UNSAFE = {ord(c): "-" for c in '/\\:*?"<>|'} | dict.fromkeys([*range(32), 127], "-")


@dataclass(frozen=True, slots=True)
class Source:
    """An input image: where it lies, and its place in the mirrored tree in posix form."""

    path: Place
    relative: str


@dataclass(frozen=True)
class Scan:
    """All sources in the order of their relative paths' bytes, and how many files were passed over."""

    sources: tuple[Source, ...]
    ignored: int


def scan(inputs: Sequence[Place]) -> Scan:
    """Find the images of files and folders, of this machine or behind URLs.

    One folder is mirrored as it is; of several inputs each folder is mirrored under its own name, and single files
    lie at the top; a file that is given twice, as in its folder and by itself, is one. Symlinked folders are not
    followed. Hidden files and files without an image's ending are passed over and counted, unless they were named
    themselves; so are the sheets that runs have left beside their records.

    Raises:
        UsageError: an input is missing or unreadable, no image is found, or two sources would take one place.
    """
    found: dict[str, Place] = {}
    ignored = 0
    for given in inputs:
        if given.is_dir():
            prefix = f"{_name(given)}/" if len(inputs) > 1 else ""
            below, passed = _walk_remote(given) if isinstance(given, Remote) else _walk(given)
            ignored += passed
            placed = [(prefix + relative, path) for relative, path in below]
        elif given.exists():
            placed = [(given.name, given)]
        else:
            refuse_url(given)
            raise UsageError(f"{given} does not exist; give images or folders of images")
        for relative, path in placed:
            twin = found.setdefault(relative, path)
            if twin != path and not _same(twin, path):
                raise UsageError(f"{twin} and {path} would both become {relative}; edit them in two runs")
    if not found:
        names = ", ".join(str(given) for given in inputs)
        others = counted(ignored, "other file")
        raise UsageError(f"no image in {names} ({others}); expected files such as .jpg, .png or .webp")
    order = sorted(_once(found) if len(inputs) > 1 else found, key=os.fsencode)
    return Scan(tuple(Source(found[relative], relative) for relative in order), ignored)


def _same(one: Place, other: Place) -> bool:
    """Whether two places of this machine are one file; a link that leads nowhere is what it is called."""
    if isinstance(one, Remote) or isinstance(other, Remote):
        return False
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _once(found: Mapping[str, Place]) -> Iterable[str]:
    """The places in the tree, of a file that was given twice, as in its folder and by itself, the deepest alone."""
    folder = lru_cache(maxsize=64)(os.path.realpath)
    deepest: dict[str, str] = {}
    for relative, path in found.items():
        file = path.canonical() if isinstance(path, Remote) else os.path.join(folder(path.parent), path.name)  # noqa: PTH118
        deepest[file] = max(deepest.get(file, ""), relative, key=len)
    return deepest.values()


def roots(inputs: Sequence[Place]) -> dict[str, str]:
    """Below which folder or URL the images that `scan` finds lie: by what it puts before their paths (`folder/`, or
    nothing), and of an image that was named itself by its name.
    """
    found = {}
    for given in inputs:
        if given.is_dir():
            found[f"{_name(given)}/" if len(inputs) > 1 else ""] = _spelled(given)
        else:
            found[given.name] = _spelled(given).rpartition("/")[0]
    return found


def _name(folder: Place) -> str:
    return folder.name if isinstance(folder, Remote) else folder.resolve().name


def _walk(folder: Path) -> tuple[list[tuple[str, Place]], int]:
    """Images below a folder with their paths from there, and the number of other files."""
    found: list[tuple[str, Place]] = []
    ignored = 0

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}; fix its permissions or leave it out")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            ending = os.path.splitext(name)[1].lower()  # noqa: PTH122  (hot path)
            if name.startswith(".") or ending not in ENDINGS or _is_sheet(name, "", files):
                ignored += 1
            else:
                path = Path(parent, name)
                found.append((path.relative_to(folder).as_posix(), path))
    return found, ignored


def _is_sheet(name: str, folder: str, files: Container[str]) -> bool:
    """Whether a run has left this sheet in a folder: its records, or a bundle's manifest, lie beside it."""
    sheet = SHEET.fullmatch(name)
    records = ("receipts.jsonl", f"receipts{sheet[1] or ''}.jsonl", "manifest.json") if sheet else ()
    return any(folder + record in files for record in records)


def _walk_remote(folder: Remote) -> tuple[list[tuple[str, Place]], int]:
    """Images below a URL with their paths from there, and the number of other files; a name may be any text."""
    found: list[tuple[str, Place]] = []
    records: set[str] = set()
    ignored = 0
    for file in folder.walk():
        *folders, name = file.relative.split("/")
        if name.startswith(".") or os.path.splitext(name)[1].lower() not in ENDINGS:  # noqa: PTH122  (hot path)
            ignored += not any(part.startswith(".") for part in folders)
            if name == "manifest.json" or name.startswith("receipts"):
                records.add(file.relative)
        elif "" in folders or not {".", ".."}.isdisjoint(folders) or "\0" in file.relative:
            raise UsageError(f"{file} is no name that a folder could hold; rename it, or name the others one by one")
        elif not any(part.startswith(".") for part in folders):
            found.append((file.relative, file))
    images = [one for one in found if not _is_remote_sheet(one[0], records)]
    return images, ignored + len(found) - len(images)


def _is_remote_sheet(relative: str, records: Container[str]) -> bool:
    folder, slash, name = relative.rpartition("/")
    return _is_sheet(name, folder + slash, records)


def default_out(inputs: Sequence[Place], done: str = "edited") -> Path:
    """`<folder>-<done>` in the current folder for one folder, else `<done>`."""
    if len(inputs) == 1 and inputs[0].is_dir():
        return Path(f"{_name(inputs[0])}-{done}")
    return Path(done)


def check_out(out: Place, inputs: Sequence[Place], sources: Sequence[Source] = ()) -> None:
    """Refuse an output folder that cannot work.

    Args:
        sources: what was found in the inputs, each of which is mirrored below `out`.

    Raises:
        UsageError: it lies inside an input folder, or results would; it is a file or a link to nothing, or cannot be
            written.
    """
    _refuse_mirrors(out, inputs, sources)
    if isinstance(out, Remote):
        if any(within(out, given) for given in inputs):
            raise UsageError(
                f"the output {out} lies inside the input, so results would be taken for inputs; give another"
            )
        return
    refuse_url(out)
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out} is a link that leads nowhere; remove it or give another --out")
    resolved = out.resolve()
    for given in inputs:
        if isinstance(given, Path) and given.is_dir() and resolved.is_relative_to(given.resolve()):
            raise UsageError(
                f"the output folder {out} lies inside the input folder {given}, so results would be taken for inputs; "
                "give another --out"
            )
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder with --out")
    refuse_unwritable(resolved)


def _refuse_mirrors(out: Place, inputs: Sequence[Place], sources: Sequence[Source]) -> None:
    """Where an input folder lies below `out`, it may be the mirror of an input of its name."""
    below = [given for given in inputs if within(given, out) and given.is_dir()]
    for folder in {source.relative.rpartition("/")[0] for source in sources} if below else ():
        mirror = Remote(f"{out}/{folder}") if isinstance(out, Remote) else out / folder
        for given in below:
            if within(mirror, given):
                raise UsageError(
                    f"results would lie in {mirror}, inside the input folder {given}, and be taken for inputs; give "
                    "another --out"
                )


def lying_below(out: Place, places: Iterable[Place]) -> set[str]:
    """Those of the places that lie below a folder, as paths from there, all links followed."""
    root = _spelled(out)
    return {text.removeprefix(f"{root}/") for text in map(_spelled, places) if text.startswith(f"{root}/")}


def refuse_own_sources(
    out: Place, read: Iterable[Place], outputs: Iterable[tuple[str, Iterable[str]]], pages: Sequence[str]
) -> None:
    """What a run or another shard of it reads is not replaced by what it writes, whatever may be overwritten.

    Args:
        outputs: per source the names that its outputs may have below `out`.
        pages: what is written beside them.

    Raises:
        UsageError: something that is read would be replaced.
    """
    below = lying_below(out, read)
    written = ((f"an output of {source}", names) for source, names in outputs)
    for what, names in chain(written, [("a page of this run", pages)]) if below else ():
        for name in below.intersection(names):
            raise UsageError(
                f"{name} is read and would be replaced by {what}; expected no image in the place of a result: leave "
                "it out, rename it, or give another --out"
            )


def _spelled(place: Place) -> str:
    return place.canonical() if isinstance(place, Remote) else Path(os.path.realpath(place)).as_posix()


def within(place: Place, folder: Place) -> bool:
    """Whether a place is a folder or lies below it, all links followed."""
    if isinstance(place, Remote) or isinstance(folder, Remote):
        return type(place) is type(folder) and f"{_spelled(place)}/".startswith(f"{_spelled(folder)}/")
    return inside(place, folder)


def output_stems(sources: Sequence[Source]) -> list[str]:
    """Per source the head of its output names: the relative path without ending.

    Sources whose stems are one to some disk, which may know neither case nor how letters are composed, keep their
    ending; so does a stem that equals a kept one, until all differ. Paths that are one to it themselves get 8 hex
    digits of their sha256.
    """
    stems = [_without_ending(source.relative) for source in sources]
    clashing = list(range(len(stems)))
    while clashing:
        folded = [_folded(stem) for stem in stems]
        counts = Counter(folded)
        clashing = [i for i, stem in enumerate(folded) if counts[stem] > 1 and stems[i] != sources[i].relative]
        for i in clashing:
            stems[i] = sources[i].relative
    twins = Counter(_folded(source.relative) for source in sources)
    for i, source in enumerate(sources):
        if twins[_folded(source.relative)] > 1:
            stems[i] += f"~{hashlib.sha256(os.fsencode(source.relative)).hexdigest()[:8]}"
    return stems


def _folded(path: str) -> str:
    """What a path is to a disk that knows neither case nor how letters are composed."""
    return unicodedata.normalize("NFC", path).casefold()


def output_name(stem: str, edit: str, sample: int, ending: str) -> str:
    """`{stem}__{edit}__{k:02d}.{ext}`, relative and in posix form.

    A file name over 255 bytes keeps its head and gets 8 hex digits of the sha256 of the whole path.
    """
    folder, _, name = stem.rpartition("/")
    tail = f"__{edit.translate(UNSAFE)}__{sample:02d}.{ending}"
    full = os.fsencode(name + tail)
    if len(full) > NAME_LIMIT:
        digest = hashlib.sha256(os.fsencode(stem + tail)).hexdigest()[:8]
        # the tail itself may be too long when very many labels are asked for
        tail = f"~{digest}{tail}" if len(os.fsencode(tail)) < 150 else f"~{digest}__{sample:02d}.{ending}"
        name = _cut(name, NAME_LIMIT - len(os.fsencode(tail)))
    return f"{folder}/{name}{tail}" if folder else f"{name}{tail}"


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` as (i, n), with i from 0 to n - 1.

    Raises:
        UsageError: anything else, or n has more than 9 digits.
    """
    index, slash, count = text.partition("/") if isinstance(text, str) else ("", "", "")
    if slash and index.isascii() and count.isascii() and index.isdigit() and count.isdigit() and len(text) < 20:
        i, n = int(index), int(count)
        if i < n < 10**9:
            return i, n
    raise UsageError(f"--shard {text!r}: expected I/N with I from 0 to N-1, such as 0/4")


def in_shard(relative: str, index: int, count: int) -> bool:
    """Whether a source belongs to part `index` of `count`; a function of its relative path alone."""
    return _place(relative) % count == index


def part_of(found: Scan, shard: str | None) -> Scan:
    """The sources of a shard `i/n`; all of them for None.

    Raises:
        UsageError: another form.
    """
    if shard is None:
        return found
    part = parse_shard(shard)
    return Scan(tuple(source for source in found.sources if in_shard(source.relative, *part)), found.ignored)


def spread_sample(sources: Sequence[Source], count: int) -> tuple[Source, ...]:
    """So many of the sources in their order, chosen by their paths alone: a larger sample holds a smaller one."""
    chosen = {source.relative for source in heapq.nsmallest(count, sources, key=lambda one: _place(one.relative))}
    return tuple(source for source in sources if source.relative in chosen)


def _place(relative: str) -> int:
    """A number that is even over paths."""
    return int.from_bytes(hashlib.sha256(os.fsencode(relative)).digest()[:8], "big")


def _without_ending(relative: str) -> str:
    folder, slash, name = relative.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return folder + slash + (stem if dot and stem else name)


def _cut(name: str, limit: int) -> str:
    """The longest head of a name that takes at most `limit` bytes."""
    while len(os.fsencode(name)) > limit:
        name = name[: max(1, len(name) - max(1, (len(os.fsencode(name)) - limit) // 4))]
    return name
