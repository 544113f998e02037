"""The ledger of an output folder behind a URL. Writes in a work folder of this machine, and the records at the URL.

Object stores cannot append or lock, so journal and lock lie in the work folder, one per URL and shard, below the cache.
At the start the records at the URL are fetched, at the end they are replaced: settings, then receipts, then failures.
Until then a run is known to this machine only; cut off, it goes on here. Should the records at the URL have become
others in between, they count, and what the cut-off run has done beyond them is unexplained: it needs `--overwrite`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from ..errors import WriteError
from ..receipts import Settings
from ..storage.lock import FolderLock
from ..storage.places import cache_root
from ..storage.remote import Remote
from ..storage.remote_store import RemoteStore
from ..storage.store import replace_file
from .ledger import Ledger
from .reading import Names, read_settings, reading, settings_text

BEGUN = ".begun"
"""In the work folder while a run lasts: the hash of the receipts at the URL when it began."""

NONE = "none"


class RemoteLedger(Ledger):
    """As `Ledger`, of an output folder behind a URL.

    Raises:
        UsageError: it cannot be read, or another run of this machine writes there.
    """

    def __init__(
        self,
        place: Remote,
        settings: Iterable[Settings],
        shard: tuple[int, int] | None = None,
        roots: Mapping[str, str] | None = None,
    ) -> None:
        names = Names.of(shard)
        folder = cache_root() / "outputs" / f"{hashlib.sha256(place.canonical().encode()).hexdigest()[:32]}{names.mark}"
        self._files = RemoteStore(place, names.mark)
        self._seen = self._fetch(folder, names)
        super().__init__(folder, settings, shard, roots)
        self.place = place

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            replace_file(self.out / BEGUN, [self._seen.encode()])
        except BaseException:
            self.__exit__()
            raise
        return self

    def finish(self) -> None:
        """Merge the journal, then replace the records at the URL."""
        super().finish()
        names = [self.names.settings, self.names.failures]
        if _digest(self.out / self.names.receipts) != self._seen:
            names.insert(1, self.names.receipts)
        for name in names:
            self._files.put(name, self.out / name)
        (self.out / BEGUN).unlink()

    def refuse_others(self) -> None:
        """Their settings lie at the URL, one request for each: not asked."""

    def there(self, output: str) -> bool:
        """Not asked of the URL: what was begun is taken to lie there."""
        return True

    def _fetch(self, folder: Path, names: Names) -> str:
        """Bring the work folder up to the records at the URL; gives the hash of the receipts there."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FolderLock(folder, shared=False, shown=self._files.root), reading(folder):
                return self._take_over(folder, names)
        except OSError as error:
            raise WriteError(
                f"cannot write in {folder}: {error.strerror}; set CCVAE_CACHE to another folder"
            ) from error

    def _take_over(self, folder: Path, names: Names) -> str:
        begun = (folder / BEGUN).read_text("ascii") if (folder / BEGUN).exists() else None
        ours = read_settings(folder, names.settings) if begun else {}
        receipts, settings = folder / ".fetched.jsonl", folder / ".fetched.json"
        self._files.get(names.receipts, receipts)
        self._files.get(names.settings, settings)
        seen = _digest(receipts)
        if begun == seen:
            # a run that was cut off here, and is ahead of the URL by its journal, or by records it has yet to put
            receipts.unlink(missing_ok=True)
        else:
            (folder / names.journal).unlink(missing_ok=True)
            if _digest(folder / names.receipts) != seen:
                # others have been at work there since
                (folder / names.unfinished).unlink(missing_ok=True)
            (folder / names.receipts).unlink(missing_ok=True)
            self._files.get(names.failures, folder / names.failures)
            if seen != NONE:
                receipts.replace(folder / names.receipts)
        # the journal's receipts name settings that the URL may not have yet
        joined = read_settings(folder, settings.name) | ours
        settings.unlink(missing_ok=True)
        if joined:
            replace_file(folder / names.settings, [settings_text(joined)])
        else:
            (folder / names.settings).unlink(missing_ok=True)
        return seen


def _digest(path: Path) -> str:
    if not path.exists():
        return NONE
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
