"""The parts of a made portrait: each draws one thing from a few numbers in [0, 1]. Pure drawing, no files.

Face coordinates: the origin lies between nose and eyes, y points down, the head is 1 high on either side. Every part
of a label has an envelope: the region that the part may touch whatever its numbers are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Colour = tuple[int, int, int]
Numbers = NDArray[np.float64]
Points = Sequence[tuple[float, float]]

LIPS: tuple[Colour, ...] = ((178, 60, 66), (150, 48, 52), (196, 92, 88), (130, 42, 60))
TIES: tuple[Colour, ...] = ((190, 30, 45), (24, 60, 140), (20, 110, 80), (120, 40, 130), (210, 130, 20), (30, 30, 40))
FRAMES: tuple[Colour, ...] = ((20, 20, 24), (110, 30, 30), (24, 40, 110), (90, 60, 20), (30, 90, 80), (70, 70, 78))
EYES: tuple[Colour, ...] = ((60, 40, 24), (40, 80, 130), (50, 100, 60), (90, 90, 100))
CHIN = 1.0


@dataclass(frozen=True)
class Pen:
    """Draws in face coordinates onto a canvas."""

    draw: ImageDraw.ImageDraw
    centre: tuple[float, float]
    scale: float
    tilt: float

    def at(self, points: Points) -> list[tuple[float, float]]:
        """Face coordinates as canvas pixels."""
        sine, cosine = math.sin(self.tilt) * self.scale, math.cos(self.tilt) * self.scale
        x0, y0 = self.centre
        return [(x0 + x * cosine - y * sine, y0 + x * sine + y * cosine) for x, y in points]

    def fill(self, points: Points, colour: Colour | int) -> None:
        """A filled outline."""
        self.draw.polygon(self.at(points), fill=colour)

    def stroke(self, points: Points, width: float, colour: Colour | int) -> None:
        """A line with round joints."""
        self.draw.line(self.at(points), fill=colour, width=max(1, round(width * self.scale)), joint="curve")


def oval(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 1.0) -> list[tuple[float, float]]:
    """Points of an ellipse, or of an arc from `start` to `stop` turns, clockwise from the right."""
    count = max(8, round(28 * (stop - start)))
    angles = [2 * math.pi * (start + (stop - start) * i / count) for i in range(count + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    """The corners of a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def pick(choices: Sequence[Colour], number: float) -> Colour:
    """One of several colours."""
    return choices[min(int(number * len(choices)), len(choices) - 1)]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` moved towards `b` by a share."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def mouth(pen: Pen, smiling: bool, n: Numbers) -> None:
    """Smiles are closed, toothy or laughing; other mouths are straight, turned down, or small and round."""
    lips = pick(LIPS, n[0])
    y = 0.50 + 0.04 * n[2]
    if smiling:
        half, depth = 0.32 + 0.12 * n[1], 0.20 + 0.12 * n[3]
        curve = [(half * t, y - 0.4 * depth + depth * (1 - t * t)) for t in np.linspace(-1, 1, 13)]
        if n[4] < 0.2:
            pen.stroke(curve, 0.12, lips)
            return
        top = [(half * t, y - 0.4 * depth + 0.03 * (1 - t * t)) for t in np.linspace(1, -1, 13)]
        pen.fill(curve + top, (252, 250, 246))
        if n[4] > 0.6:
            pen.fill(
                [(0.72 * x, q) for x, q in curve] + [(0.5 * half * t, y + 0.28 * depth) for t in (1.0, -1.0)], lips
            )
        pen.stroke(curve + top + curve[:1], 0.06, lips)
        return
    half = 0.16 + 0.12 * n[1]
    if n[4] < 0.45:
        pen.stroke([(-half, y), (half, y + 0.03 * (n[3] - 0.5))], 0.09 + 0.05 * n[5], lips)
    elif n[4] < 0.8:
        depth = 0.09 + 0.09 * n[3]
        pen.stroke([(half * t, y + 0.5 * depth - depth * (1 - t * t)) for t in np.linspace(-1, 1, 13)], 0.11, lips)
    else:
        pen.fill(oval(0, y, 0.12 + 0.06 * n[3], 0.09 + 0.06 * n[5]), lips)


MOUTH_ENVELOPE = box(-0.54, 0.28, 0.54, 0.82)


def glasses(pen: Pen, worn: bool, n: Numbers) -> None:
    """Round or square, thin or thick, clear or dark."""
    if not worn:
        return
    frame, rx, ry = pick(FRAMES, n[0]), 0.235 + 0.05 * n[1], 0.19 + 0.06 * n[2]
    for side in (-1, 1):
        x = 0.35 * side
        lens = oval(x, -0.06, rx, ry) if n[3] < 0.5 else box(x - rx, -0.06 - ry, x + rx, -0.06 + ry)
        if n[4] > 0.6:
            pen.fill(lens, mix(frame, (30, 34, 40), 0.6))
        pen.stroke([*lens, *lens[:2]], 0.05 + 0.05 * n[5], frame)
        pen.stroke([(x + side * rx, -0.1), (0.86 * side, -0.12)], 0.06, frame)
    pen.stroke([(-0.35 + rx, -0.1), (0, -0.13), (0.35 - rx, -0.1)], 0.06, frame)


GLASSES_ENVELOPE = box(-0.97, -0.42, 0.97, 0.30)


def bangs(pen: Pen, worn: bool, n: Numbers, hair: Colour) -> None:
    """Straight, swept to a side, or parted like a curtain."""
    if not worn:
        return
    low = -0.42 + 0.18 * n[1]
    roof = [(0.8, -0.42), (0.62, -0.74), (0, -0.86), (-0.62, -0.74), (-0.8, -0.42)]
    if n[0] < 0.4:
        fringe = [(-0.74, low + 0.06), (-0.4, low + 0.02), (0, low), (0.4, low + 0.02), (0.74, low + 0.06)]
    elif n[0] < 0.7:
        side = 1 if n[2] < 0.5 else -1
        fringe = [(-0.76, low + 0.08 * side), (0.2 * side, low - 0.02), (0.76, low - 0.08 * side)]
    else:
        fringe = [(-0.76, low + 0.1), (-0.35, low), (0, low - 0.26), (0.35, low), (0.76, low + 0.1)]
    pen.fill([*fringe, *roof], hair)


BANGS_ENVELOPE = box(-0.88, -0.95, 0.88, -0.08)


def beard(pen: Pen, worn: bool, n: Numbers, hair: Colour, skin: Colour, half: float) -> None:
    """A full beard, a goatee with moustache, a chin strap, or stubble."""
    if not worn:
        return
    colour = mix(hair, skin, 0.12 + 0.2 * n[0])
    lower = [(x, y) for x, y in oval(0, 0, half, CHIN + 0.06, 0.02, 0.48)]
    if n[1] < 0.45:
        cheek = 0.22 + 0.14 * n[2]
        pen.fill([*lower, (-half * 0.8, cheek), (-0.34, 0.36), (0, 0.33), (0.34, 0.36), (half * 0.8, cheek)], colour)
    elif n[1] < 0.75:
        pen.fill(oval(0, 0.70, 0.36 + 0.06 * n[2], 0.36), colour)
    elif n[1] < 0.9:
        inner = oval(0, 0, half * 0.74, 0.78, 0.48, 0.02)
        pen.fill([*lower, *inner], colour)
    else:
        inner = [(-half * 0.84, 0.32), (-0.3, 0.38), (0, 0.36), (0.3, 0.38), (half * 0.84, 0.32)]
        pen.fill([*lower, *inner], mix(skin, colour, 0.5))


BEARD_ENVELOPE = [(-0.98, -0.02), (0.98, -0.02), (0.98, 0.5), (0.62, 1.0), (0, 1.16), (-0.62, 1.0), (-0.98, 0.5)]


def age(pen: Pen, young: bool, n: Numbers, skin: Colour, half: float) -> None:
    """Without youth: lines on the forehead, beside the mouth and under the eyes, and grey at the temples."""
    if young:
        return
    line = mix(skin, (60, 30, 24), 0.42 + 0.2 * n[0])
    for i in range(1 + round(1.2 * n[1])):
        y = -0.50 + 0.1 * i
        pen.stroke([(-0.36, y + 0.02), (0, y - 0.02), (0.36, y + 0.02)], 0.035, line)
    for side in (-1, 1):
        pen.stroke([(0.2 * side, 0.22), (0.40 * side, 0.40), (0.42 * side, 0.56 + 0.06 * n[2])], 0.045, line)
        pen.stroke([(0.18 * side, 0.10), (0.34 * side, 0.155), (0.48 * side, 0.10)], 0.04, line)
        grey = mix((168, 168, 172), (222, 222, 226), n[3])
        temple = [(half * 0.94, -0.52 - 0.2 * n[4]), (half + 0.1, -0.4), (half + 0.1, -0.04), (half * 0.9, 0.02)]
        pen.fill([(x * side, y) for x, y in temple], grey)


def age_envelope(pen: Pen, half: float) -> None:
    """Everything that age may draw on: the face's lines and both temples."""
    pen.fill(box(-0.42, -0.58, 0.42, -0.32), 255)
    for side in (-1, 1):
        pen.fill([(x * side, y) for x, y in box(0.12, 0.02, 0.56, 0.68)], 255)
        pen.fill([(x * side, y) for x, y in box(half * 0.84, -0.80, half + 0.16, 0.08)], 255)


def collar(pen: Pen, tie: bool, n: Numbers, skin: Colour, cloth: Colour) -> None:
    """A shirt with a necktie, plain or striped; without one an open collar, a crew neck or a V."""
    if not tie:
        if n[0] < 0.4:
            pen.fill(oval(0, 1.12, 0.42, 0.2 + 0.08 * n[1]), skin)
        elif n[0] < 0.75:
            pen.fill([(-0.36, 1.0), (0.36, 1.0), (0.06, 1.62 + 0.2 * n[1]), (-0.06, 1.62 + 0.2 * n[1])], skin)
        else:
            pen.fill([(-0.4, 1.02), (0.4, 1.02), (0.4, 1.2), (0, 1.34), (-0.4, 1.2)], mix(cloth, (255, 255, 255), 0.35))
        return
    shirt = mix((255, 255, 255), pick(TIES, n[5]), 0.12 * n[4])
    pen.fill([(-0.5, 1.0), (0.5, 1.0), (0.2, 2.3), (-0.2, 2.3)], shirt)
    colour, half = pick(TIES, n[1]), 0.15 + 0.07 * n[2]
    blade = [(-0.1, 1.16), (0.1, 1.16), (0.08, 1.32), (half, 2.2), (-half, 2.2), (-0.08, 1.32)]
    pen.fill(blade, colour)
    if n[3] > 0.55:
        for i in range(4):
            y = 1.42 + 0.2 * i
            pen.stroke([(-0.1, y + 0.08), (0.1, y - 0.02)], 0.05, mix(colour, (255, 255, 255), 0.6))


COLLAR_ENVELOPE = box(-0.56, 0.84, 0.56, 2.5)


def eyes(pen: Pen, n: Numbers, hair: Colour) -> None:
    """Eyes and brows; no label draws here but glasses, bangs and hair colour."""
    iris, open_ = pick(EYES, n[0]), 0.075 + 0.04 * n[1]
    for side in (-1, 1):
        x = 0.35 * side
        pen.fill(oval(x, -0.06, 0.145, open_), (252, 252, 250))
        pen.fill(oval(x + 0.03 * (n[2] - 0.5), -0.06, 0.08, min(0.09, open_)), iris)
        pen.stroke(
            [(x - 0.16, -0.27 - 0.04 * n[3]), (x, -0.31 - 0.04 * n[3]), (x + 0.16, -0.27)], 0.05 + 0.04 * n[4], hair
        )


def nose(pen: Pen, n: Numbers, skin: Colour) -> None:
    """A shadow on one side and a tip."""
    shade, half, side = mix(skin, (70, 34, 26), 0.30), 0.09 + 0.05 * n[0], 1 if n[1] < 0.5 else -1
    pen.stroke([(0.05 * side, -0.02), (half * side, 0.22), (-0.4 * half * side, 0.25)], 0.05, shade)
