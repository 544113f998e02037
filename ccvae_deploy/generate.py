"""Images from labels alone: y, then z_c ~ p(z_c|y), z_s ~ N(0, I), then the decoder. Writes below `out` only."""

import hashlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import images, interventions
from .arrays import Array
from .composer import Composer
from .edits.noise import latent_noise
from .edits.outcome import outcome
from .edits.request import Asking, refuse_seed
from .errors import ImageError, underway
from .folder import check_out, output_name
from .given import refuse_outside, wholes
from .limits import BATCH, refuse_speed
from .pictures.film import Cell, film_grid
from .receipts import Figure, Figures, OutputRecord, RunSettings, file_facts
from .records.results import Results, RunOutcome, open_results
from .schema import LabelSet
from .storage.remote import local_path
from .terminal.progress import progress
from .work.stream import chunks

MAX_COUNT = 1_000_000
SHEET_ROWS, SHEET_COLUMNS = 8, 8


class GenerateSettings(RunSettings):
    """What decides the bytes of a generated image, besides its number."""

    asked: dict[str, float]
    seed: int


class GeneratedReceipt(OutputRecord):
    """The record of one generated image.

    Attributes:
        source: the image's number, which keys its noise; nothing was read, so `source_sha256` is that of its latents.
        asked: the labels that were set; `drawn` those that came from the label prior, as 0, 1 or the class's index.
        after: label probabilities of the written pixels.
        reached: every asked label is on the asked side of 0.5, or is the most probable class.
        agreement: share of all labels, asked and drawn, of which that holds; None where no label was drawn.
    """

    seed: int
    asked: dict[str, float]
    drawn: dict[str, float]
    after: Figures
    reached: bool
    agreement: Figure | None


@dataclass(frozen=True)
class Generated:
    """Images and what they were made from, N of them.

    Attributes:
        images: decoder output, (N, C, S, S) in [0, 1].
        z: latents, (N, Z).
        y: per image and label the value, (N, L): 0 to 1, or the class's index; NaN where it was neither set nor drawn.
    """

    images: Array
    z: Array
    y: Array


def generate(composer: Composer, numbers: Iterable[int], *, set: Asking = (), seed: int = 0) -> Generated:
    """Generate the images of these numbers; one image depends on its number, the seed and the labels alone.

    Without a conditional prior z_c ~ N(0, I), and a label that is set is drawn given that the classifier is sure of it.

    Args:
        set: label to value, or `LABEL=VALUE` strings; the other labels are drawn from the label prior.

    Raises:
        LabelError: an unknown label or a value outside its range.
        UsageError: no number or one that is not whole, a seed outside its range, or the bundle has no conditional prior
            and a value lies between 0 and 1.
    """
    numbers = wholes("numbers", numbers)
    refuse_seed(seed)
    request = composer.request(set, seed=seed) if set else None
    layout, labels = composer.bundle.manifest.layout, composer.labels
    names = [f"generate/{_name(number)}" for number in numbers]
    noise = np.concatenate([latent_noise(seed, name, 1, layout.size + len(labels)) for name in names])
    z, y = noise[:, : layout.size].copy(), np.full((len(names), len(labels)), np.nan, np.float32)
    states = np.zeros((len(names), labels.width), np.float32)
    if composer.latents.has_modes:
        y = draw_labels(labels, composer.bundle.manifest.label_prior, noise[:, layout.size :])
        states = _columns(labels, y)
        z[:, : layout.z_c] = interventions.draw(composer.latents.prior(states), z[:, : layout.z_c])
    if request:
        z = composer.edited_latents(request, z, states, names)[:, 0]
        y[:, [one.label for one in request.asked]] = [one.value for one in request.asked]
    return Generated(composer.decode(z), z, y)


def draw_labels(labels: LabelSet, prior: Sequence[float], noise: Array) -> Array:
    """y ~ p(y), every label on its own: Bernoulli or categorical, (N, L).

    Args:
        prior: per column of y its probability.
        noise: standard normal (N, L); its distribution function makes it uniform.
    """
    uniform = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)), otypes=[np.float64])(noise)
    y = np.empty(noise.shape, np.float32)
    for i, (label, columns) in enumerate(zip(labels.labels, labels.columns, strict=True)):
        shares = np.asarray(prior[columns], np.float64)
        if label.kind == "binary":
            y[:, i] = uniform[:, i] < shares[0]
        else:
            ends = np.cumsum(shares) / max(shares.sum(), np.finfo(np.float64).tiny)
            y[:, i] = np.minimum(np.searchsorted(ends, uniform[:, i], side="right"), len(shares) - 1)
    return y


