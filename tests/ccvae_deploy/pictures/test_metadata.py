"""What a file says beside its pixels is kept where the table says so, and never in the way."""

import io
import struct

import pytest
from PIL import ExifTags, Image

from ccvae_deploy.images import encode, from_pil, to_pil
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.pictures.metadata import Metadata

from ..made_pictures import RGB, saved

Base = ExifTags.Base


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def photograph_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Copyright], exif[Base.Orientation] = "Maker", "Ada", 6
    exif[ExifTags.IFD.Exif] = {
        Base.DateTimeOriginal: "2026:01:02 03:04:05",
        Base.MakerNote: b"a preview of the face",
        Base.ExifImageWidth: 30,
        ExifTags.IFD.Interop: {1: "R98"},
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif"])
def test_exif_is_kept_without_orientation_maker_note_and_size(format: str) -> None:
    picture = decode(saved(Image.fromarray(RGB), "JPEG", exif=photograph_exif(), comment=b"hello"))
    assert picture.size == (20, 30)
    image = opened(encode(picture, format))
    exif = image.getexif()
    assert exif[Base.Make] == "Maker"
    assert exif[Base.Copyright] == "Ada"
    assert Base.Orientation not in exif
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    assert inner[Base.DateTimeOriginal] == "2026:01:02 03:04:05"
    assert not {Base.MakerNote, Base.ExifImageWidth, ExifTags.IFD.Interop} & set(inner)
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}
    assert "comment" not in image.info


def block_of(first: dict[int, bytes], inner: dict[int, bytes]) -> bytes:
    """An EXIF block of text alone, as cameras and `exiftool` write it: whatever bytes, of the type ASCII."""

    def directory(tags: dict[int, bytes], at: int, pointer: bool) -> bytes:
        entries, data = b"", b""
        after = at + 2 + 12 * (len(tags) + pointer) + 4
        for tag, text in tags.items():
            entries += struct.pack(">HHLL", tag, 2, len(text) + 1, after + len(data))
            data += text + bytes(1 + (len(text) + 1) % 2)
        if pointer:
            entries += struct.pack(">HHLL", ExifTags.IFD.Exif, 4, 1, after + len(data))
        return struct.pack(">H", len(tags) + pointer) + entries + bytes(4) + data

    head = directory(first, 8, pointer=True)
    return b"Exif\0\0MM\0*\0\0\0\x08" + head + directory(inner, 8 + len(head), pointer=False)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif"])
def test_text_that_is_no_ascii_keeps_its_bytes_and_its_type(format: str) -> None:
    first = {
        Base.ImageDescription: "Ada am Fluß".encode(),
        Base.Artist: "Zoë Müller".encode("latin-1"),
        Base.Copyright: "© 2026 Ada\0© Zoë".encode(),
    }
    inner = {Base.CameraOwnerName: "Zoë 山田".encode(), Base.LensModel: "50 mm ƒ/2".encode()}
    block = block_of(first, inner)
    # with a resolution, for which WebP and AVIF write the block a second time
    data = saved(Image.fromarray(RGB), "JPEG", exif=block, dpi=(300, 150))
    written = opened(encode(decode(data), format))
    kept = written.info["exif"].removeprefix(b"Exif\0\0")
    exif = written.getexif()
    texts = {tag: exif[tag] for tag in first} | {tag: exif.get_ifd(ExifTags.IFD.Exif)[tag] for tag in inner}
    for tag, text in (first | inner).items():
        assert texts[tag].encode("latin-1") == text
        # tag, type ASCII, bytes with the zero behind them
        assert struct.pack(">HHL", tag, 2, len(text) + 1) in kept


@pytest.mark.parametrize(
    ("directory", "bad", "value", "was", "becomes"),
    [
        (None, Base.Software, "7 chars", (2, 8), (5, 1)),
        (ExifTags.IFD.GPSInfo, ExifTags.GPS.GPSVersionID, b"2.2\0", (1, 4), (2, 4)),
    ],
)
def test_a_tag_that_cannot_be_written_again_takes_no_other_with_it(directory, bad, value, was, becomes) -> None:
    exif = Image.Exif()
    exif[Base.Artist] = "Ada"
    exif[ExifTags.IFD.Exif] = {Base.DateTimeOriginal: "2026:01:02 03:04:05"}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    (exif if directory is None else exif[directory])[bad] = value
    # a tag of another type and count than it should have: a fraction for text, text for bytes
    before, after = (struct.pack(">HHL", bad, *kind) for kind in (was, becomes))
    block = exif.tobytes()
    assert before in block
    picture = decode(saved(Image.fromarray(RGB), "JPEG", exif=block.replace(before, after)))
    exif = opened(encode(picture, "jpeg")).getexif()
    assert exif[Base.Artist] == "Ada"
    assert exif.get_ifd(ExifTags.IFD.Exif) == {Base.DateTimeOriginal: "2026:01:02 03:04:05"}
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}
    assert Base.Software not in exif


def test_the_thumbnail_of_the_unedited_picture_is_dropped() -> None:
    # a second directory with a JPEG inside, as cameras write it
    thumbnail = saved(Image.fromarray(RGB).resize((8, 8)), "JPEG")
    first = b"\0\x01\x01\x0f\0\x02\0\0\0\x04Mak\0" + (26).to_bytes(4, "big")
    second = b"\0\x02\x02\x01\0\x04\0\0\0\x01" + (56).to_bytes(4, "big")
    second += b"\x02\x02\0\x04\0\0\0\x01" + len(thumbnail).to_bytes(4, "big") + bytes(4)
    block = b"Exif\0\0MM\0*\0\0\0\x08" + first + second + thumbnail
    data = saved(Image.fromarray(RGB), "JPEG", exif=block)
    assert thumbnail[-200:] in data
    again = encode(decode(data), "jpeg")
    assert thumbnail[-200:] not in again
    assert opened(again).getexif()[Base.Make] == "Mak"


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif"])
def test_colour_profile_is_written_back(format: str) -> None:
    data = saved(Image.fromarray(RGB), "PNG", icc_profile=b"profile of no meaning")
    assert opened(encode(decode(data), format)).info["icc_profile"] == b"profile of no meaning"


