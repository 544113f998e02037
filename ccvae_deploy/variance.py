"""Variance maps: where do draws of one label differ (the paper's figure 5). Writes one file, in `variance`.

    v_i(p) = mean over channels of Var over S draws z_i ~ p(z_i|y_i) of the decoded pixel p,   map_i = v_i / max v_i

y_i is the state the image has, and every other latent stays.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import images
from .arrays import Array
from .composer import Composer
from .edits.outcome import decided
from .edits.request import MAX_SAMPLES, labels_or_all
from .given import refuse_outside
from .images import Picture
from .limits import MAX_PIXELS
from .pictures.decoding import open_picture
from .pictures.film import Cell, film_grid, shrunk
from .storage.new_file import new_file
from .storage.remote import local_path
from .storage.store import refuse_output
from .work.stream import chunks

GREEN = np.array([0, 255, 0], np.float32)
ENDINGS = (".png", ".npy", ".safetensors")
CELL, COLUMNS = 192, 6


@dataclass(frozen=True)
class Variance:
    """The variance maps of one image.

    Attributes:
        picture: the image itself.
        labels: the labels of the maps, in order.
        maps: (L, S, S) at the model's size, each from 0 to 1; all 0 where nothing differs.
        peak: what 1 stands for, the largest variance of each map, (L,).
    """

    picture: Picture
    labels: tuple[str, ...]
    maps: Array
    peak: Array

    @property
    def images(self) -> list[Image.Image]:
        """The image with each map in green over it, at its own size, as Pillow images."""
        return [images.to_pil(overlay(self.picture, one)) for one in self.maps]


def pixel_variance(decoded: Array) -> NDArray[np.float64]:
    """The variance of each pixel over K images (K, C, S, S), mean over channels: (S, S)."""
    spread: NDArray[np.float64] = decoded.astype(np.float64).var(axis=0).mean(axis=0)
    return spread


def variance_maps(
    composer: Composer, picture: Picture, name: str, labels: Sequence[str], samples: int, seed: int
) -> Variance:
    """The maps of a picture; `name` keys the noise. See `Editor.variance` for the other arguments and errors."""
    refuse_outside("--samples", samples, 2, MAX_SAMPLES)
    asked = labels_or_all(composer.labels, labels)
    encoded = composer.encode(images.network_input(picture, composer.bundle.manifest.image)[None])
    state = decided(composer.labels, encoded.before)[0]
    raw = []
    for position in asked:
        label, columns = composer.labels.labels[position], composer.labels.columns[position]
        chosen = int(state[columns][0]) if label.kind == "binary" else int(state[columns].argmax())
        request = composer.request({label.name: label.classes[chosen]}, samples=samples, seed=seed)
        raw.append(pixel_variance(composer.changed(request, encoded, [name])[0]))
    peak = np.max(raw, axis=(1, 2))
    maps = np.stack(raw) / np.where(peak > 0, peak, 1)[:, None, None]
    names = tuple(composer.labels.names[position] for position in asked)
    return Variance(picture, names, maps.astype(np.float32), peak.astype(np.float32))


def overlay(picture: Picture, shown: Array) -> Picture:
    """A picture with a map (S, S) in green over it, at the picture's own size: pixel + map (green - pixel)."""
    pixels = np.repeat(picture.pixels[..., None], 3, axis=2) if picture.channels == 1 else picture.pixels
    weight = np.asarray(Image.fromarray(shown).resize(picture.size, Image.Resampling.BILINEAR))[..., None]
    mixed = pixels + np.clip(weight, 0, 1) * (GREEN - pixels)
    return replace(picture, pixels=np.rint(mixed).astype(np.uint8))


def strip(found: Variance) -> Image.Image:
    """The picture and its overlays with their labels below, up to six in a row."""
    picture = shrunk(found.picture, CELL)
    cells = [Cell(picture, "original")]
    cells += [Cell(overlay(picture, one), name) for name, one in zip(found.labels, found.maps, strict=True)]
    return film_grid(list(chunks(cells, COLUMNS)), "where draws differ", size=CELL)


def encoded_file(found: Variance, ending: str) -> bytes:
    """The bytes of a result: `.png` the strip, `.npy` the maps, `.safetensors` maps and peaks by label."""
    if ending == ".png":
        return images.encode(images.from_pil(strip(found)), "png")
    if ending == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, found.maps, allow_pickle=False)
        return buffer.getvalue()
    from safetensors.numpy import save

    return save({"maps": found.maps, "peak": found.peak}, metadata={"labels": json.dumps(found.labels)})


def variance(
    image: Path | str,
    *,
    bundle: Path | str,
    out: Path | str = "maps.png",
    labels: Sequence[str] = (),
    samples: int = 64,
    seed: int = 0,
    provider: str = "auto",
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
    allow_torchscript: bool = False,
) -> Variance:
    """Write the variance maps of an image; see `Editor.variance`.

    Args:
        out: the file; its ending chooses what is written, see `encoded_file`.
        overwrite: replace a file that is there.

    Raises:
        CCVAEError: refused, and nothing was written.
    """
    image, out = local_path(image), local_path(out)
    refuse_output(out, image, ENDINGS, overwrite)
    composer = Composer.open(bundle, provider=provider, allow_torchscript=allow_torchscript, max_pixels=max_pixels)
    picture, _ = open_picture(image, max_pixels=max_pixels)
    found = variance_maps(composer, picture, image.name, labels, samples, seed)
    with new_file(out, overwrite=overwrite) as stream:
        stream.write(encoded_file(found, out.suffix.lower()))
    return found
