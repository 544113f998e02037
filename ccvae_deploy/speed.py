"""How fast a run is to be, which changes no result: images per graph run, and workers. Pure."""

from .errors import UsageError

BATCH = 16


def refuse_speed(batch_size: int = BATCH, workers: int | None = None) -> None:
    """Refuse a batch size or a number of workers that cannot work.

    Raises:
        UsageError: it is outside its range.
    """
    if not 1 <= batch_size <= 4096:
        raise UsageError(f"--batch-size {batch_size}: expected 1 to 4096")
    if workers is not None and not 1 <= workers <= 256:
        raise UsageError(f"--workers {workers}: expected 1 to 256")
