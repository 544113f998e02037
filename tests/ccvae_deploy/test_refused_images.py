"""What is refused of an image file, and nothing but ImageError for any bytes."""

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

from ccvae_deploy.errors import ImageError
from ccvae_deploy.images import from_pil, network_input
from ccvae_deploy.pictures import decoding
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.schema import ImageSpec
from ccvae_deploy.storage import source_file
from ccvae_deploy.storage.source_file import read_file

from .made_pictures import RGB, cmyk_profile, saved


def test_a_tile_many_times_its_picture_is_refused() -> None:
    """One pixel, whose tile a decoder would fill with gigabytes."""
    small = saved(Image.fromarray(RGB[:1, :1]), "TIFF", compression="tiff_adobe_deflate")
    with Image.open(io.BytesIO(small)) as image:
        image.tag_v2[322], image.tag_v2[323] = 26_000, 26_000
        with pytest.raises(ImageError, match="tiles of 26000 x 26000 pixels in a picture of 1 x 1"):
            decoding._refuse_hidden_work(image, small)
    assert decode(small).size == (1, 1)


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = saved(Image.fromarray(RGB), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data[:-2] + 10 * scan + data[-2:]).size == (30, 20)
    with pytest.raises(ImageError, match="scans, the limit is 500"):
        decode(data[:-2] + 600 * scan + data[-2:])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_animations_and_pages_are_refused(format: str) -> None:
    frames = [Image.fromarray(np.roll(RGB, shift, axis=0)) for shift in (0, 5)]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="several pages" if format == "TIFF" else "an animation"):
        decode(data)


def test_floating_point_is_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        from_pil(Image.fromarray(np.zeros((4, 4), np.float32)))


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
    data = saved(Image.new("1", (20_000, 20_000)), "PNG", compress_level=1)
    began = time.process_time()
    with pytest.raises(ImageError, match="limit"):
        decode(data)
    assert time.process_time() - began < 0.2


def test_a_side_beyond_all_measure_is_refused() -> None:
    with pytest.raises(ImageError, match="limit of a side"):
        decode(saved(Image.new("1", (70_000, 1)), "PNG"))


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
    with pytest.raises(ImageError, match="unreadable: embedded null byte"):
        read_file(tmp_path / "a\0b.png")


def test_files_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_file, "MAX_BYTES", 4)
    (tmp_path / "a.png").write_bytes(b"1234")
    assert read_file(tmp_path / "a.png") == b"1234"
    (tmp_path / "a.png").write_bytes(b"12345")
    with pytest.raises(ImageError, match=r"^5 bytes, the limit is 4$"):
        read_file(tmp_path / "a.png")


WHOLE = {
    **{format: saved(Image.fromarray(RGB), format) for format in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")},
    "PPM": saved(Image.fromarray(RGB), "PPM"),
    "lossless": saved(Image.fromarray(np.dstack([RGB, RGB[..., 0]])), "WEBP", lossless=True, exact=True),
    "CMYK": saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
    "EXIF": saved(
        Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "deflate": saved(Image.fromarray(RGB), "TIFF", compression="tiff_adobe_deflate"),
}


@settings(max_examples=400)
@given(st.data())
def test_any_bytes_end_in_a_picture_or_an_image_error(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(sorted(WHOLE)))
    whole = bytearray(WHOLE[format])
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(ImageError):
        picture = decode(cut, max_pixels=1_000_000)
        assert picture.pixels.dtype == np.uint8
        network_input(picture, ImageSpec(size=32))
