"""One rule per mode of a picture, from its file to what the network sees and back."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from ccvae_deploy.errors import ImageError
from ccvae_deploy.images import encode, from_array, from_pil, network_input, over_white, to_pil
from ccvae_deploy.pictures import canvas, decoding
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.schema import ImageSpec

from .made_pictures import RGB, cmyk_profile, saved


def test_rgb_png_comes_back_exactly() -> None:
    picture = decode(saved(Image.fromarray(RGB), "PNG"))
    assert (picture.pixels == RGB).all()
    assert picture.alpha is None
    assert (decode(encode(picture, "png")).pixels == RGB).all()


@pytest.mark.parametrize(
    ("format", "kept"),
    [
        *[("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("AVIF", "avif")],
        *[("BMP", "png"), ("TIFF", "png"), ("GIF", "png"), ("PPM", "png")],
    ],
)
def test_same_keeps_jpeg_png_webp_and_avif(format: str, kept: str) -> None:
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


def test_every_value_under_every_alpha() -> None:
    value, alpha = np.meshgrid(*2 * [np.arange(256, dtype=np.uint8)])
    expected = (value.astype(int) * alpha + 255 * (255 - alpha.astype(int)) + 127) // 255
    assert (over_white(value, alpha) == expected).all()
    assert (over_white(np.dstack([value, value]), alpha) == expected[..., None]).all()


def test_opaque_alpha_is_no_alpha() -> None:
    assert from_pil(Image.fromarray(RGB).convert("RGBA")).alpha is None


def test_palette_with_and_without_transparency() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    assert decode(saved(palette, "PNG")).pixels.shape == (20, 30, 3)
    clear = decode(saved(palette, "PNG", transparency=0))
    assert clear.alpha is not None
    assert (clear.alpha == 0).any()


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_grey_with_one_transparent_value_stays_grey(mode: str) -> None:
    levels = np.repeat(np.array([[0, 200]], np.uint8), 3, axis=0)
    grey = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    white = 255 if mode == "1" else 200
    found = decode(saved(grey, "PNG", transparency=0))
    assert found.pixels.tolist() == [[0, white]] * 3
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0, 255]] * 3
    none = decode(saved(grey, "PNG", transparency=51400 if mode == "I;16" else 1 if mode == "1" else 100))
    assert none.pixels.ndim == 2


@pytest.mark.parametrize(
    ("depth", "colour", "row", "hidden", "pixels"),
    [
        (2, 0, b"\x60", ">H 1", [[85, 170]]),
        (4, 0, b"\x5a", ">H 5", [[85, 170]]),
        (
            16,
            2,
            struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 1, 2, 3),
            ">3H 4660 22136 39612",
            [[[18, 86, 154], [0, 0, 0]]],
        ),
    ],
)
def test_a_transparent_value_has_the_depth_of_its_png(depth, colour, row, hidden, pixels) -> None:
    """Two pixels, the first of them transparent; Pillow writes no such files."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    form, *values = hidden.split()
    found = decode(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", 2, 1, depth, colour, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(form, *map(int, values)))
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )
    assert found.pixels.tolist() == pixels
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0, 255]]


def test_decoding_in_threads_leaves_the_filters_of_warnings_alone() -> None:
    before, data = list(warnings.filters), saved(Image.fromarray(RGB), "PNG")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [data] * 500))
    assert warnings.filters == before


def test_cmyk_becomes_rgb_by_its_profile_or_plainly() -> None:
    flat = Image.new("RGB", (30, 20), (0, 255, 255)).convert("CMYK")
    for profile in (None, b"no profile at all"):
        plain = decode(saved(flat, "JPEG", quality=100, icc_profile=profile))
        assert np.abs(plain.pixels.astype(int) - (0, 255, 255)).max() < 8
        assert plain.metadata.icc_profile is None
    managed = decode(saved(flat, "JPEG", quality=100, icc_profile=cmyk_profile()))
    # full cyan is black under this profile
    assert managed.pixels.max() < 8
    assert managed.metadata.icc_profile is None


