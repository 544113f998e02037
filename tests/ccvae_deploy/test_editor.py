"""The Editor on single images: what changes, what may not, and what its receipts say."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy import Editor
from ccvae_deploy.classify import classify_sources
from ccvae_deploy.composer import Composer, Encoded
from ccvae_deploy.edits.request import make_request
from ccvae_deploy.errors import ImageError, LabelError, UsageError
from ccvae_deploy.folder import scan
from ccvae_deploy.generate import generate_folder
from ccvae_deploy.images import from_pil, network_input
from ccvae_deploy.schema import ImageSpec
from ccvae_deploy.swap_folder import swap_folder


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    pixels = np.random.default_rng(2).integers(90, 165, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((50, 70), Image.Resampling.BICUBIC)


def test_its_methods_are_called_as_the_commands(composer: Composer, tiny_bundle: Path) -> None:
    named = {"open", "edit", "classify", "generate", "swap", "traverse", "variance", "composer", "bundle"}
    assert {name for name in dir(Editor(composer)) if not name.startswith("_")} == named
    opened = Editor.open(tiny_bundle, provider="cpu", batch_size=3, max_pixels=100)
    assert (opened.composer.batch_size, opened.composer.max_pixels) == (3, 100)
    assert opened.bundle is opened.composer.bundle
    with pytest.raises(TypeError, match="thread"):
        Editor.open(tiny_bundle, thread=1)


def test_path_image_and_array_give_the_same_pixels(editor: Editor, picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.png")
    by_path = editor.edit(tmp_path / "a.png", smiling=1, mode="mean")
    by_image = editor.edit(picture, smiling=1, mode="mean")
    by_array = editor.edit(np.asarray(picture), smiling=1, mode="mean")
    for edit in (by_image, by_array):
        assert edit.images[0].tobytes() == by_path.images[0].tobytes()
    assert by_path.images[0].size == (50, 70)
    assert by_path.receipts[0].source == "a.png"


def test_samples_reach_the_label_and_differ(editor: Editor, picture: Image.Image) -> None:
    edit = editor.edit(picture, wearing_hat=1, samples=8)
    assert len(edit.images) == len(edit.receipts) == 8
    assert len({image.tobytes() for image in edit.images}) == 8
    for receipt in edit.receipts:
        assert receipt.asked == {"Wearing_Hat": 1.0}
        assert receipt.reached == (receipt.after["Wearing_Hat"] > 0.5)
        expected = np.mean([abs(receipt.after[name] - receipt.before[name]) for name in ("Smiling", "Young")])
        assert receipt.drift == pytest.approx(expected, abs=2e-6)
    assert np.mean([receipt.reached for receipt in edit.receipts]) > 0.8


def test_receipts_say_what_is_in_the_pixels(editor: Editor, picture: Image.Image) -> None:
    edit = editor.edit(picture, smiling=0)
    before, after = (np.asarray(image).astype(float) for image in (picture, edit.images[0]))
    assert edit.receipts[0].pixel_change == pytest.approx(np.abs(after - before).mean(), abs=1e-6)
    seen = network_input(from_pil(edit.images[0]), ImageSpec(size=32))[None]
    assert edit.receipts[0].after["Smiling"] == pytest.approx(float(editor.composer.classify(seen)[0, 0]), abs=1e-6)


def test_all_other_latents_keep_their_bits(composer: Composer) -> None:
    rng = np.random.default_rng(0)
    z, before = rng.normal(size=(4, 8)).astype(np.float32), rng.random((4, 3)).astype(np.float32)
    for mode in ("sample", "mean", "closest"):
        request = make_request(composer.labels, ["young=1"], samples=3 if mode == "sample" else 1, mode=mode)
        edited = composer.edited_latents(request, z, before, ["a", "b", "c", "d"])
        rest = [i for i in range(8) if i != 2]
        for k in range(request.samples):
            assert edited[:, k][:, rest].tobytes() == z[:, rest].tobytes()
        assert (edited[:, :, 2] != z[:, None, 2]).any()


def test_draws_follow_the_conditional_prior(composer: Composer) -> None:
    """Smiling = 1 has loc 3 and scale 0.9 in the made bundle, Smiling = 0 loc -3 and scale 0.4."""
    z, before = np.zeros((1, 8), np.float32), np.zeros((1, 3), np.float32)
    for asked, loc, scale in (("smiling=1", 3, 0.9), ("smiling=0", -3, 0.4), ("smiling=0.5", 0, 0.65)):
        drawn = []
        for seed in range(20):
            request = make_request(composer.labels, [asked], samples=100, seed=seed)
            drawn.append(composer.edited_latents(request, z, before, ["a"])[0, :, 0])
        values = np.concatenate(drawn)
        assert values.mean() == pytest.approx(loc, abs=0.08)
        assert values.std() == pytest.approx(scale, rel=0.08)


def test_strength_goes_beyond_the_mode(composer: Composer) -> None:
    z, before = np.zeros((1, 8), np.float32), np.zeros((1, 3), np.float32)
    for strength, loc in ((1.0, 3), (0.5, 0), (0.0, -3), (1.5, 6)):
        request = make_request(composer.labels, ["smiling=1"], mode="mean", strength=strength)
        assert composer.edited_latents(request, z, before, ["a"])[0, 0, 0] == pytest.approx(loc, abs=1e-5)


def test_draws_beyond_a_mode_spread_as_at_the_mode(composer: Composer) -> None:
    """Smiling = 0 has scale 0.4 in the made bundle, Smiling = 1 has 0.9, which pointed below 0 beyond Smiling = 0."""
    z, before = np.zeros((1, 8), np.float32), np.zeros((1, 3), np.float32)
    for asked, scale in (("smiling=0", 0.4), ("smiling=1", 0.9)):
        request = make_request(composer.labels, [asked], samples=100, strength=2.5)
        drawn = composer.edited_latents(request, z, before, ["a"])[0, :, 0]
        assert drawn.std() == pytest.approx(scale, rel=0.25)


def test_closest_reaches_the_confidence_with_the_classifier_it_reads(composer: Composer) -> None:
    z, before = np.zeros((2, 8), np.float32), np.zeros((2, 3), np.float32)
    z[1, 0] = 5
    request = make_request(composer.labels, ["smiling=1"], mode="closest", confidence=0.8)
    edited = composer.edited_latents(request, z, before, ["a", "b"])[:, 0]
    logits = composer.bundle.classify(np.ascontiguousarray(edited[:, :3]))
    assert 1 / (1 + np.exp(-logits[0, 0])) == pytest.approx(0.8, abs=1e-5)
    assert edited[1, 0] == 5


def test_without_a_conditional_prior_every_mode_works(priorless_bundle: Path, picture: Image.Image) -> None:
    """Brightness of region i is latent i, and the classifier's weight on it is 2, 1.5 or 1."""
    editor = Editor.open(priorless_bundle, provider="cpu")
    for options in ({}, {"mode": "mean"}, {"mode": "closest"}, {"vary": ["young"], "until_reached": 4}):
        receipt = editor.edit(picture, smiling=1, **options).receipts[0]
        assert receipt.after["Smiling"] > 0.7
        assert receipt.reached
    drawn = editor.edit(picture, smiling=1, samples=8, confidence=0.8)
    assert len({image.tobytes() for image in drawn.images}) == 8
    with pytest.raises(UsageError, match="no two modes"):
        editor.edit(picture, smiling=0.3)
    assert editor.variance(picture, samples=4).maps.max() == 1


