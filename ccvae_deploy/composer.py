"""`Composer`: the graphs of a bundle and the interventions, composed on arrays. Touches nothing outside memory.

Graphs always run on batches of one size, the last one padded, so that a result does not depend on how many others are
edited beside it. `Editor` does single images with it, the folder pipeline batches of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Self, TypedDict, Unpack

import numpy as np

from . import images
from .arrays import Array
from .bundle import Bundle, open_bundle
from .edits.latents import Latents
from .edits.outcome import drift, outcomes
from .edits.request import CONFIDENCE, Asking, EditRequest, RequestOptions, make_request
from .given import refuse_outside
from .limits import BATCH, MAX_PIXELS, refuse_speed
from .receipts import Receipt, Settings, file_facts
from .schema import LabelSet
from .storage.remote import local_path


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

    def of(self, rows: Sequence[int]) -> "Encoded":
        """The same of some of the sources."""
        return Encoded(self.z[rows], self.before[rows], self.decoded[rows], self.control[rows])


@dataclass(frozen=True)
class Made:
    """One output, as its receipt tells of it.

    Attributes:
        change: its pixel change, None where the source was not read.
        attempt: which draw of the sample it is, counted from 0.
        output: its name, and `data` its bytes, where it is in a file.
    """

    change: float | None
    attempt: int
    output: str = ""
    data: bytes = b""


class OpenOptions(TypedDict, total=False):
    """How a bundle is opened and run; every key has a default.

    Attributes:
        provider: auto, the default, cpu, cuda or tensorrt; anything but auto is strict.
        allow_torchscript: open a TorchScript bundle, False by default; it is code that runs as you, so only from a
            source you trust.
        threads: threads of one graph run, up to 256; 0, the default, leaves it to the backend.
        batch_size: images per graph run, 1 to 4,096, 16 by default; changes no result.
        max_pixels: larger images are refused; 100,000,000 by default, at most 178,956,970.
    """

    provider: str
    allow_torchscript: bool
    threads: int
    batch_size: int
    max_pixels: int


class Composer:
    """Encodes, edits, decodes and classifies batches, and says what came of it.

    Attributes:
        bundle: the verified bundle whose graphs run.
        batch_size: images per graph run; changes no result.
        max_pixels: larger images are refused.
        latents: the interventions, with the bundle's conditional prior and classifier.
    """

    def __init__(self, bundle: Bundle, batch_size: int = BATCH, max_pixels: int = MAX_PIXELS) -> None:
        refuse_outside("--max-pixels", max_pixels, 1, images.MOST_PIXELS)
        refuse_speed(batch_size)
        self.bundle = bundle
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.latents = Latents(bundle, self.batched)

    @classmethod
    def open(cls, bundle: str | PathLike[str], **options: Unpack[OpenOptions]) -> Self:
        """Open and verify a bundle folder; see `OpenOptions` for the options.

        Raises:
            UsageError: an option outside its range.
            BundleError: the bundle is missing, damaged, unsafe, or of a newer version.
            ProviderError: the provider cannot be used.
        """
        batch_size, max_pixels = options.pop("batch_size", BATCH), options.pop("max_pixels", MAX_PIXELS)
        return cls(open_bundle(local_path(bundle), **options), batch_size, max_pixels)  # type: ignore[misc]

    @property
    def labels(self) -> LabelSet:
        """The labels the bundle knows."""
        return self.bundle.manifest.labels

    def request(self, asked: Asking, **options: Unpack[RequestOptions]) -> EditRequest:
        """A request that this bundle can do; see `make_request` for arguments and errors.

        Raises:
            BundleError: the classifier is not of the form that `closest` and `vary` need.
        """
        request = make_request(self.labels, asked, **options)
        self.latents.check(request)
        return request

    def posterior(self, seen: Array) -> tuple[Array, Array]:
        """Mean and scale of q(z|x) of network inputs (N, C, S, S), both (N, Z)."""
        both = self.batched(lambda part: np.stack(self.bundle.encode(part), axis=1), seen)
        return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])

    def encode(self, seen: Array) -> Encoded:
        """Posterior means, label probabilities and reconstructions of network inputs (N, C, S, S)."""
        return self.encoded(seen, self.posterior(seen)[0])

    def encoded(self, seen: Array, z: Array) -> Encoded:
        """What `encode` gives of images (N, C, S, S) whose posterior means (N, Z) are known."""
        decoded = self.decode(z)
        control = (255 * np.abs(seen - decoded).mean(axis=(1, 2, 3))).astype(np.float32)
        return Encoded(z, self.probabilities(z), decoded, control)

    def classify(self, seen: Array) -> Array:
        """Label probabilities at the posterior mean of network inputs (N, C, S, S): (N, Y)."""
        return self.probabilities(self.posterior(seen)[0])

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

    def receipts(
        self,
        request: EditRequest,
        encoded: Encoded,
        row: int,
        after: Array,
        made: Sequence[Made],
        *,
        source: str,
        digest: str,
        settings: str,
    ) -> list[Receipt]:
        """The records of all samples of a source.

        Args:
            row: of the source in `encoded`; `digest` is the sha256 of its bytes.
            after: label probabilities of the outputs, (K, Y).
        """
        before = encoded.before[row]
        found = outcomes(self.labels, request.asked, before, after)
        reached = np.all([one.reached for one in found.values()], axis=0)
        moved = np.asarray(drift(self.labels, found, before, after))
        asked, was = request.values(self.labels), self.named(before)
        return [
            Receipt(
                source=source,
                source_sha256=digest,
                output=one.output,
                **file_facts(one.data),
                sample=k,
                attempt=one.attempt,
                seed=request.seed,
                mode=request.mode,
                asked=asked,
                before=was,
                after=self.named(after[k]),
                reached=bool(reached[k]),
                drift=float(moved[k]),
                pixel_change=one.change,
                control=float(encoded.control[row]),
                settings=settings,
            )
            for k, one in enumerate(made)
        ]

    def named(self, probabilities: Array) -> dict[str, float]:
        """One row of probabilities (Y,) by name: `label`, or `label=class` for each class of a categorical label."""
        return dict(zip(self.labels.column_names, probabilities.tolist(), strict=True))

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