def generate_folder(
    *,
    bundle: Path | str,
    count: int,
    set: Asking = (),
    out: Path | str = "generated",
    seed: int = 0,
    provider: str = "auto",
    batch_size: int = BATCH,
    overwrite: bool = False,
    sheet: bool = True,
    allow_torchscript: bool = False,
) -> RunOutcome:
    """Write `count` generated images as PNG files, each with a receipt.

    What an earlier run with the same settings has made is skipped, and a greater count adds to it.

    Args:
        set: label to value, or `LABEL=VALUE` strings; none at all generates freely.
        overwrite: replace images that were made with other settings.

    Raises:
        CCVAEError: refused, and nothing was written; or the disk is full.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    refuse_speed(batch_size)
    refuse_outside("--count", count, 1, MAX_COUNT)
    refuse_seed(seed)
    out = local_path(out)
    check_out(out, [])
    composer = Composer.open(bundle, provider=provider, allow_torchscript=allow_torchscript, batch_size=batch_size)
    request = composer.request(set, seed=seed) if set else None
    asked = {one.label: one.value for one in request.asked if one.value is not None} if request else {}
    settings = GenerateSettings(
        bundle=composer.bundle.digest,
        edit=request.name if request else "generated",
        asked={composer.labels.names[label]: value for label, value in asked.items()},
        seed=seed,
    )
    plan = [(_name(n), [output_name(_name(n), settings.edit, 0, "png")]) for n in range(count)]
    began, written = time.monotonic(), 0
    with (
        open_results(out, settings, plan, overwrite=overwrite, sheet=sheet) as results,
        progress("generate", count, "images") as bar,
        underway(),
    ):
        for numbers in chunks(range(count), batch_size):
            todo = [n for n in numbers if results.done(*plan[n]) is None]
            bar.advance(len(numbers) - len(todo))
            if todo:
                made = generate(composer, todo, set=set, seed=seed)
                _write(results, composer, made, [plan[n] for n in todo], asked, settings)
                written += len(todo)
                bar.advance(len(todo))
        path = _write_sheet(results, plan, settings.edit) if sheet else None
        return results.outcome(
            composer,
            list(asked),
            {name for name, _ in plan},
            sheet=path,
            written=written,
            skipped=count - written,
            seconds=time.monotonic() - began,
        )


def _write(
    results: Results,
    composer: Composer,
    made: Generated,
    plan: Sequence[tuple[str, Sequence[str]]],
    asked: Mapping[int, float],
    settings: GenerateSettings,
) -> None:
    """Write a batch of images, classified as they were written."""
    spec = composer.bundle.manifest.image
    pictures = [images.from_unit(image) for image in made.images]
    after = composer.classify(np.stack([images.network_input(picture, spec) for picture in pictures]))
    names = composer.labels.names
    for row, (source, outputs) in enumerate(plan):
        values = {i: value for i, value in enumerate(made.y[row].tolist()) if not math.isnan(value)}
        hits = {i: bool(outcome(composer.labels, i, value, after[row]).reached) for i, value in values.items()}
        data = images.encode(pictures[row], "png")
        receipt = GeneratedReceipt(
            source=source,
            source_sha256=hashlib.sha256(made.z[row].tobytes()).hexdigest(),
            output=outputs[0],
            **file_facts(data),
            seed=settings.seed,
            asked=settings.asked,
            drawn={names[i]: value for i, value in values.items() if i not in asked},
            after=composer.named(after[row]),
            reached=all(hits[i] for i in asked),
            agreement=sum(hits.values()) / len(hits) if len(hits) > len(asked) else None,
            settings=settings.id,
        )
        results.begin(source, receipt.source_sha256, outputs)
        results.write(outputs[0], data)
        results.record(source, [receipt])


def _write_sheet(results: Results, plan: Sequence[tuple[str, Sequence[str]]], title: str) -> Path | None:
    """The first images as they lie on disk."""
    cells = []
    for _, outputs in plan[: SHEET_ROWS * SHEET_COLUMNS]:
        # one that was damaged since is left out
        with suppress(ImageError):
            cells.append(Cell(results.picture(outputs[0])))
    return None if not cells else results.write_sheet(film_grid(list(chunks(cells, SHEET_COLUMNS)), title))


def _name(number: int) -> str:
    return f"{number:06d}"


def _columns(labels: LabelSet, y: Array) -> Array:
    """Drawn labels (N, L) as the columns of y, (N, Y): 0 or 1 per binary label, one-hot per categorical one."""
    wide = np.zeros((len(y), labels.width), np.float32)
    for i, (label, columns) in enumerate(zip(labels.labels, labels.columns, strict=True)):
        if label.kind == "binary":
            wide[:, columns.start] = y[:, i]
        else:
            wide[np.arange(len(y)), columns.start + y[:, i].astype(np.intp)] = 1
    return wide
