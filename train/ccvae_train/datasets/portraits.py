"""Made portraits with known factors: every pixel that a label may touch is known. Pure, deterministic by (seed, index).

Labels are drawn independently. For each label both states' numbers are always drawn, so that flipping a label changes
nothing else. Beside the labels vary background, pose, light, clothes, hair style, face shape, eyes and nose.
"""

import gc
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ccvae_deploy.machine.resources import usable_cores
from ccvae_deploy.schema import Label
from ccvae_deploy.terminal.progress import Reporter, progress

from . import portrait_parts as parts
from .portrait_parts import Colour, Pen

VERSION = 1
"""Part of the cache's key: another drawing is another data set."""

FREQUENCIES = {
    "smiling": 0.5,
    "eyeglasses": 0.4,
    "bangs": 0.4,
    "dark_hair": 0.5,
    "pale_skin": 0.45,
    "necktie": 0.4,
    "beard": 0.35,
    "young": 0.55,
}
LABELS = tuple(Label(name=name) for name in FREQUENCIES)
SMILING, EYEGLASSES, BANGS, DARK_HAIR, PALE_SKIN, NECKTIE, BEARD, YOUNG = range(len(LABELS))

OVERSAMPLING = 4
CHUNK = 50

DARK_HAIR_COLOURS: tuple[Colour, ...] = ((22, 18, 18), (44, 28, 20), (60, 38, 24), (30, 26, 36))
LIGHT_HAIR_COLOURS: tuple[Colour, ...] = ((226, 190, 110), (206, 150, 76), (196, 96, 40), (236, 214, 150))
PALE: tuple[Colour, Colour] = ((255, 232, 218), (246, 212, 190))
TANNED: tuple[Colour, Colour] = ((222, 164, 122), (128, 78, 50))


Task = tuple[int, int, int, int]
Chunk = tuple[NDArray[np.uint8], NDArray[np.int8]]


@dataclass(frozen=True)
class Factors:
    """All that decides a portrait.

    Attributes:
        labels: 0 or 1 per label.
        scene: numbers in [0, 1] for what no label speaks of.
        style: (L, 2, 6) numbers in [0, 1]: how label i looks in state v is `style[i, v]`.
    """

    labels: tuple[int, ...]
    scene: NDArray[np.float64]
    style: NDArray[np.float64]

    def numbers(self, label: int) -> NDArray[np.float64]:
        """The numbers of a label in its present state."""
        shown: NDArray[np.float64] = self.style[label, self.labels[label]]
        return shown


def draw_factors(seed: int, index: int) -> Factors:
    """The factors of portrait `index`, a function of (seed, index) alone."""
    rng = np.random.Generator(np.random.Philox(key=(seed << 64) + index))
    labels = tuple(int(u < p) for u, p in zip(rng.random(len(LABELS)), FREQUENCIES.values(), strict=True))
    return Factors(labels, rng.random(40), rng.random((len(LABELS), 2, 6)))


def render(factors: Factors, size: int = 64) -> NDArray[np.uint8]:
    """The portrait as (size, size, 3) uint8."""
    return _render(factors, size, _skin(factors), _hair(factors))


def masks(factors: Factors, size: int = 64) -> NDArray[np.bool_]:
    """Per label the pixels that it may touch in either state and with any of its looks, (L, size, size).

    Shapes have envelopes. For the two colours, what may be touched is every pixel that shows any skin, or any hair.
    """
    found = np.stack([_envelope(factors, label, size) for label in range(len(LABELS))])
    found[PALE_SKIN] = _touched_by_colour(factors, size, skin=True)
    found[DARK_HAIR] = _touched_by_colour(factors, size, skin=False)
    return found


