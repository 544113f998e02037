"""Places behind URLs, such as `s3://bucket/imgs`, by fsspec. Reads below the URL it is given, writes nothing.

Credentials, endpoints and the like are fsspec's own business: environment, `~/.config/fsspec`, the cloud's files.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from ..errors import ImageError, UsageError, one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

NAME_LIMIT = 255
"""Bytes of a file name on ordinary file systems."""
WHO = ("username", "user", "password", "token")
NO_URL = "a URL, which only images and --out of `edit` may be; give a path of this machine"
CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::.*://|://.*::)", re.DOTALL)
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Remote:
    """A place in a remote file system: the URL that a user has named, and a path below it.

    The two are kept apart, since a file's name may hold what would mean something in a URL.

    Attributes:
        size: bytes, where a listing has said so; else 0.
    """

    root: str
    relative: str = ""
    size: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.root}/{self.relative}" if self.relative else self.root

    @property
    def name(self) -> str:
        """The last part."""
        return str(self).rstrip("/").rpartition("/")[2]

    def absolute(self) -> "Remote":
        """Itself: it means the same in every process."""
        return self

    def file_system(self) -> "tuple[AbstractFileSystem, str]":
        """The file system, and what it calls this place.

        Raises:
            UsageError: fsspec, or its part for this kind of URL, is not installed.
        """
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise UsageError(
                f"{self.root} needs fsspec, which is not installed: pip install 'ccvae-deploy[remote]'"
            ) from error
        try:
            files, path = url_to_fs(self.root, use_listings_cache=False)
        except (ImportError, ValueError, OSError) as error:
            raise UsageError(f"{self.root} cannot be opened: {reason(error)}") from error
        return files, f"{path.rstrip('/')}/{self.relative}" if self.relative else path

    def canonical(self) -> str:
        """The same text for every URL of this place, as `s3://` and `s3a://` name one.

        Raises:
            UsageError: as `file_system`.
        """
        root = _canonical(self.root)
        return f"{root}/{self.relative}" if self.relative else root

    def exists(self) -> bool:
        """Whether there is a file, or anything below it."""
        return self._ask("exists")

    def is_dir(self) -> bool:
        """Whether anything lies below it."""
        return self._ask("isdir")

    def _ask(self, question: str) -> bool:
        files, path = self.file_system()
        try:
            return bool(getattr(files, question)(path))
        except Exception as error:
            raise unreadable(self, error) from error

    def walk(self) -> Iterator["Remote"]:
        """Every file below it, folder by folder. fsspec's own walk leaves out what it cannot list.

        Raises:
            UsageError: it cannot be listed.
        """
        files, path = self.file_system()
        head = path.rstrip("/") + "/"
        folders, seen = [path], {path.rstrip("/")}
        try:
            while folders:
                for info in files.ls(folders.pop(), detail=True):
                    name = info["name"].rstrip("/")
                    # what lies elsewhere, such as a page that a page links to, was not asked for
                    if not name.startswith(head) or name in seen:
                        continue
                    if info["type"] == "directory":
                        seen.add(name)
                        folders.append(info["name"])
                    else:
                        yield Remote(self.root, name[len(head) :], int(info.get("size") or 0))
        except Exception as error:
            raise unreadable(self, error) from error

    def read(self, limit: int) -> bytes:
        """The bytes of a file; more than `limit` are not asked for.

        Raises:
            ImageError: it cannot be read, is empty or is longer.
        """
        files, path = self.file_system()
        try:
            data = bytes(files.cat_file(path, start=0, end=limit + 1))
        except Exception as error:  # each kind of store has errors of its own
            raise ImageError(f"unreadable: {reason(error)}") from error
        if len(data) > limit:
            raise ImageError(f"more than the limit of {limit:,} bytes")
        if not data:
            raise ImageError("empty file")
        return data


@lru_cache(maxsize=64)
def _canonical(root: str) -> str:
    try:
        from fsspec import get_filesystem_class

        kind = get_filesystem_class(root.partition("://")[0])
    except (ImportError, ValueError):
        # which tells what is missing
        Remote(root).file_system()
        raise
    # what the URL says, such as a host; who asks, and how, makes no other place
    said = {key: value for key, value in kind._get_kwargs_from_urls(root).items() if key not in WHO}
    return f"{kind.__qualname__} {sorted(said.items())} {str(kind._strip_protocol(root)).rstrip('/')}"


Place = Path | Remote
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""One path, or several."""


def paths(given: Paths) -> list[str | os.PathLike[str]]:
    """The paths, of which one may stand alone: a text is a sequence too, of its letters.

    Raises:
        UsageError: it is none.
    """
    try:
        return [given] if isinstance(given, str | os.PathLike) else list(given)
    except TypeError as error:
        raise UsageError(f"{one_line(repr(given), 40)} is no path; give one, or several") from error


def location(given: "str | os.PathLike[str]") -> Place:
    """A path, or the place of a URL; a `file://` URL is the path it names.

    Raises:
        UsageError: a chain of URLs, a zero byte in it, a name longer than any file's, or no text at all.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str):
        raise UsageError(f"{one_line(repr(given), 40)} is no path; give a text or a Path")
    if not text:
        raise UsageError("a path is empty, as an unset variable makes it; give one")
    if "\0" in text:
        raise UsageError(f"{one_line(text)}: a path with a zero byte; give one without")
    if CHAIN.match(text):
        raise UsageError(f"{text}: chained URLs are not taken; give one such as s3://bucket/folder")
    match = URL.fullmatch(text) if isinstance(given, str) else None
    if match is None:
        try:
            longest = _longest_name(Path(text))
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{one_line(repr(text), 60)} is no path: no file can be called so; give another"
            ) from error
        if longest > NAME_LIMIT:
            raise UsageError(f"{one_line(text, 60)}: no file has a name of more than {NAME_LIMIT} bytes; give another")
        return Path(text)
    if match[1].lower() in ("file", "local"):
        return Path(_of_file_url(match[2]))
    return Remote(text.rstrip("/") if match[2].strip("/") else text)


def _longest_name(path: PurePath) -> int:
    """Bytes of the longest name in it."""
    return max((len(os.fsencode(part)) for part in path.parts), default=0)


def _of_file_url(path: str, system: str = os.name) -> str:
    """The path in `file://` and path. On Windows a slash before the drive, as in `/C:/imgs`, is the URL's; nothing else
    is rewritten, as fsspec does not either.
    """
    return path[1:] if system == "nt" and re.match(r"/[A-Za-z]:", path) else path


def local_path(given: "str | os.PathLike[str]") -> Path:
    """A path of this machine.

    Raises:
        UsageError: a URL, or a path that a command has made of one, or no text at all.
    """
    place = location(given)
    if isinstance(place, Remote):
        raise UsageError(f"{place}: {NO_URL}")
    refuse_url(place)
    return place


def refuse_url(path: Place) -> None:
    """Refuse a path that is a URL in truth: only `edit` takes those.

    Raises:
        UsageError: it begins like a URL, and no folder here is called so.
    """
    first, *rest = path.parts if isinstance(path, Path) and path.parts else ("",)
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", first) and not Path(first).exists():
        raise UsageError(f"{first}//{'/'.join(rest)}: {NO_URL}")


def unreadable(place: Remote, error: Exception) -> UsageError:
    """The error of a URL that cannot be read."""
    return UsageError(f"{place} cannot be read: {reason(error)}")


def reason(error: Exception) -> str:
    """What a file system says, in one line; some of their errors have no words."""
    return one_line(error) or type(error).__name__