def test_a_profile_of_other_colours_is_left_out() -> None:
    profile = bytes(16) + b"RGB " + bytes(108)
    assert decode(saved(Image.fromarray(RGB), "PNG", icc_profile=profile)).metadata.icc_profile == profile
    assert decode(saved(Image.fromarray(RGB[..., 0]), "PNG", icc_profile=profile)).metadata.icc_profile is None


def test_resolution_is_kept_and_turned_with_the_picture() -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    data = saved(Image.fromarray(RGB), "JPEG", dpi=(300, 150), exif=exif)
    picture = decode(data)
    assert picture.metadata.dpi == (150, 300)
    assert opened(encode(picture, "jpeg")).info["dpi"] == (150, 300)
    assert opened(encode(picture, "png")).info["dpi"] == pytest.approx((150, 300), abs=0.02)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("turned", range(1, 9))
def test_resolution_of_a_tiff_is_turned_with_it_however_often_it_is_asked(turned: int, loaded: bool) -> None:
    data = saved(Image.fromarray(RGB), "TIFF", dpi=(300, 150), tiffinfo={Base.Orientation: turned})
    expected = (150, 300) if turned >= 5 else (300, 150)
    assert decode(data).metadata.dpi == expected
    image = opened(data)
    for _ in range(2):
        assert from_pil(image).metadata.dpi == expected


@pytest.mark.parametrize("format", ["webp", "avif"])
@pytest.mark.parametrize("exif", [None, photograph_exif()])
def test_resolution_lies_in_exif_where_the_format_has_no_field(format: str, exif: Image.Exif | None) -> None:
    data = saved(Image.fromarray(RGB), "JPEG", dpi=(300, 150), exif=exif or b"")
    written = encode(decode(data), format)
    block = opened(written).getexif()
    expected = (300, 150) if exif is None else (150, 300)
    assert (block[Base.XResolution], block[Base.YResolution], block[Base.ResolutionUnit]) == (*expected, 2)
    assert block.get(Base.Make) == (exif and "Maker")
    again = decode(written)
    assert again.metadata.dpi == expected
    assert opened(encode(again, "jpeg")).info["dpi"] == expected
    assert Base.XResolution not in opened(encode(again, "jpeg")).getexif()
    assert encode(again, "png") == encode(decode(encode(again, "png")), "png")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((100.0, 50.0, 3), (254, 127)),
        ((100.0, 50.0, None), (100, 50)),
        ((100.0, 50.0, 1), None),
        ((100.0, None, 2), None),
        ((0.0, 50.0, 2), None),
    ],
)
def test_resolution_in_exif_has_a_unit(values: tuple, expected: tuple | None) -> None:
    exif = Image.Exif()
    for tag, value in zip((Base.XResolution, Base.YResolution, Base.ResolutionUnit), values, strict=True):
        if value is not None:
            exif[tag] = value
    assert decode(saved(Image.fromarray(RGB), "WEBP", exif=exif)).metadata.dpi == expected


def test_a_tiff_without_a_resolution_has_none() -> None:
    assert opened(saved(Image.fromarray(RGB), "TIFF")).info["dpi"] == (1, 1)
    assert decode(saved(Image.fromarray(RGB), "TIFF")).metadata.dpi is None


@pytest.mark.parametrize("dpi", [(0, 0), (float("nan"), 72), (1e9, 1), "high", (72,), None])
def test_a_resolution_of_no_meaning_is_left_out(dpi: object) -> None:
    image = Image.fromarray(RGB)
    image.info["dpi"] = dpi
    assert from_pil(image).metadata.dpi is None


@pytest.mark.parametrize(
    "block",
    [b"Exif\0\0", b"Exif\0\0MM", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff", bytes(40)],
)
def test_damaged_exif_is_left_out_and_the_picture_is_read(block: bytes) -> None:
    data = saved(Image.fromarray(RGB), "JPEG", exif=block)
    picture = decode(data)
    assert picture.metadata.exif is None
    assert picture.size == (30, 20)


def test_tags_of_how_pixels_were_stored_do_not_travel() -> None:
    picture = decode(saved(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"))
    assert picture.metadata.exif is None


def test_python_users_get_the_metadata_beside_the_image() -> None:
    data = saved(Image.fromarray(RGB), "JPEG", icc_profile=b"p" * 20, dpi=(300, 300))
    image = to_pil(decode(data))
    assert image.info["icc_profile"] == b"p" * 20
    assert image.info["dpi"] == (300, 300)
    assert Metadata().options("jpeg", 3) == {}


@pytest.mark.parametrize(("format", "kept"), [("jpeg", True), ("png", True), ("webp", False), ("avif", False)])
def test_a_profile_of_grey_goes_only_where_grey_goes(format: str, kept: bool) -> None:
    profile = b"\0" * 16 + b"GRAY" + b"\0" * 108
    picture = decode(saved(Image.fromarray(RGB[..., 0]), "PNG", icc_profile=profile))
    assert picture.metadata.icc_profile == profile
    assert (opened(encode(picture, format)).info.get("icc_profile") == profile) is kept
