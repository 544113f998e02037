"""A classifier that sees one label of the made bundle, images for it, and their audit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy.audit import audit

HAT = (4, 8)
"""The rows in which the made bundle sees and draws `Wearing_Hat`."""
NOTHING = (20, 24)
"""Rows of residual latents."""


@pytest.fixture
def imgs(tmp_path: Path) -> Path:
    """40 images at the bundle's size, so that no resize spreads an edit beyond its rows; half of them wear a hat."""
    folder, rng = tmp_path / "imgs", np.random.default_rng(0)
    (folder / "deep").mkdir(parents=True)
    for i in range(40):
        rows = rng.integers(60, 200, (8, 1, 3))
        rows[HAT[0] // 4] = 180 if i % 4 < 2 else 80
        Image.fromarray(rows.repeat(4, axis=0).repeat(32, axis=1).astype(np.uint8)).save(
            folder / ("deep" if i % 2 else "") / f"{i:02d}.png"
        )
    return folder


@pytest.fixture
def theirs(made_classifier, tmp_path: Path) -> Path:
    """Two outputs: the brightness of the hat's rows, and of rows that no label touches."""
    path = tmp_path / "theirs.onnx"
    path.write_bytes(made_classifier([HAT, NOTHING]).SerializeToString())
    return path


@pytest.fixture
def run(tiny_bundle: Path, theirs: Path, imgs: Path, tmp_path: Path):
    """`audit` of `theirs` with two samples, unless other options are given."""

    def go(**options):
        base = {"model": theirs, "images": [imgs], "out": tmp_path / "out", "samples": 2, "scale": 1, "provider": "cpu"}
        return audit(tiny_bundle, **base | options)

    return go


def by_place(found) -> dict:
    return {(one.label, one.output): one for one in found.effects}
