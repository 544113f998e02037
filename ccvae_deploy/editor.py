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

from . import images, interventions
from .bundle import Bundle, open_bundle
from .errors import ImageError
from .images import Format, Picture
from .interventions import Block
from .noise import latent_noise
from .receipts import Receipt, Settings
from .request import EditRequest, Value, make_request
from .schema import LabelSet

if TYPE_CHECKING:
    from .label_table import Row
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
class Rendered:
    """One output as a file, and what the receipt needs of it.

    Attributes:
        data: the encoded file.
        seen: what the encoder sees of the written pixels, (C, S, S).
        pixel_change: mean absolute difference to the source at its own size, in levels of 255.
    """

    data: bytes
    seen: Array
    pixel_change: float


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

    def __init__(self, bundle: Bundle, batch_size: int = BATCH) -> None:
        self.bundle = bundle
        self.batch_size = batch_size
        self._head: tuple[Array, Array] | None = None

    @classmethod
    def open(
        cls,
        bundle: str | PathLike[str],
        *,
        provider: str = "auto",
        allow_torchscript: bool = False,
        threads: int = 0,
        batch_size: int = BATCH,
    ) -> Self:
        """Open and verify a bundle folder; see `open_bundle` for arguments and errors."""
        opened = open_bundle(Path(bundle), provider=provider, allow_torchscript=allow_torchscript, threads=threads)
        return cls(opened, batch_size)

    @property
    def labels(self) -> LabelSet:
        """The labels the bundle knows."""
        return self.bundle.manifest.labels

    def label(self, image: ImageLike, *, samples: int | None = None, seed: int = 0) -> "Row":
        """Label probabilities of one image; see `classify_picture` for arguments and errors."""
        from .classify import classify_picture

        return classify_picture(self, *_open(image), samples=samples, seed=seed)

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

        return images.to_pil(swap_picture(self, _open(image)[0], _open(reference)[0], labels, compose))

    def walk(self, image: ImageLike, labels: Sequence[str], **options: Unpack["WalkOptions"]) -> "Walk":
        """Walk through the latents of one or two labels; see `ccvae_deploy.traverse.walk` for options and errors."""
        from .traverse import walk

        return walk(self, _open(image)[0], labels, **options)

    def edit(
        self,
        image: ImageLike,
        *,
        samples: int = 1,
        seed: int = 0,
        mode: str = "sample",
        strength: float = 1.0,
        confidence: float = 0.9,
        compose: str = "residual",
        set: Mapping[str, Value] | None = None,
        **labels: Value,
    ) -> Edit:
        """Edit one image.

        Args:
            image: a path, a Pillow image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
            set: labels by name, for names that are no Python names or are taken by other arguments.
            labels: labels as keywords, such as `smiling=1`.

        Raises:
            ImageError: the image cannot be read.
            LabelError: an unknown label or a value outside its range.
            UsageError: another argument outside its range.
        """
        request = make_request(
            self.labels,
            {**(set or {}), **labels},
            samples=samples,
            seed=seed,
            mode=mode,
            strength=strength,
            confidence=confidence,
            compose=compose,
        )
        picture, name, digest = _open(image)
        encoded = self.encode(images.network_input(picture, self.bundle.manifest.image)[None])
        changed = self.changed(request, encoded, [name])[0]
        pictures = [render(picture, changed[k], encoded.decoded[0], request) for k in range(samples)]
        seen = np.stack([images.network_input(result, self.bundle.manifest.image) for result in pictures])
        after = self.classify(seen)
        settings = self.settings(request, "png").id
        receipts = [
            self.receipt(request, encoded, 0, k, after[k], images.pixel_change(picture, result), settings).placed(
                name, digest, ""
            )
            for k, result in enumerate(pictures)
        ]
        return Edit([images.to_pil(result) for result in pictures], receipts)

    def encode(self, seen: Array) -> Encoded:
        """Posterior means, label probabilities and reconstructions of network inputs (N, C, S, S)."""
        z = self.batched(lambda part: self.bundle.encode(part)[0], seen)
        decoded = self.decode(z)
        control = (255 * np.abs(seen - decoded).mean(axis=(1, 2, 3))).astype(np.float32)
        return Encoded(z, self.probabilities(z), decoded, control)

    def classify(self, seen: Array) -> Array:
        """Label probabilities at the posterior mean of network inputs (N, C, S, S): (N, Y)."""
        return self.probabilities(self.batched(lambda part: self.bundle.encode(part)[0], seen))

    def edited_latents(self, request: EditRequest, z: Array, before: Array, names: Sequence[str]) -> Array:
        """z with the asked blocks replaced, (N, K, Z); `names` are the relative paths that key the noise."""
        layout = self.bundle.manifest.layout
        noise = np.stack([latent_noise(request.seed, name, request.samples, layout.z_c) for name in names])
        target = (before > 0.5).astype(np.float32)
        replaced: dict[int, Array] = {}
        for asked in request.asked:
            columns = layout.slices[asked.label]
            block = self._block(target, asked.label, asked.value, request.strength)
            if request.mode == "closest":
                weight, bias = self._classifier_head()
                moved = interventions.closest(
                    z[:, columns],
                    weight[columns, asked.label],
                    float(bias[asked.label]),
                    block.scale,
                    int(asked.value),
                    request.confidence,
                )
                replaced[asked.label] = moved[:, None]
            elif request.mode == "mean":
                replaced[asked.label] = block.loc[:, None]
            else:
                spread = Block(block.loc[:, None], block.scale[:, None])
                replaced[asked.label] = interventions.draw(spread, noise[:, :, columns])
        copies = np.repeat(z[:, None], request.samples, axis=1)
        return interventions.intervene(copies, replaced, layout.slices)

    def changed(self, request: EditRequest, encoded: Encoded, names: Sequence[str]) -> Array:
        """Decoder output of the edited latents, (N, K, C, S, S)."""
        latents = self.edited_latents(request, encoded.z, encoded.before, names)
        flat = self.decode(latents.reshape(-1, latents.shape[-1]))
        return flat.reshape(*latents.shape[:2], *flat.shape[1:])

    def decode(self, z: Array) -> Array:
        """Decoder output of latents (M, Z): (M, C, S, S) in [0, 1]."""
        return self.batched(self.bundle.decode, z)

    def settings(self, request: EditRequest, format: str) -> Settings:
        """What decides the bytes of an output."""
        return Settings(
            bundle=self.bundle.digest,
            edit=request.name,
            asked=request.values,
            seed=request.seed,
            mode=request.mode,
            strength=request.strength,
            confidence=request.confidence,
            compose=request.compose,
            format=format,
        )

    def receipt(
        self, request: EditRequest, encoded: Encoded, row: int, sample: int, after: Array, change: float, settings: str
    ) -> Receipt:
        """The record of one output, its place yet to be filled in."""
        before = encoded.before[row]
        kept = np.ones(len(after), bool)
        reached = True
        for asked in request.asked:
            columns = self.labels.columns[asked.label]
            kept[columns] = False
            if self.labels.labels[asked.label].kind == "binary":
                reached &= bool((after[columns][0] > 0.5) == (asked.value >= 0.5))
            else:
                reached &= int(after[columns].argmax()) == int(asked.value)
        drift = float(np.abs(after - before)[kept].mean()) if kept.any() else 0.0
        return Receipt(
            sample=sample,
            seed=request.seed,
            mode=request.mode,
            asked=request.values,
            before=self.named(before),
            after=self.named(after),
            reached=reached,
            drift=drift,
            pixel_change=change,
            control=float(encoded.control[row]),
            settings=settings,
        )

    def named(self, probabilities: Array) -> dict[str, float]:
        """One row of probabilities (Y,) by name: `label`, or `label=class` for each class of a categorical label."""
        names: list[str] = []
        for label in self.labels.labels:
            names += [label.name] if label.kind == "binary" else [f"{label.name}={c}" for c in label.classes]
        return dict(zip(names, map(float, probabilities), strict=True))

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

    def _block(self, target: Array, label: int, value: float, strength: float) -> Block:
        """p(z_i|y_i) at the asked value for every source, from the conditional prior graph, (N, d)."""
        columns, block = self.labels.columns[label], self.bundle.manifest.layout.slices[label]

        def at(state: Array | float) -> Block:
            y = target.copy()
            y[:, columns] = state
            both = self.batched(lambda part: np.stack(self.bundle.conditional_prior(part), axis=1), y)
            return Block(both[:, 0, block], both[:, 1, block])

        if self.labels.labels[label].kind == "categorical":
            return at(np.eye(columns.stop - columns.start, dtype=np.float32)[int(value)])
        return interventions.between(at(0), at(1), interventions.position(value, strength))

    def _classifier_head(self) -> tuple[Array, Array]:
        """Weights (Zc, Y) and bias (Y,) of the linear classifier, read from its graph at 0 and at unit vectors."""
        if self._head is None:
            width = self.bundle.manifest.layout.z_c
            probes = np.concatenate([np.zeros((1, width), np.float32), np.eye(width, dtype=np.float32)])
            logits = self.batched(self.bundle.classify, probes)
            self._head = logits[1:] - logits[0], logits[0]
        return self._head

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