@pytest.mark.parametrize("turned", range(1, 9))
def test_exif_orientation_is_applied_and_not_written_again(turned: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = turned
    data = saved(image, "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    picture = decode(data)
    assert (picture.pixels == expected).all()
    with Image.open(io.BytesIO(encode(picture, "png"))) as again:
        assert 0x0112 not in again.getexif()
    monkeypatch.setattr(canvas, "LARGE", 1)
    monkeypatch.setattr(canvas, "STRIP", 70)
    assert (decode(data).pixels == expected).all()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_a_tiff_is_turned_once(turned: int, compression: str) -> None:
    data = saved(Image.fromarray(RGB), "TIFF", tiffinfo={0x0112: turned}, compression=compression)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(decode(data).pixels, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_a_large_picture_in_strips_is_the_same_picture(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = Image.fromarray(np.dstack([RGB, RGB[::-1, :, 0]]))
    image = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257) if mode == "I;16" else rgba.convert(mode)
    spec = ImageSpec(size=32)

    def seen() -> tuple:
        picture = from_pil(image)
        files = [encode(picture, format) for format in ("png", "jpeg")]
        return picture.pixels, picture.alpha, network_input(picture, spec), files

    ordinary = seen()
    monkeypatch.setattr(canvas, "LARGE", 1)
    monkeypatch.setattr(canvas, "STRIP", 100)
    for one, other in zip(ordinary, seen(), strict=True):
        assert np.array_equal(one, other)


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    assert (decode(sixteen_bit_png(RGB.astype(np.uint16) * 256 + 200, colour=2)).pixels == RGB).all()


@pytest.mark.parametrize("strip", [1 << 20, 100])
def test_sixteen_bit_grey_with_alpha_stays_grey(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "STRIP", strip)
    monkeypatch.setattr(canvas, "LARGE", min(canvas.LARGE, strip))
    picture = decode(sixteen_bit_png(RGB[..., :2].astype(np.uint16) * 256 + 200, colour=4))
    assert (picture.pixels == RGB[..., 0]).all()
    assert picture.alpha is not None
    assert (picture.alpha == RGB[..., 1]).all()


def sixteen_bit_png(values: np.ndarray, colour: int) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">2I5B", values.shape[1], values.shape[0], 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_whose_zero_is_white_is_read_as_it_looks(compression: str | None) -> None:
    grey = RGB[..., 0].astype(np.uint16) * 257
    negative = saved(Image.fromarray(65535 - grey), "TIFF", tiffinfo={262: 0}, compression=compression)
    assert (decode(negative).pixels == RGB[..., 0]).all()
    assert (decode(saved(Image.fromarray(grey), "TIFF", compression=compression)).pixels == RGB[..., 0]).all()


@pytest.mark.parametrize("strip", [1 << 20, 100])
@pytest.mark.parametrize("deflated", [False, True])
def test_twelve_bit_grey_is_as_bright_as_it_was(strip: int, deflated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "STRIP", strip)
    monkeypatch.setattr(canvas, "LARGE", min(canvas.LARGE, strip))
    ramp = np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30)
    data = twelve_bit_tiff(ramp, deflated)
    assert (decode(data).pixels == np.rint(ramp / 4095 * 255)).all()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (from_pil(image).pixels == decode(data).pixels).all()


def twelve_bit_tiff(values: np.ndarray, deflated: bool) -> bytes:
    high, low = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    rows = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], -1).astype(np.uint8).tobytes()
    rows = zlib.compress(rows) if deflated else rows
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 8 if deflated else 1, 262: 1}
    tags |= {273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: height, 279: len(rows)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + rows


def test_a_phones_jpeg_of_several_pictures_is_its_first() -> None:
    frames = [Image.fromarray(pixels) for pixels in (RGB, 255 - RGB)]
    picture = decode(saved(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert (picture.pixels == decode(saved(frames[0], "JPEG")).pixels).all()
    assert picture.format == "jpeg"


def test_heic_is_read_upright_and_written_as_png() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    smooth = Image.fromarray(RGB).resize((64, 48), Image.Resampling.BICUBIC)
    exif = smooth.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    pillow_heif.from_pillow(smooth).save(buffer, quality=100, exif=exif.tobytes())
    found = decode(buffer.getvalue())
    assert found.format == "png"
    with Image.open(buffer) as opened:
        opened.load()
        expected = np.asarray(ImageOps.exif_transpose(opened), np.int16)
    assert np.abs(found.pixels.astype(np.int16) - expected).max() <= 1


def test_heic_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_readable_formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(ImageError, match=r"ccvae-deploy\[heif\]"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


def test_webp_without_loss_stays_without_loss() -> None:
    clear = np.dstack([RGB, RGB[..., 0]])
    for pixels, options in ((RGB, {}), (clear, {"exact": True})):
        picture = decode(saved(Image.fromarray(pixels), "WEBP", lossless=True, icc_profile=b"x" * 9, **options))
        assert picture.lossless
        again = decode(encode(picture, "webp"))
        assert again.lossless
        assert (again.pixels == picture.pixels).all()
    assert not decode(saved(Image.fromarray(RGB), "WEBP", quality=90)).lossless


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_alpha_is_kept_in_webp_and_avif(format: str) -> None:
    smooth = np.full((40, 40, 4), (200, 100, 50, 120), np.uint8)
    again = decode(encode(decode(saved(Image.fromarray(smooth), "PNG")), format))
    assert again.alpha is not None
    assert np.abs(again.alpha.astype(int) - 120).max() < 4
    assert np.abs(again.pixels.astype(int) - (200, 100, 50)).max() < 6


@pytest.mark.parametrize(("format", "longest"), [("jpeg", 65_500), ("webp", 16_383), ("avif", 32_768)])
def test_a_side_that_a_format_cannot_have_is_one_clear_line(format: str, longest: int, capfd) -> None:
    fits = from_array(np.zeros((1, longest, 3), np.uint8))
    assert decode(encode(fits, format)).size == fits.size
    for shape in ((1, longest + 1), (longest + 1, 1)):
        with pytest.raises(ImageError) as caught:
            encode(from_array(np.zeros(shape, np.uint8)), format)
        seen = f"{shape[1]:,} x {shape[0]:,} pixels"
        assert str(caught.value) == f"{seen}, the limit of a side in {format} is {longest:,}; take --format png"
    assert capfd.readouterr() == ("", "")


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
