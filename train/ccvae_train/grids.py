"""Pictures of training: originals, reconstructions and one intervention per label, as one PNG."""

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ccvae_deploy.schema import LabelSet

from .batches import images_of
from .datasets.dataset import MISSING
from .device import Device
from .model import Model
from .run_folder import replace_whole

COLUMNS = 10
MARGIN = 172


@torch.no_grad()
def intervention_grid(model: Model, images: NDArray[np.uint8], labels: LabelSet, device: Device) -> Image.Image:
    """Rows: originals, reconstructions, then per binary label the image changed to the most ordinary look of the
    opposite of what the classifier sees, and per class of a categorical label (the first `COLUMNS` of them) to that of
    the class; columns: the first images.
    """
    image = images_of(images, np.arange(min(COLUMNS, len(images))), device)
    code, logits = model.read(image)
    seen = model.states.likeliest(logits)
    rows, captions = [image, model.decoder(code)], ["original", "reconstruction"]
    for position, label in enumerate(labels.labels):
        binary = label.kind == "binary"
        wanted = [1 - seen[:, position]] if binary else list(range(len(label.classes)))[:COLUMNS]
        for value in wanted:
            asked = torch.full_like(seen, MISSING)
            asked[:, position] = value
            rows.append(model.decoder(model.changed(image, asked)))
            captions.append(f"{label.name} flipped" if binary else f"{label.name}={label.classes[int(value)]}")
    return _captioned(rows, captions)


def save_grid(path: Path, grid: Image.Image) -> None:
    """Write a PNG so that a viewer never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    grid.save(buffer, "PNG")
    replace_whole(path, buffer.getvalue())


def _captioned(rows: list[torch.Tensor], captions: list[str]) -> Image.Image:
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