def test_decode_mode_shows_the_decoders_image(editor: Editor, picture: Image.Image) -> None:
    soft = editor.edit(picture, smiling=1, compose="decode", mode="mean")
    assert soft.images[0].size == picture.size
    assert soft.receipts[0].pixel_change > editor.edit(picture, smiling=1, mode="mean").receipts[0].pixel_change


def test_batches_of_any_size_give_the_same_bits(tiny_bundle: Path) -> None:
    seen = np.random.default_rng(0).random((7, 3, 32, 32)).astype(np.float32)
    found = [Composer.open(tiny_bundle, provider="cpu", batch_size=size).encode(seen) for size in (1, 2, 7, 16)]
    for other in found[1:]:
        for name in Encoded.__dataclass_fields__:
            assert getattr(other, name).tobytes() == getattr(found[0], name).tobytes()


def test_grey_and_transparent_pictures_stay_what_they_are(editor: Editor, picture: Image.Image) -> None:
    assert editor.edit(picture.convert("L"), smiling=1).images[0].mode == "L"
    clear = picture.convert("RGBA")
    clear.putalpha(100)
    edited = editor.edit(clear, smiling=1).images[0]
    assert edited.mode == "RGBA"
    assert np.asarray(edited)[0, 0, 3] == 100


def test_mapping_for_names_that_clash(editor: Editor, picture: Image.Image) -> None:
    one = editor.edit(picture, set={"Wearing Hat": 1}, mode="mean").images[0]
    assert one.tobytes() == editor.edit(picture, wearing_hat=1, mode="mean").images[0].tobytes()
    with pytest.raises(LabelError, match="did you mean Young"):
        editor.edit(picture, yuong=1)


