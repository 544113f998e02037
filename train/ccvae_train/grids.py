"""Pictures of training: originals, reconstructions and one intervention per label, as one PNG."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .batches import images_of
from .device import Device
from .networks import CCVAE

COLUMNS = 10
MARGIN = 172


@torch.no_grad()
def intervention_grid(model: CCVAE, images: NDArray[np.uint8], names: tuple[str, ...], device: Device) -> Image.Image:
    """Rows: originals, reconstructions, then per label the image with that label's block moved to the mean of the
    conditional prior at the opposite of what the classifier sees; columns: the first images.
    """
    image = images_of(images, np.arange(min(COLUMNS, len(images))), device)
    z, _ = model.encoder(image)
    z_c = z[:, : model.layout.z_c]
    flipped = (model.classifier(z_c) < 0).float()
    prior_loc, _ = model.conditional_prior(flipped)
    rows = [image, model.decoder(z)]
    for block in model.layout.slices:
        edited = z.clone()
        edited[:, block] = prior_loc[:, block]
        rows.append(model.decoder(edited))
    return _captioned(rows, ("original", "reconstruction", *(f"{name} flipped" for name in names)))


def save_grid(path: Path, grid: Image.Image) -> None:
    """Write a PNG so that a viewer never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    grid.save(beside, "PNG")
    beside.replace(path)


def _captioned(rows: list[torch.Tensor], captions: tuple[str, ...]) -> Image.Image:
    from torchvision.utils import make_grid

    columns, size = len(rows[0]), rows[0].shape[-1]
    tiles = make_grid(torch.cat(rows).float().cpu(), nrow=columns, padding=2, pad_value=1.0)
    pixels = (tiles.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    sheet = Image.new("RGB", (MARGIN + pixels.shape[1], pixels.shape[0]), "white")
    sheet.paste(Image.fromarray(pixels), (MARGIN, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, caption in enumerate(captions):
        middle = 2 + row * (size + 2) + size / 2
        draw.text((MARGIN - 6, middle), caption, fill="black", font=font, anchor="rm")
    return sheet