def portraits(
    count: int,
    *,
    seed: int = 0,
    start: int = 0,
    size: int = 64,
    workers: int | None = None,
    title: str | None = None,
    out: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Portraits `start` to `start + count`: images (count, size, size, 3) and labels (count, L).

    Args:
        workers: processes; None takes all cores. The result is the same for any number.
        title: show progress under this name.
        out: an array to fill, such as a memory-map.
    """
    images = np.empty((count, size, size, 3), np.uint8) if out is None else out
    labels = np.empty((count, len(LABELS)), np.int8)
    tasks = [(seed, start + first, min(CHUNK, count - first), size) for first in range(0, count, CHUNK)]
    workers = min(workers or usable_cores(), len(tasks))

    with _pool(workers) as made, _bar(title, count) as bar:
        for (_, first, _, _), (pixels, values) in zip(tasks, made(tasks), strict=True):
            rows = slice(first - start, first - start + len(pixels))
            images[rows], labels[rows] = pixels, values
            if bar:
                bar.advance(len(pixels))
    return images, labels


def labels_of(count: int, *, seed: int = 0) -> NDArray[np.int8]:
    """The labels of portraits without drawing them, (count, L)."""
    rows = [draw_factors(seed, index).labels for index in range(count)]
    return np.array(rows, np.int8).reshape(count, len(LABELS))


@contextmanager
def _pool(workers: int) -> Iterator[Callable[[list[Task]], Iterable[Chunk]]]:
    """A lazy map of `_chunk` over tasks, in order.

    Forked processes need no importable __main__ and start at once. The pool is made before any thread of ours, such as
    that of a progress bar, since a fork copies locks but not the threads that hold them; and a child never collects
    what it inherits, such as an onnxruntime session, whose end waits for threads that the child does not have.
    """
    if workers <= 1:
        yield lambda tasks: map(_chunk, tasks)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with multiprocessing.get_context(method).Pool(workers, _begin_worker) as pool:
        yield lambda tasks: pool.imap(_chunk, tasks)


def _begin_worker() -> None:
    """Collect nothing that is inherited, and leave an interrupt of the terminal to the process that waits."""
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _bar(title: str | None, count: int) -> AbstractContextManager[Reporter | None]:
    return progress(title, count, "images") if title else nullcontext()


def _chunk(task: Task) -> Chunk:
    seed, start, count, size = task
    drawn = [draw_factors(seed, start + index) for index in range(count)]
    return np.stack([render(f, size) for f in drawn]), np.array([f.labels for f in drawn], np.int8)


def _skin(factors: Factors) -> Colour:
    n = factors.numbers(PALE_SKIN)
    light, deep = PALE if factors.labels[PALE_SKIN] else TANNED
    return parts.mix(light, deep, n[0])


def _hair(factors: Factors) -> Colour:
    n = factors.numbers(DARK_HAIR)
    colour = parts.pick(DARK_HAIR_COLOURS if factors.labels[DARK_HAIR] else LIGHT_HAIR_COLOURS, n[0])
    return parts.mix(colour, (128, 96, 72), 0.15 * n[1])


def _pens(draw: ImageDraw.ImageDraw, factors: Factors, pixels: int) -> tuple[Pen, Pen, float]:
    """The pen of the head, that of the body below it, and half the width of the face."""
    s = factors.scene
    scale = pixels * (0.305 + 0.02 * s[0])
    centre = pixels * (0.5 + 0.05 * (s[1] - 0.5)), pixels * (0.47 + 0.04 * (s[2] - 0.5))
    head = Pen(draw, centre, scale, math.radians(10 * (s[3] - 0.5)))
    return head, Pen(draw, centre, scale, 0.0), 0.74 + 0.14 * s[4]


def _render(factors: Factors, size: int, skin: Colour, hair: Colour) -> NDArray[np.uint8]:
    pixels, s, on = size * OVERSAMPLING, factors.scene, factors.labels
    image = Image.new("RGB", (pixels, pixels), _background(s))
    draw = ImageDraw.Draw(image)
    head, body, half = _pens(draw, factors, pixels)
    _ground(draw, s, pixels)
    _back_hair(head, s, hair, half)
    cloth = parts.mix((round(30 + 200 * s[9]), round(30 + 200 * s[10]), round(30 + 200 * s[11])), (120, 120, 126), 0.25)
    shadow = parts.mix(skin, (70, 34, 26), 0.22)
    body.fill(parts.box(-0.34, 0.6, 0.34, 1.25), shadow)
    body.fill(
        [(-1.5 - 0.3 * s[12], 2.6), (-1.3, 1.5), (-0.36, 1.14), (0.36, 1.14), (1.3, 1.5), (1.5 + 0.3 * s[12], 2.6)],
        cloth,
    )
    parts.collar(body, bool(on[NECKTIE]), factors.numbers(NECKTIE), shadow, cloth)
    for side in (-1, 1):
        head.fill(parts.oval(side * half, 0.02, 0.12, 0.2), shadow)
    head.fill(parts.oval(0, 0, half, parts.CHIN), skin)
    parts.beard(head, bool(on[BEARD]), factors.numbers(BEARD), hair, skin, half)
    _front_hair(head, s, hair, half)
    parts.age(head, bool(on[YOUNG]), factors.numbers(YOUNG), skin, half)
    parts.eyes(head, s[14:20], hair)
    parts.nose(head, s[20:22], skin)
    parts.mouth(head, bool(on[SMILING]), factors.numbers(SMILING))
    parts.bangs(head, bool(on[BANGS]), factors.numbers(BANGS), hair)
    parts.glasses(head, bool(on[EYEGLASSES]), factors.numbers(EYEGLASSES))
    return _lit(np.asarray(image.reduce(OVERSAMPLING)), s)


def _background(s: NDArray[np.float64]) -> Colour:
    return parts.mix((round(60 + 190 * s[5]), round(60 + 190 * s[6]), round(60 + 190 * s[7])), (198, 198, 204), 0.4)


def _ground(draw: ImageDraw.ImageDraw, s: NDArray[np.float64], pixels: int) -> None:
    """A wall that meets another tone at some height, or a disc behind the head."""
    tone = parts.mix(_background(s), (255, 255, 255) if s[8] < 0.5 else (30, 30, 50), 0.28)
    if s[13] < 0.4:
        draw.rectangle([0, pixels * (0.35 + 0.5 * s[8]), pixels, pixels], fill=tone)
    elif s[13] < 0.75:
        draw.ellipse([pixels * 0.08, pixels * 0.02, pixels * 0.92, pixels * 0.86], fill=tone)


def _back_hair(head: Pen, s: NDArray[np.float64], hair: Colour, half: float) -> None:
    """Short, to the chin, or to the shoulders."""
    head.fill(parts.oval(0, -0.16, half + 0.14, 1.02 + 0.08 * s[23]), hair)
    if s[22] > 0.45:
        low = 0.75 if s[22] < 0.72 else 1.5
        wide = half + 0.16 + 0.1 * s[24]
        head.fill(
            [(-wide, -0.2), (wide, -0.2), (wide, low - 0.2), (wide - 0.2, low), (0.2 - wide, low), (-wide, low - 0.2)],
            hair,
        )


def _front_hair(head: Pen, s: NDArray[np.float64], hair: Colour, half: float) -> None:
    """The hair above the forehead, down to a hairline of some height."""
    line = -0.66 - 0.1 * s[25]
    crown = parts.oval(0, -0.16, half + 0.12, 1.0 + 0.08 * s[23], 0.5, 1.0)
    inner = [(half + 0.02, -0.12), (half * 0.84, -0.5), (half * 0.5, line), (0, line - 0.04 * s[26])]
    head.fill([*crown, *inner, *[(-x, y) for x, y in inner[-2::-1]]], hair)


def _lit(pixels: NDArray[np.uint8], s: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Light from one side, and over- or under-exposure; it speaks of no label."""
    angle, strength = 2 * math.pi * s[27], 0.16 * s[28]
    along = np.linspace(-1, 1, len(pixels))
    slope = np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None]
    gain = (0.88 + 0.2 * s[29]) * (1 + strength * slope)
    lit: NDArray[np.uint8] = np.clip(np.rint(pixels * gain[..., None]), 0, 255).astype(np.uint8)
    return lit


