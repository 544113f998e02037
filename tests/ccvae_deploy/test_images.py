"""One rule per mode, and nothing but ImageError for any bytes."""

import contextlib
import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccvae_deploy.compositing import composite, enlarge, pixel_change
from ccvae_deploy.errors import ImageError
from ccvae_deploy.images import (
    Picture,
    decode,
    encode,
    from_array,
    from_pil,
    network_input,
    read_file,
    to_pil,
)
from ccvae_deploy.schema import ImageSpec

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_rgb_png_comes_back_exactly() -> None:
    picture = decode(saved(Image.fromarray(RGB), "PNG"))
    assert (picture.pixels == RGB).all()
    assert picture.alpha is None
    assert (decode(encode(picture, "png")).pixels == RGB).all()


@pytest.mark.parametrize(
    ("format", "kept"),
    [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("BMP", "png"), ("TIFF", "png"), ("GIF", "png")],
)
def test_same_keeps_jpeg_png_and_webp(format: str, kept: str) -> None:
    assert decode(saved(Image.fromarray(RGB), format)).format == kept


def test_grey_and_one_bit_stay_grey() -> None:
    grey = Image.fromarray(RGB[..., 0])
    assert (decode(saved(grey, "PNG")).pixels == RGB[..., 0]).all()
    bits = decode(saved(grey.convert("1"), "PNG")).pixels
    assert bits.ndim == 2
    assert set(np.unique(bits)) <= {0, 255}


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    for format in ("PNG", "TIFF"):
        pixels = decode(saved(Image.fromarray(ramp), format)).pixels
        assert (pixels == np.rint(ramp / 257)).all()
        assert pixels[0, 0] == 0
        assert pixels[-1, -1] == 255


def test_alpha_is_kept_beside_and_lies_over_white_for_the_network() -> None:
    rgba = np.dstack([RGB, np.full((20, 30), 0, np.uint8)])
    picture = decode(saved(Image.fromarray(rgba), "PNG"))
    assert picture.alpha is not None
    assert (picture.alpha == 0).all()
    assert (network_input(picture, ImageSpec(size=32)) == 1).all()
    assert to_pil(picture).mode == "RGBA"
    assert (np.asarray(to_pil(decode(encode(picture, "png"))))[..., 3] == 0).all()
    assert (decode(encode(picture, "jpeg")).pixels > 250).all()


def test_opaque_alpha_is_no_alpha() -> None:
    assert from_pil(Image.fromarray(RGB).convert("RGBA")).alpha is None


def test_palette_with_and_without_transparency() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    assert decode(saved(palette, "PNG")).pixels.shape == (20, 30, 3)
    clear = decode(saved(palette, "PNG", transparency=0))
    assert clear.alpha is not None
    assert (clear.alpha == 0).any()


def test_cmyk_becomes_rgb() -> None:
    flat = Image.new("RGB", (30, 20), (200, 40, 90))
    picture = decode(saved(flat.convert("CMYK"), "JPEG", quality=100))
    assert picture.pixels.shape == (20, 30, 3)
    assert np.abs(picture.pixels.astype(int) - (200, 40, 90)).max() < 8


def test_exif_orientation_is_applied_and_not_written_again() -> None:
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = 6
    picture = decode(saved(image, "PNG", exif=exif))
    assert (picture.pixels == np.rot90(RGB, -1)).all()
    with Image.open(io.BytesIO(encode(picture, "png"))) as again:
        assert 0x0112 not in again.getexif()


def test_floating_point_is_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        from_pil(Image.fromarray(np.zeros((4, 4), np.float32)))


def test_colour_profile_is_written_back() -> None:
    data = saved(Image.fromarray(RGB), "PNG", icc_profile=b"profile of no meaning")
    with Image.open(io.BytesIO(encode(decode(data), "png"))) as image:
        assert image.info["icc_profile"] == b"profile of no meaning"


def test_network_input_is_pillows_bilinear_and_exact_at_its_own_size() -> None:
    spec = ImageSpec(size=32)
    seen = network_input(from_array(RGB), spec)
    expected = np.asarray(Image.fromarray(RGB).resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    assert np.abs(seen - expected).max() < 1e-7
    own = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (np.rint(network_input(from_array(own), spec) * 255) == own.transpose(2, 0, 1)).all()
    grey = network_input(from_array(own[..., 0]), spec)
    assert (grey[0] == grey[1]).all()
    assert network_input(from_array(own), ImageSpec(size=32, channels=1)).shape == (1, 32, 32)


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


def test_enlarge_gives_the_decoders_image_at_the_pictures_size() -> None:
    found = enlarge(np.full((3, 32, 32), 0.502, np.float32), from_array(RGB))
    assert found.pixels.shape == RGB.shape
    assert (found.pixels == 128).all()


def test_pixel_change_is_a_mean_in_levels() -> None:
    other = RGB.copy()
    other[0, 0, 0] ^= 1
    assert pixel_change(from_array(RGB), from_array(other)) == pytest.approx(1 / RGB.size)
    assert pixel_change(from_array(RGB[..., 0]), Picture(np.repeat(RGB[..., :1], 3, axis=2))) == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty file"), (b"hello, I am no image", "not an image"), (b"\xff\xd8\xff\xe0", "not an image|damaged")],
)
def test_what_is_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_truncated(format: str) -> None:
    data = saved(Image.fromarray(np.repeat(RGB, 8, axis=0)), format)
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        decode(data[: len(data) // 2])


def test_bomb_is_refused_from_its_header() -> None:
    data = saved(Image.new("L", (20_000, 20_000)), "PNG")
    began = time.process_time()
    with pytest.raises(ImageError, match="limit"):
        decode(data)
    assert time.process_time() - began < 0.2


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_file(tmp_path / "absent.png")
    with pytest.raises(ImageError, match=r"unreadable|regular"):
        read_file(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="empty file"):
        read_file(tmp_path / "empty.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_file(tmp_path / "pipe.png")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_end_in_a_picture_or_an_image_error(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
    whole = bytearray(saved(Image.fromarray(RGB), format))
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(ImageError):
        picture = decode(cut, max_pixels=1_000_000)
        assert picture.pixels.dtype == np.uint8
        network_input(picture, ImageSpec(size=32))
