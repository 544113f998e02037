"""The pages that a run leaves beside its outputs: contact sheet and report. Each carries a mark, by which a later run
knows it for its own and may replace it. Reads pages, writes nothing.
"""

from collections.abc import Sequence

from ..errors import ImageError, UsageError
from ..storage.remote import Place
from ..storage.remote_store import RemoteStore
from ..storage.store import Store

MARK = "a page of ccvae-deploy"
HEAD = 1024
"""Bytes of a page within which its mark stands."""


def refuse_foreign(out: Place, store: Store | RemoteStore, names: Sequence[str]) -> None:
    """Refuse when a page would replace a file that is no page of ours.

    Raises:
        UsageError: it would.
    """
    present = frozenset(store.names("")).intersection(names)
    for name in names:
        if name in present and not _marked(store, name):
            raise UsageError(
                f"{out} has a {name} that no record here explains; add --overwrite to replace it, or give another --out"
            )


def _marked(store: Store | RemoteStore, name: str) -> bool:
    try:
        return MARK.encode() in store.read(name)[:HEAD]
    except ImageError:
        return False
