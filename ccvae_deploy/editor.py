"""`Editor`: the Python API, everything that is done with one image at a time. Reads images, writes nothing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import images
from .arrays import Array
from .bundle import Bundle
from .classify import classify_picture
from .composer import Composer, Made, OpenOptions
from .edits.redraw import Slot, keep_drawing
from .edits.request import CONFIDENCE, Asking, Value, pairs
from .errors import ImageError
from .generate import MAX_COUNT, generate
from .given import refuse_outside
from .images import Picture
from .pictures import compositing
from .pictures.decoding import open_picture, told
from .pictures.rendering import render
from .receipts import Receipt
from .records.label_table import Row
from .swap import swap_picture
from .traverse import Walk, WalkOptions, walk
from .variance import Variance, variance_maps

ImageLike = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""An image: a path, a Pillow image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4)."""


@dataclass(frozen=True)
class Look:
    """One output in memory, and what the encoder sees of it, (C, S, S)."""

    picture: Picture
    seen: Array


@dataclass(frozen=True)
class Edit:
    """The results of one image: pictures and their receipts, one per sample."""

    images: list[Image.Image]
    receipts: list[Receipt]


class Editor:
    """Edits images with a bundle; its methods are called as the commands are.

    Attributes:
        composer: the bundle's graphs and interventions on arrays.

    >>> editor = Editor.open("runs/latest/bundle-onnx")         # doctest: +SKIP
    >>> edit = editor.edit("anna.jpg", smiling=1, samples=8)    # doctest: +SKIP
    >>> edit.images[0].save("anna-smiling.png")                 # doctest: +SKIP
    """

    def __init__(self, composer: Composer) -> None:
        self.composer = composer

    @classmethod
    def open(cls, bundle: str | PathLike[str], **options: Unpack[OpenOptions]) -> Self:
        """Open and verify a bundle folder; see `OpenOptions` for the options and `Composer.open` for errors."""
        return cls(Composer.open(bundle, **options))

    @property
    def bundle(self) -> Bundle:
        """The verified bundle whose graphs run."""
        return self.composer.bundle

    def classify(self, image: ImageLike, *, samples: int | None = None, seed: int = 0) -> Row:
        """Label probabilities of one image; see `classify_picture` for arguments and errors."""
        return classify_picture(self.composer, *_open(image, self.composer.max_pixels), samples=samples, seed=seed)

    def generate(
        self, count: int = 1, *, seed: int = 0, set: Asking | None = None, **labels: Value
    ) -> list[Image.Image]:
        """Images of given labels; see `ccvae_deploy.generate.generate` for errors."""
        refuse_outside("--count", count, 1, MAX_COUNT)
        made = generate(self.composer, range(count), set=[*pairs(set or ()), *labels.items()], seed=seed)
        return [images.to_pil(images.from_unit(image)) for image in made.images]

    def swap(
        self, image: ImageLike, reference: ImageLike, labels: Sequence[str], *, compose: str = "residual"
    ) -> Image.Image:
        """An image with the named labels' blocks of a reference; see `swap_picture` for errors."""
        picture, other = (_open(one, self.composer.max_pixels)[0] for one in (image, reference))
        return images.to_pil(swap_picture(self.composer, picture, other, labels, compose))

    def traverse(self, image: ImageLike, labels: Sequence[str], **options: Unpack[WalkOptions]) -> Walk:
        """Walk through the latents of one or two labels; see `ccvae_deploy.traverse.walk` for options and errors."""
        return walk(self.composer, _open(image, self.composer.max_pixels)[0], labels, **options)

    def edit(
        self,
        image: ImageLike,
        *,
        samples: int = 1,
        seed: int = 0,
        mode: str = "sample",
        strength: float = 1.0,
        confidence: float = CONFIDENCE,
        compose: str = "residual",
        until_reached: int = 1,
        vary: Sequence[str] = (),
        set: Asking | None = None,
        **labels: Value,
    ) -> Edit:
        """Edit one image.

        Args:
            image: a path, a Pillow image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
            samples, seed, mode, strength, confidence, compose, until_reached: as in `EditRequest`.
            vary: labels to redraw within the state they have.
            set: labels by name, or `LABEL=VALUE` texts, for names that are no Python names or are taken by other
                arguments.
            labels: labels as keywords, such as `smiling=1`.

        Raises:
            ImageError: the image cannot be read.
            LabelError: an unknown label or a value outside its range.
            UsageError: another argument outside its range.
        """
        composer = self.composer
        request = composer.request(
            [*pairs(set or ()), *labels.items()],
            vary=vary,
            samples=samples,
            seed=seed,
            mode=mode,
            strength=strength,
            confidence=confidence,
            compose=compose,
            until_reached=until_reached,
        )
        picture, name, digest = _open(image, composer.max_pixels)
        encoded = composer.encode(images.network_input(picture, self.bundle.manifest.image)[None])

        def look(_: Sequence[Slot], decoded: Array) -> list[Look]:
            results = [render(picture, image, encoded.decoded[0], request.compose) for image in decoded]
            return [Look(result, images.network_input(result, self.bundle.manifest.image)) for result in results]

        slots = [(0, k) for k in range(samples)]
        first = look(slots, composer.changed(request, encoded, [name])[0])
        kept = keep_drawing(composer, request, encoded, [name], dict(zip(slots, first, strict=True)), look)
        settings = composer.settings(request, "png").id
        made = [Made(compositing.pixel_change(picture, one.result.picture), one.attempt) for one in kept.values()]
        after = np.stack([one.after for one in kept.values()])
        receipts = composer.receipts(request, encoded, 0, after, made, source=name, digest=digest, settings=settings)
        return Edit([images.to_pil(one.result.picture) for one in kept.values()], receipts)

    def variance(
        self,
        image: ImageLike,
        *,
        labels: Sequence[str] = (),
        samples: int = 64,
        seed: int = 0,
    ) -> Variance:
        """Where draws of each label differ while it keeps its state, and everything else stays.

        Args:
            labels: which labels, in this order; none means all.
            samples: draws per label, 2 to 100.

        Raises:
            ImageError: the image cannot be read.
            LabelError: an unknown label.
            UsageError: `samples` or `seed` outside its range.
        """
        picture, name, _ = _open(image, self.composer.max_pixels)
        return variance_maps(self.composer, picture, name, labels, samples, seed)


def _open(image: Any, max_pixels: int) -> tuple[Picture, str, str]:
    """Picture, name for the noise, and sha256 of the file, or of shape, pixels and alpha of what is in memory."""
    if isinstance(image, str | PathLike):
        path = Path(image)
        picture, data = open_picture(path, max_pixels=max_pixels)
        return picture, path.name, hashlib.sha256(data).hexdigest()
    if isinstance(image, Image.Image):
        with told(max_pixels):
            images.refuse_large(*image.size, max_pixels)
            picture = images.from_pil(image)
    elif isinstance(image, np.ndarray):
        picture = images.from_array(image)
        images.refuse_large(*picture.size, max_pixels)
    else:
        raise ImageError(f"a {type(image).__name__} is no image; give a path, a Pillow image or a uint8 array")
    digest = hashlib.sha256(str(picture.pixels.shape).encode())
    for part in (picture.pixels, picture.alpha):
        digest.update(b"" if part is None else part.tobytes())
    return picture, "", digest.hexdigest()
