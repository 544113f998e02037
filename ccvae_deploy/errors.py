"""Every error a user can meet, and the exit code that goes with it.

    CCVAEError
    ├── UsageError        an option or a combination of options that cannot work
    ├── LabelError        an unknown label or a value outside its range
    ├── DataError         a data set that does not agree with itself
    ├── ImageError        one file that cannot be read as an image
    ├── BundleError       a bundle that is missing, damaged or unsafe
    ├── RunError          a run folder or a checkpoint that cannot be used
    ├── ProviderError     an execution provider or a device that was asked for and is not there
    ├── ParityError       an exported graph that does not compute what the model computes
    ├── TrainingError     training that cannot go on
    ├── FetchError        a file that the network does not give
    ├── EngineError       what the work was given to, a graph's runtime, a store, Ray or a process, and that gave up
    └── WriteError        a disk that is full or refuses in the middle of work

A message is one line: what was seen, what was expected, what to do next.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class CCVAEError(Exception):
    """Base of all errors that are the user's to read; `exit_code` is what the command ends with."""

    exit_code = 2


class UsageError(CCVAEError):
    """An option or a combination of options that cannot work."""


class LabelError(CCVAEError):
    """An unknown label or a value outside its range."""


class DataError(CCVAEError):
    """A data set that does not agree with itself."""


class ImageError(CCVAEError):
    """One file that cannot be read as an image."""


class BundleError(CCVAEError):
    """A bundle that is missing, damaged or unsafe."""


class RunError(CCVAEError):
    """A run folder or a checkpoint that cannot be used."""


class ProviderError(CCVAEError):
    """An execution provider or a device that was asked for and is not there."""


class ParityError(CCVAEError):
    """An exported graph that does not compute what the model computes."""

    exit_code = 1


class TrainingError(CCVAEError):
    """Training that cannot go on."""

    exit_code = 1


class FetchError(CCVAEError):
    """A file that the network does not give."""

    exit_code = 1


class EngineError(CCVAEError):
    """What work was given to, a graph's runtime, a store, Ray or a process, and that gave up in the middle of it."""

    exit_code = 1


class WriteError(CCVAEError):
    """A disk that is full or refuses in the middle of work; what was written before stays whole."""

    exit_code = 1


@contextmanager
def underway() -> Iterator[None]:
    """Around work that leaves results as it goes: what ends it there has refused nothing.

    Raises:
        EngineError: in place of an error that says that nothing was written.
    """
    try:
        yield
    except CCVAEError as error:
        if error.exit_code != CCVAEError.exit_code:
            raise
        raise EngineError(str(error)) from error


def nearest(seen: object, known: Iterable[str]) -> str:
    """The known names closest to what was seen, as the tail of an error message."""
    seen = str(seen)
    names = list(known)
    by_folded = {name.casefold(): name for name in names}
    close = get_close_matches(seen.casefold(), by_folded, n=3, cutoff=0.65)
    chosen = [by_folded[name] for name in close] or names[:8]
    rest = "" if len(names) <= len(chosen) or close else ", …"
    return f"did you mean {' or '.join(chosen)}?" if close else f"known: {', '.join(chosen)}{rest}"


def one_line(text: object, limit: int = 160) -> str:
    """Text from elsewhere as part of a message: one line, nothing that moves a cursor, cut at `limit`."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
