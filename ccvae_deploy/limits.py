"""What bounds a run's work and memory: images per graph run, workers, pixels of a picture. Pure."""

from .given import refuse_outside

BATCH = 16
MAX_PIXELS = 100_000_000


def refuse_speed(batch_size: int = BATCH, workers: int | None = None) -> None:
    """Refuse a batch size or a number of workers that cannot work.

    Raises:
        UsageError: it is outside its range.
    """
    refuse_outside("--batch-size", batch_size, 1, 4096)
    if workers is not None:
        refuse_outside("--workers", workers, 1, 256)
