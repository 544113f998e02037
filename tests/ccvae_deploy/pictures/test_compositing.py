"""Compositing agrees with Pillow's filter, and depends on nothing but picture and difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccvae_deploy.images import Picture, from_array
from ccvae_deploy.pictures import canvas, compositing
from ccvae_deploy.pictures.compositing import composite, enlarge, pixel_change

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
LUMA = (0.299, 0.587, 0.114)


def by_pillow(pixels: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """The same sum channel by channel with Pillow's bicubic filter, before rounding."""
    height, width = pixels.shape[:2]
    if pixels.ndim == 2 and len(difference) == 3:
        difference = np.tensordot(np.float32(LUMA), difference, axes=1)[None]
    wide = [
        np.asarray(Image.fromarray(channel * np.float32(255)).resize((width, height), Image.Resampling.BICUBIC))
        for channel in difference
    ]
    change = wide[0] if pixels.ndim == 2 else np.stack(wide * (3 // len(wide)), axis=-1)
    return pixels + change.astype(np.float64)


@settings(max_examples=60)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from([(8, 3), (32, 3), (32, 1), (64, 3)]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_any_size_and_mode_agrees_with_pillow(width, height, shape, grey, seed) -> None:
    size, channels = shape
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width) if grey else (height, width, 3), dtype=np.uint8)
    difference = rng.uniform(-1, 1, (channels, size, size)).astype(np.float32)
    found = composite(from_array(pixels), difference).pixels
    assert found.shape == pixels.shape
    assert found.dtype == np.uint8
    assert np.abs(found - np.clip(by_pillow(pixels, difference), 0, 255)).max() <= 0.501


def test_a_zero_difference_changes_nothing() -> None:
    for pixels in (RGB, RGB[..., 0]):
        assert (composite(from_array(pixels), np.zeros((3, 32, 32), np.float32)).pixels == pixels).all()


def test_composite_adds_rounds_and_clips() -> None:
    picture = from_array(np.full((32, 32, 3), 100, np.uint8))
    difference = np.zeros((3, 32, 32), np.float32)
    difference[0], difference[1], difference[2] = 10.4 / 255, 1.0, -1.0
    found = composite(picture, difference).pixels
    assert (found == (110, 255, 0)).all()
    grey = composite(from_array(np.full((32, 32), 100, np.uint8)), difference).pixels
    assert grey.ndim == 2
    assert (grey == round(100 + 0.299 * 10.4 + 0.587 * 255 - 0.114 * 255)).all()
    one = composite(picture, difference[:1]).pixels
    assert (one == 110).all()


def test_alpha_and_metadata_stay_beside() -> None:
    alpha = np.full((20, 30), 7, np.uint8)
    picture = Picture(RGB, alpha, "webp", lossless=True)
    found = composite(picture, np.full((3, 8, 8), 0.1, np.float32))
    assert found.alpha is alpha
    assert (found.format, found.lossless) == ("webp", True)


def test_enlarge_gives_the_decoders_image_at_the_pictures_size() -> None:
    found = enlarge(np.full((3, 32, 32), 0.502, np.float32), from_array(RGB))
    assert found.pixels.shape == RGB.shape
    assert (found.pixels == 128).all()
    assert (enlarge(np.full((1, 32, 32), 0.502, np.float32), from_array(RGB)).pixels == 128).all()
    assert enlarge(np.full((3, 32, 32), 1, np.float32), from_array(RGB[..., 0])).pixels.shape == (20, 30)


@pytest.mark.parametrize("grey", [False, True])
def test_a_large_picture_in_strips_has_the_same_bytes(grey: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (90, 70) if grey else (90, 70, 3), dtype=np.uint8)
    difference = rng.uniform(-0.3, 0.3, (3, 16, 16)).astype(np.float32)
    ordinary = composite(from_array(pixels), difference)
    change = pixel_change(from_array(pixels), ordinary)
    monkeypatch.setattr(canvas, "LARGE", 100)
    monkeypatch.setattr(canvas, "STRIP", 700)
    large = composite(from_array(pixels), difference)
    assert (large.pixels == ordinary.pixels).all()
    assert pixel_change(from_array(pixels), large) == change


def test_products_stay_small_enough_for_one_thread() -> None:
    for given_rows, wanted, columns in ((64, 218, 534), (64, 4000, 9000), (128, 100, 128 * 3), (64, 64, 64)):
        bands = compositing._bands(given_rows, wanted, columns)
        assert [band.first for band in bands[1:]] == [band.last for band in bands[:-1]]
        assert bands[-1].last == wanted
        for band in bands:
            many = band.last - band.first > 1
            assert not many or band.weights.size * columns <= compositing.ONE_THREAD
            assert np.abs(band.weights.sum(axis=1) - 1).max() < 1e-6


def test_pixel_change_is_a_mean_in_levels() -> None:
    other = RGB.copy()
    other[0, 0, 0] ^= 1
    assert pixel_change(from_array(RGB), from_array(other)) == pytest.approx(1 / RGB.size)
    assert pixel_change(from_array(RGB[..., 0]), Picture(np.repeat(RGB[..., :1], 3, axis=2))) == 0
    black, white = np.zeros((2000, 900), np.uint8), np.full((2000, 900), 255, np.uint8)
    assert pixel_change(from_array(black), from_array(white)) == 255


def test_pixel_change_does_not_see_what_transparency_hides() -> None:
    clear = np.zeros((4, 6), np.uint8)
    clear[:, 3:] = 255
    hidden = Picture(RGB[:4, :6], clear)
    other = RGB[:4, :6].copy()
    other[:, :3] ^= 255
    assert pixel_change(hidden, Picture(other, clear)) == 0
    over = RGB[:4, :6].copy()
    over[:, :3] = 255
    assert pixel_change(hidden, Picture(over)) == 0
    assert pixel_change(Picture(over), Picture(other, clear)) == 0
