"""`Editor`: graphs and interventions composed, on arrays and on single images. Reads images, writes nothing.

The folder pipeline runs the same stages on batches. Graphs always run on batches of one size, the last one padded,
so that a result does not depend on how many others are edited beside it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import images
from .bundle import Bundle, open_bundle
from .edits.latents import Latents
from .edits.outcome import drift, outcomes
from .edits.redraw import Place, keep_drawing
from .edits.request import CONFIDENCE, EditRequest, RequestOptions, Value, make_request
from .errors import ImageError, UsageError
from .images import Picture
from .pictures import compositing
from .pictures.rendering import render
from .receipts import Receipt, Settings
from .schema import LabelSet
from .variance import Variance, variance_maps
from .work.stream import refuse_speed

if TYPE_CHECKING:
    from .records.label_table import Row
    from .traverse import Walk, WalkOptions

Array = NDArray[np.float32]
ImageLike = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""An image: a path, a Pillow image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4)."""

BATCH = 16


@dataclass(frozen=True)
class Encoded:
    """What the graphs say of a batch of sources.

    Attributes:
        z: posterior means, (N, Z).
        before: label probabilities at the posterior mean, (N, Y).
        decoded: reconstructions, (N, C, S, S).
        control: mean absolute difference of input and reconstruction per image, in levels of 255, (N,).
    """

    z: Array
    before: Array
    decoded: Array
    control: Array


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
    """Edits images with a bundle.

    >>> editor = Editor.open("runs/latest/bundle-onnx")         # doctest: +SKIP
    >>> edit = editor.edit("anna.jpg", smiling=1, samples=8)    # doctest: +SKIP
    >>> edit.images[0].save("anna-smiling.png")                 # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle, batch_size: int = BATCH, max_pixels: int = images.MAX_PIXELS) -> None:
        if not 1 <= max_pixels <= images.MOST_PIXELS:
            raise UsageError(f"--max-pixels {max_pixels}: expected 1 to {images.MOST_PIXELS}")
        refuse_speed(batch_size)
        self.bundle = bundle
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.latents = Latents(bundle, self.batched)

    @classmethod
    def open(
        cls,
        bundle: str | PathLike[str],
        *,
        provider: str = "auto",
        allow_torchscript: bool = False,
        threads: int = 0,
        batch_size: int = BATCH,
        max_pixels: int = images.MAX_PIXELS,
    ) -> Self:
        """Open and verify a bundle folder; see `open_bundle` for arguments and errors.

        Args:
            batch_size: images per graph run; changes no result.
            max_pixels: larger images are refused; at most 178,956,970.
        """
        opened = open_bundle(Path(bundle), provider=provider, allow_torchscript=allow_torchscript, threads=threads)
        return cls(opened, batch_size, max_pixels)

    @property
    def labels(self) -> LabelSet:
        """The labels the bundle knows."""
        return self.bundle.manifest.labels

    def label(self, image: ImageLike, *, samples: int | None = None, seed: int = 0) -> "Row":
        """Label probabilities of one image; see `classify_picture` for arguments and errors."""
        from .classify import classify_picture

        return classify_picture(self, *_open(image, self.max_pixels), samples=samples, seed=seed)

    def generate(
        self, count: int = 1, *, seed: int = 0, set: Mapping[str, Value] | None = None, **labels: Value
    ) -> list[Image.Image]:
        """Images of given labels; see `ccvae_deploy.generate.generate` for errors."""
        from .generate import generate, to_picture

        made = generate(self, range(count), set={**(set or {}), **labels}, seed=seed)
        return [images.to_pil(to_picture(image)) for image in made.images]

    def swap(
        self, image: ImageLike, reference: ImageLike, labels: Sequence[str], *, compose: str = "residual"
    ) -> Image.Image:
        """An image with the named labels' blocks of a reference; see `swap_picture` for errors."""
        from .swap import swap_picture

        return images.to_pil(
            swap_picture(self, _open(image, self.max_pixels)[0], _open(reference, self.max_pixels)[0], labels, compose)
        )

    def walk(self, image: ImageLike, labels: Sequence[str], **options: Unpack["WalkOptions"]) -> "Walk":
        """Walk through the latents of one or two labels; see `ccvae_deploy.traverse.walk` for options and errors."""
        from .traverse import walk

        return walk(self, _open(image, self.max_pixels)[0], labels, **options)

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
        set: Mapping[str, Value] | None = None,
        **labels: Value,
    ) -> Edit:
        """Edit one image.

        Args:
            image: a path, a Pillow image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
            samples, seed, mode, strength, confidence, compose, until_reached: as in `EditRequest`.
            vary: labels to redraw within the state they have.
            set: labels by name, for names that are no Python names or are taken by other arguments.
            labels: labels as keywords, such as `smiling=1`.

        Raises:
            ImageError: the image cannot be read.
            LabelError: an unknown label or a value outside its range.
            UsageError: another argument outside its range.
        """
        request = self.request(
            {**(set or {}), **labels},
            vary=vary,
            samples=samples,
            seed=seed,
            mode=mode,
            strength=strength,
            confidence=confidence,
            compose=compose,
            until_reached=until_reached,
        )
        picture, name, digest = _open(image, self.max_pixels)
        encoded = self.encode(images.network_input(picture, self.bundle.manifest.image)[None])

        def look(_: Sequence[Place], decoded: Array) -> list[Look]:
            results = [render(picture, image, encoded.decoded[0], request.compose) for image in decoded]
            return [Look(result, images.network_input(result, self.bundle.manifest.image)) for result in results]

        places = [(0, k) for k in range(samples)]
        first = look(places, self.changed(request, encoded, [name])[0])
        kept = keep_drawing(self, request, encoded, [name], dict(zip(places, first, strict=True)), look)
        settings = self.settings(request, "png").id
        receipts = []
        for (_, k), one in kept.items():
            change = compositing.pixel_change(picture, one.result.picture)
            receipt = self.receipt(request, encoded, 0, k, one.after, change, settings, one.attempt)
            receipts.append(receipt.placed(name, digest, ""))
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
        picture, name, _ = _open(image, self.max_pixels)
        return variance_maps(self, picture, name, labels, samples, seed)

    def request(self, asked: Mapping[str, Value] | Sequence[str], **options: Unpack[RequestOptions]) -> EditRequest:
        """A request that this bundle can do; see `make_request` for arguments and errors.

        Raises:
            BundleError: the classifier is not of the form that `closest` and `vary` need.
        """
        request = make_request(self.labels, asked, **options)
        self.latents.check(request)
        return request

    def encode(self, seen: Array) -> Encoded:
        """Posterior means, label probabilities and reconstructions of network inputs (N, C, S, S)."""
        z = self.batched(lambda part: self.bundle.encode(part)[0], seen)
        decoded = self.decode(z)
        control = (255 * np.abs(seen - decoded).mean(axis=(1, 2, 3))).astype(np.float32)
        return Encoded(z, self.probabilities(z), decoded, control)

    def classify(self, seen: Array) -> Array:
        """Label probabilities at the posterior mean of network inputs (N, C, S, S): (N, Y)."""
        return self.probabilities(self.batched(lambda part: self.bundle.encode(part)[0], seen))

    def decode(self, z: Array) -> Array:
        """Decoder output of latents (N, Z): (N, C, S, S) in [0, 1]."""
        return self.batched(self.bundle.decode, z)

    def edited_latents(
        self, request: EditRequest, z: Array, before: Array, names: Sequence[str], attempt: int = 0
    ) -> Array:
        """z with the asked blocks replaced, (N, K, Z); `names` are the relative paths that key the noise."""
        return self.latents.edited(request, z, before, names, attempt)

    def changed(self, request: EditRequest, encoded: Encoded, names: Sequence[str]) -> Array:
        """Decoder output of the edited latents, (N, K, C, S, S)."""
        latents = self.edited_latents(request, encoded.z, encoded.before, names)
        flat = self.decode(latents.reshape(-1, latents.shape[-1]))
        return flat.reshape(*latents.shape[:2], *flat.shape[1:])

    def settings(self, request: EditRequest, format: str, read: bool = True) -> Settings:
        """What decides the bytes of an output; `read` is False where the sources are not read."""
        return Settings(
            bundle=self.bundle.digest,
            edit=request.name,
            asked=request.values(self.labels),
            seed=request.seed,
            mode=request.mode,
            strength=request.strength,
            # where nothing looks at it, it makes no other settings
            confidence=request.confidence if self.latents.reads_confidence(request) else CONFIDENCE,
            compose=request.compose,
            format=format,
            until_reached=request.until_reached,
            read=read,
        )

    def receipt(
        self,
        request: EditRequest,
        encoded: Encoded,
        row: int,
        sample: int,
        after: Array,
        change: float | None,
        settings: str,
        attempt: int = 0,
    ) -> Receipt:
        """The record of one output, its place yet to be filled in."""
        before = encoded.before[row]
        found = outcomes(self.labels, request.asked, before, after)
        return Receipt(
            sample=sample,
            attempt=attempt,
            seed=request.seed,
            mode=request.mode,
            asked=request.values(self.labels),
            before=self.named(before),
            after=self.named(after),
            reached=all(one.reached for one in found.values()),
            drift=drift(self.labels, found, before, after),
            pixel_change=change,
            control=float(encoded.control[row]),
            settings=settings,
        )

    def named(self, probabilities: Array) -> dict[str, float]:
        """One row of probabilities (Y,) by name: `label`, or `label=class` for each class of a categorical label."""
        return dict(zip(self.labels.column_names, map(float, probabilities), strict=True))

    def probabilities(self, z: Array) -> Array:
        """q(y|z_c) of latents (N, Z), of which only the characteristic ones count: (N, Y)."""
        logits = self.batched(self.bundle.classify, np.ascontiguousarray(z[:, : self.bundle.manifest.layout.z_c]))
        probabilities = np.empty_like(logits)
        for label, columns in zip(self.labels.labels, self.labels.columns, strict=True):
            part = logits[:, columns].astype(np.float64)
            if label.kind == "binary":
                probabilities[:, columns] = 1 / (1 + np.exp(-np.clip(part, -700, 700)))
            else:
                odds = np.exp(part - part.max(axis=1, keepdims=True))
                probabilities[:, columns] = odds / odds.sum(axis=1, keepdims=True)
        return probabilities

    def batched(self, graph: Callable[[Array], Array], rows: Array) -> Array:
        """Run a graph on batches of one size; the last is padded with copies of its first row."""
        results = []
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            missing = self.batch_size - len(part)
            if missing:
                part = np.concatenate([part, np.repeat(part[:1], missing, axis=0)])
            results.append(graph(part)[: self.batch_size - missing])
        return np.concatenate(results)


def _open(image: Any, max_pixels: int) -> tuple[Picture, str, str]:
    """Picture, name for the noise, and sha256 of the source's bytes."""
    if isinstance(image, str | PathLike):
        path = Path(image)
        picture, data = images.open_picture(path, max_pixels=max_pixels)
        return picture, path.name, hashlib.sha256(data).hexdigest()
    if isinstance(image, Image.Image):
        with images.told(max_pixels):
            images.refuse_large(*image.size, max_pixels)
            picture = images.from_pil(image)
    elif isinstance(image, np.ndarray):
        picture = images.from_array(image)
        images.refuse_large(*picture.size, max_pixels)
    else:
        raise ImageError(f"a {type(image).__name__} is no image; give a path, a Pillow image or a uint8 array")
    return picture, "", hashlib.sha256(picture.pixels.tobytes()).hexdigest()
