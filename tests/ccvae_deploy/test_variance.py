"""Variance maps: where they are, what they are made of, and the files they go into."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from ccvae_deploy.editor import Editor
from ccvae_deploy.errors import LabelError, UsageError
from ccvae_deploy.images import Picture
from ccvae_deploy.variance import overlay, pixel_variance, strip, variance


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(90, 165, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((50, 70), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_variance_of_a_pixel_is_over_draws_and_averaged_over_channels() -> None:
    decoded = np.random.default_rng(0).random((5, 3, 2, 2)).astype(np.float32)
    expected = np.mean([[np.var(decoded[:, c, 1, 0].astype(float))] for c in range(3)])
    assert pixel_variance(decoded)[1, 0] == pytest.approx(expected)


def test_each_label_varies_where_the_decoder_draws_it(editor: Editor, photo: Path) -> None:
    """The made decoder draws label i in rows 4 i to 4 i + 3 and nowhere else."""
    found = editor.variance(photo, samples=20)
    assert found.labels == ("Smiling", "Wearing_Hat", "Young")
    assert found.maps.shape == (3, 32, 32)
    for i, shown in enumerate(found.maps):
        assert shown[4 * i : 4 * i + 4].max() == 1
        assert shown[4 * i : 4 * i + 4].min() > 0.99
        assert np.delete(shown, range(4 * i, 4 * i + 4), axis=0).max() == 0


def test_the_draws_are_those_of_an_edit_to_the_state_it_has(editor: Editor, photo: Path) -> None:
    small = Image.open(photo).resize((32, 32))
    found = editor.variance(small, labels=["young"], samples=8, seed=4)
    young = int(editor.edit(small, young=1).receipts[0].before["Young"] > 0.5)
    edit = editor.edit(small, samples=8, seed=4, compose="decode", young=young)
    spread = (np.stack([np.asarray(image) for image in edit.images]) / 255).var(axis=0).mean(axis=-1)
    assert found.peak[0] == pytest.approx(spread.max(), rel=0.05)
    again = editor.variance(small, labels=["smiling", "young"], samples=8, seed=4)
    assert again.maps[1].tobytes() == found.maps[0].tobytes()
    assert editor.variance(small, labels=["young"], samples=8, seed=5).peak != found.peak


def test_overlay_is_green_where_the_map_is_1_and_nothing_where_it_is_0() -> None:
    shown = np.zeros((4, 4), np.float32)
    shown[:, 2:] = 1
    for pixels in (np.full((8, 8, 3), 100, np.uint8), np.full((8, 8), 100, np.uint8)):
        over = overlay(Picture(pixels), shown).pixels
        assert over.shape == (8, 8, 3)
        assert (over[:, 0] == 100).all()
        assert (over[:, 7] == (0, 255, 0)).all()
    alpha = np.zeros((8, 8), np.uint8)
    assert overlay(Picture(np.zeros((8, 8, 3), np.uint8), alpha), shown).alpha is alpha


def test_the_maps_lie_over_the_image_as_images(editor: Editor, photo: Path) -> None:
    found = editor.variance(photo, labels=["young", "smiling"], samples=4)
    assert [(type(one), one.size) for one in found.images] == [(Image.Image, (50, 70))] * 2
    for one, shown in zip(found.images, found.maps, strict=True):
        assert (np.asarray(one) == overlay(found.picture, shown).pixels).all()


def test_files(photo: Path, tiny_bundle: Path, tmp_path: Path, editor: Editor) -> None:
    options = {"bundle": tiny_bundle, "labels": ["young", "smiling"], "samples": 4, "provider": "cpu"}
    found = editor.variance(photo, labels=["young", "smiling"], samples=4)
    for ending in ("npy", "safetensors", "png"):
        written = variance(photo, out=tmp_path / "new" / f"v.{ending}", **options)
        assert written.maps.tobytes() == found.maps.tobytes()
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["v.npy", "v.png", "v.safetensors"]
    assert (np.load(tmp_path / "new" / "v.npy", allow_pickle=False) == found.maps).all()
    with safe_open(tmp_path / "new" / "v.safetensors", "numpy") as file:
        assert (file.get_tensor("maps") == found.maps).all()
        assert (file.get_tensor("peak") == found.peak).all()
        assert json.loads(file.metadata()["labels"]) == ["Young", "Smiling"]
    sheet = np.asarray(Image.open(tmp_path / "new" / "v.png"))
    assert (sheet == np.asarray(strip(found))).all()
    assert sheet.shape == (26 + 192 + 18 + 6, 6 + 3 * (192 + 6), 3)


def test_what_is_refused(photo: Path, tiny_bundle: Path, tmp_path: Path, editor: Editor) -> None:
    options = {"bundle": tiny_bundle, "samples": 4, "provider": "cpu"}
    mine = tmp_path / "mine.png"
    mine.write_text("mine")
    for out, message in ((tmp_path / "v.jpg", r"\.png or \.npy"), (mine, "--overwrite"), (tmp_path / "v", r"\.npy")):
        with pytest.raises(UsageError, match=message):
            variance(photo, out=out, **options)
    with pytest.raises(UsageError, match="image itself"):
        variance(photo, out=photo, overwrite=True, **options)
    assert mine.read_text() == "mine"
    with pytest.raises(UsageError, match="--labels young,Young: expected different labels"):
        editor.variance(photo, labels=["young", "Young"], samples=4)
    with pytest.raises(LabelError, match="label 1: expected a name, such as Smiling"):
        editor.variance(photo, labels=[1])
    for samples in (1, 101, 2.5):
        with pytest.raises(UsageError, match=f"--samples {samples}"):
            editor.variance(photo, samples=samples)
    with pytest.raises(LabelError, match="did you mean Young"):
        editor.variance(photo, labels=["yuong"])
    variance(photo, out=mine, overwrite=True, **options)
    assert Image.open(mine).format == "PNG"