def _envelope(factors: Factors, label: int, size: int) -> NDArray[np.bool_]:
    """The region of a shape label; empty for the two colour labels."""
    pixels = size * OVERSAMPLING
    image = Image.new("L", (pixels, pixels))
    head, body, half = _pens(ImageDraw.Draw(image), factors, pixels)
    shapes = {
        SMILING: parts.MOUTH_ENVELOPE,
        EYEGLASSES: parts.GLASSES_ENVELOPE,
        BANGS: parts.BANGS_ENVELOPE,
        BEARD: parts.BEARD_ENVELOPE,
    }
    if label in shapes:
        head.fill(shapes[label], 255)
    elif label == NECKTIE:
        body.fill(parts.COLLAR_ENVELOPE, 255)
    elif label == YOUNG:
        parts.age_envelope(head, half)
    return np.asarray(image.reduce(OVERSAMPLING)) > 0


def _touched_by_colour(factors: Factors, size: int, *, skin: bool) -> NDArray[np.bool_]:
    """Pixels that differ when all skin, or all hair, is drawn in one of two opposite colours."""
    green: Colour = (0, 255, 0)
    magenta: Colour = (255, 0, 255)
    first, second = (
        _render(factors, size, colour if skin else _skin(factors), _hair(factors) if skin else colour)
        for colour in (green, magenta)
    )
    touched: NDArray[np.bool_] = (first != second).any(axis=2)
    return touched