def render(picture: Picture, edited: Array, unedited: Array, request: EditRequest) -> Picture:
    """The result at the picture's own size: residual compositing, or the decoder's image."""
    if request.compose == "decode":
        return images.enlarge(edited, picture)
    return images.composite(picture, edited - unedited)


def write_out(
    picture: Picture, edited: Array, unedited: Array, request: EditRequest, format: Format, editor: Editor
) -> Rendered:
    """Render, encode, and look again at what was written: lossy files are decoded from their bytes."""
    result = render(picture, edited, unedited, request)
    data = images.encode(result, format)
    written = result if format == "png" else images.decode(data)
    seen = images.network_input(written, editor.bundle.manifest.image)
    return Rendered(data, seen, images.pixel_change(picture, written))


def _open(image: Any) -> tuple[Picture, str, str]:
    """Picture, name for the noise, and sha256 of the source's bytes."""
    if isinstance(image, str | PathLike):
        path = Path(image)
        data = images.read_file(path)
        return images.decode(data), path.name, hashlib.sha256(data).hexdigest()
    if isinstance(image, Image.Image):
        picture = images.from_pil(image)
    elif isinstance(image, np.ndarray):
        picture = images.from_array(image)
    else:
        raise ImageError(f"a {type(image).__name__} is no image; give a path, a Pillow image or a uint8 array")
    return picture, "", hashlib.sha256(picture.pixels.tobytes()).hexdigest()