def test_labels_may_be_texts_or_pairs(editor: Editor, picture: Image.Image) -> None:
    one = editor.edit(picture, wearing_hat=1, mode="mean").images[0]
    assert editor.edit(picture, set=None, wearing_hat=1, mode="mean").images[0].tobytes() == one.tobytes()
    for asked in ("wearing_hat=1", ["wearing_hat=1"], [("Wearing Hat", 1)]):
        assert editor.edit(picture, set=asked, mode="mean").images[0].tobytes() == one.tobytes()
    with pytest.raises(LabelError, match="set twice"):
        editor.edit(picture, set={"Wearing Hat": 0}, wearing_hat=1)


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of these chunks."""
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_an_image_that_is_opened_only_is_read_as_its_file(editor: Editor, tmp_path: Path) -> None:
    """Grey of 2 bits with a transparent value: once it is loaded, that value is one of other pixels."""
    header = struct.pack(">IIBBBBB", 8, 8, 2, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes([0b00011011, 0b11100100]) for _ in range(8))
    chunks = [(b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path = tmp_path / "a.png"
    path.write_bytes(png_of(chunks))
    by_path = editor.edit(path, smiling=1, mode="mean").images[0]
    with Image.open(path) as image:
        # also a second time, when it is loaded
        for _ in range(2):
            assert editor.edit(image, smiling=1, mode="mean").images[0].tobytes() == by_path.tobytes()
    assert by_path.mode == "LA"


def test_a_grey_image_of_16_bits_with_alpha_stays_grey_however_often_it_is_edited(
    editor: Editor, tmp_path: Path
) -> None:
    header = struct.pack(">IIBBBBB", 8, 8, 16, 4, 0, 0, 0)
    rows = b"".join(b"\0" + struct.pack(">HH", 30_000, 40_000) * 8 for _ in range(8))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path = tmp_path / "a.png"
    path.write_bytes(png_of(chunks))
    with Image.open(path) as image:
        edits = [editor.edit(one, smiling=1, mode="mean") for one in (path, image, image)]
    assert [edit.images[0].mode for edit in edits] == ["LA"] * 3
    assert len({edit.images[0].tobytes() for edit in edits}) == 1


def test_what_is_in_memory_is_told_apart_by_shape_and_alpha(editor: Editor) -> None:
    grey = np.arange(64, dtype=np.uint8)
    clear = np.full((8, 8, 4), 9, np.uint8)
    clear[0, 0, 3] = 8
    looks = [grey.reshape(8, 8), grey.reshape(4, 16), np.full((8, 8, 3), 9, np.uint8), clear]
    assert len({editor.edit(one, smiling=1).receipts[0].source_sha256 for one in looks}) == 4


def test_what_is_no_image(editor: Editor, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="int is no image"):
        editor.edit(3, smiling=1)
    with pytest.raises(ImageError, match=r"absent\.png: unreadable: no such file"):
        editor.edit(tmp_path / "absent.png", smiling=1)
    with pytest.raises(ImageError, match="expected uint8"):
        editor.edit(np.zeros((4, 4, 3)), smiling=1)


def test_limits_hold_for_pictures_in_memory(editor: Editor, picture: Image.Image) -> None:
    small = Editor(Composer(editor.bundle, max_pixels=100))
    for given in (picture, np.asarray(picture)):
        with pytest.raises(ImageError, match="3,500 pixels, the limit is 100"):
            small.edit(given, smiling=1)
    with pytest.raises(ImageError, match="the limit of a side is"):
        editor.edit(np.zeros((1, 70_000), np.uint8), smiling=1)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    with (
        Image.open(io.BytesIO(buffer.getvalue()[:300])) as cut,
        pytest.raises(ImageError, match="damaged or truncated"),
    ):
        editor.edit(cut, smiling=1)


def test_numbers_that_cannot_be(editor: Editor) -> None:
    with pytest.raises(UsageError, match="--batch-size 0"):
        Composer(editor.bundle, batch_size=0)
    with pytest.raises(UsageError, match="--max-pixels '1e8': expected a whole number"):
        Composer(editor.bundle, max_pixels="1e8")
    for count in (0, 2.0):
        with pytest.raises(UsageError, match=f"--count {count}: expected"):
            editor.generate(count)
    for seed in (-1, 1.9):
        with pytest.raises(UsageError, match=f"--seed {seed}: expected"):
            editor.generate(1, seed=seed)


def test_a_path_with_a_zero_byte_is_no_image(editor: Editor) -> None:
    with pytest.raises(ImageError, match=r"^a\0b: unreadable: embedded null byte$"):
        editor.edit("a\0b", smiling=1)


def test_one_image_is_classified_as_in_a_folder(pictures, editor: Editor) -> None:
    source = scan([pictures / "a.png"]).sources
    for samples in (None, 20):
        (row,) = classify_sources(editor.composer, source, samples=samples, seed=2)
        assert editor.classify(pictures / "a.png", samples=samples, seed=2) == row


def test_generated_images_are_those_of_the_command(editor: Editor, tiny_bundle, tmp_path) -> None:
    generate_folder(bundle=tiny_bundle, count=3, set=["smiling=1"], out=tmp_path / "g", seed=4)
    made = editor.generate(3, smiling=1, seed=4)
    for n, image in enumerate(made):
        with Image.open(tmp_path / "g" / f"{n:06d}__smiling=1__00.png") as written:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(written))


def test_a_swapped_image_is_that_of_the_command(pictures, editor: Editor, tiny_bundle, tmp_path) -> None:
    reference = Image.new("RGB", (30, 30), (230, 230, 230))
    reference.save(tmp_path / "r.png")
    given = {"bundle": tiny_bundle, "from_": tmp_path / "r.png", "labels": ["young", "smiling"], "out": tmp_path / "s"}
    swap_folder([pictures / "a.png"], **given, sheet=False)
    with Image.open(tmp_path / "s" / "a__smiling,young=r__00.png") as written:
        swapped = editor.swap(pictures / "a.png", reference, ["smiling", "young"])
        np.testing.assert_array_equal(np.asarray(swapped), np.asarray(written))


def test_a_walk_from_an_array(editor: Editor) -> None:
    found = editor.traverse(np.full((20, 30, 3), 128, np.uint8), ["smiling"], steps=3)
    assert found.z.shape == (1, 3, 8)
    assert found.cells[0][0].picture.size == (30, 20)
    assert editor.variance(np.full((20, 30, 3), 128, np.uint8), labels="smiling", samples=2).labels == ("Smiling",)


def test_a_confidence_that_nothing_looks_at_makes_no_other_settings(composer: Composer, priorless_bundle: Path) -> None:
    def ids(using: Composer, asked: dict, **options) -> int:
        requests = (using.request(asked, confidence=sure, **options) for sure in (0.9, 0.95))
        return len({using.settings(request, "same").id for request in requests})

    priorless = Composer.open(priorless_bundle, provider="cpu")
    assert ids(composer, {"smiling": 1}) == ids(composer, {"smiling": 1}, mode="mean") == 1
    assert ids(composer, {"smiling": 0.3}, mode="closest") == 1
    assert ids(composer, {}, vary=["smiling"]) == ids(priorless, {}, vary=["smiling"]) == 1
    assert ids(composer, {"smiling": 1}, mode="closest") == ids(priorless, {"smiling": 1}) == 2
