"""A server's disk behind a URL, and what lies below a URL, for the tests of far places; needs fsspec."""

from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Disk(LocalFileSystem):
    """A file system that moves files, unlike an object store; `disk://` as a server's disk would be."""

    protocol = "disk"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("disk://"))


def upload(folder: Path, url: str) -> str:
    files, base = fsspec.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file():
            target = f"{base}/{path.relative_to(folder).as_posix()}"
            files.makedirs(target.rpartition("/")[0], exist_ok=True)
            files.pipe_file(target, path.read_bytes())
    return url


def stored(url: str) -> dict[str, bytes]:
    files, base = fsspec.url_to_fs(url)
    return {path.removeprefix(f"{base}/"): files.cat_file(path) for path in files.find(base)}
