"""SOURCE as users type it, such as `celeba:DIR`, to a checked and cached data set."""

import os
from collections.abc import Sequence
from pathlib import Path

from ccvae_deploy.errors import DataError, UsageError, nearest
from ccvae_deploy.schema import ImageSpec
from ccvae_deploy.storage.remote import local_path

from ..config import SettledConfig, TrainConfig, Uncertain, own_values
from . import chexpert, mnist
from .celeba import celeba_test, open_celeba
from .chexpert import open_chexpert
from .dataset import Dataset, Partition
from .embedded import open_portraits
from .mnist import open_idx_set
from .table import open_table, table_test

KINDS = ("portraits", "celeba", "chexpert", "mnist", "fashion-mnist", "table")
SPELLED = tuple(kind if kind == "portraits" else f"{kind}:DIR" for kind in KINDS)


def settled(config: TrainConfig) -> SettledConfig:
    """The settings with the data set's and the estimator's own values in place of None.

    A run stores these, so that it goes on alike whatever a later version prefers.

    Raises:
        UsageError: the data set cannot have what was asked for.
    """
    kind = _kind(config.data)
    own = _image(kind)
    size, channels = config.image_size or own.size, config.channels or own.channels
    chosen = config.model_copy(
        update={
            "image_size": size,
            "channels": channels,
            "likelihood": config.likelihood or ("bernoulli" if kind in ("mnist", "fashion-mnist") else "laplace"),
            "uncertain": _policy(kind, config.uncertain),
        }
    )
    if chosen.likelihood == "bernoulli" and chosen.likelihood_scale not in (None, 1):
        raise UsageError("--likelihood-scale is that of the laplace likelihood; bernoulli has none, leave it out")
    return SettledConfig(**own_values(chosen, size * size * channels) | chosen.model_dump(exclude_none=True))


def open_dataset(
    source: str,
    *,
    labels: Sequence[str] | None = None,
    size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    uncertain: Uncertain | None = None,
) -> Dataset:
    """Open a data set.

    Args:
        source: `portraits`, `celeba:DIR`, `chexpert:DIR`, `mnist:DIR`, `fashion-mnist:DIR` or `table:DIR`.
        labels: the labels to learn, in order; None takes the data set's own choice.
        size: height and width of the images; None takes 32 for mnist and fashion-mnist, 64 for the others.
        channels: None takes 1 for chexpert, mnist and fashion-mnist, 3 for the others.
        seed: draws the validation images where the data set has none of its own.
        uncertain: what uncertain labels count as; None takes `ignore` for chexpert. The others have none.

    Raises:
        UsageError: an unknown kind of source, a folder missing from it, or an image that it cannot give.
        DataError: the data do not agree with themselves.
        LabelError: an unknown label.
    """
    kind = _kind(source)
    policy, own = _policy(kind, uncertain), _image(kind)
    spec = ImageSpec(size=size or own.size, channels=channels or own.channels)  # type: ignore[arg-type]
    if kind == "portraits":
        return open_portraits(source, labels, spec)
    folder = _folder(source)
    if not folder.is_dir():
        raise DataError(f"--data {source}: {folder} is no folder")
    match kind:
        case "celeba":
            return open_celeba(source, folder, labels, spec)
        case "chexpert":
            assert policy is not None
            return open_chexpert(source, folder, labels, spec, seed, policy)
        case "mnist":
            return open_idx_set(mnist.MNIST, source, folder, labels, spec)
        case "fashion-mnist":
            return open_idx_set(mnist.FASHION_MNIST, source, folder, labels, spec)
    return open_table(source, folder, labels, spec, seed)


def test_partition(source: str, *, labels: Sequence[str], size: int, channels: int) -> tuple[Partition, str]:
    """The images of a data set that neither train nor validate, and their fingerprint; see `open_dataset`.

    Raises:
        UsageError: the data set has none.
    """
    spec = ImageSpec(size=size, channels=channels)  # type: ignore[arg-type]
    match _kind(source):
        case "celeba":
            return celeba_test(_folder(source), labels, spec)
        case "table":
            return table_test(_folder(source), labels, spec)
        case "mnist" | "fashion-mnist":
            # these validate on their test images
            data = open_dataset(source, labels=labels, size=size, channels=channels)
            return data.valid, data.fingerprint
        case kind:
            raise UsageError(f"{kind} has no test partition; leave out --partition test")


def _kind(source: str) -> str:
    kind, colon, place = source.partition(":")
    if kind not in KINDS:
        raise UsageError(f"--data {source!r}: {nearest(kind, SPELLED)}")
    if not (place or kind == "portraits") or (colon and kind == "portraits"):
        raise UsageError(f"--data {source!r}: expected {SPELLED[KINDS.index(kind)]}")
    return kind


def _folder(source: str) -> Path:
    """Where the images of a source lie; a shell leaves the `~` of a home alone behind a colon."""
    return Path(os.path.expanduser(local_path(source.partition(":")[2])))  # noqa: PTH111  (Path's raises without a home)


def _image(kind: str) -> ImageSpec:
    """The images of a data set where the user asks for no others."""
    if kind in ("mnist", "fashion-mnist"):
        return mnist.IMAGE
    return chexpert.IMAGE if kind == "chexpert" else ImageSpec()


def _policy(kind: str, asked: Uncertain | None) -> Uncertain | None:
    if kind == "chexpert":
        return asked or chexpert.DEFAULT_POLICY
    if asked is not None:
        raise UsageError(f"--uncertain {asked}: {kind} has no uncertain labels, only chexpert has; leave it out")
    return None
