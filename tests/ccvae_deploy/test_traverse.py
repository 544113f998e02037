"""`traverse`: ranges, grids, polytopes and the pictures they become."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy import images
from ccvae_deploy.cli import app
from ccvae_deploy.composer import Composer
from ccvae_deploy.editor import Editor
from ccvae_deploy.errors import ImageError, LabelError, UsageError
from ccvae_deploy.interventions import Block
from ccvae_deploy.pictures import compositing
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.schema import LabelSet, LatentRange
from ccvae_deploy.traverse import axis, polytope, traverse, walk


def block(*values: tuple[float, float]) -> Block:
    loc, scale = np.array(values, np.float32).T
    return Block(loc[:, None], scale[:, None])


def test_an_axis_goes_beyond_both_modes_and_knows_their_order() -> None:
    wide = np.array([-100.0], np.float32), np.array([100.0], np.float32)
    rising = axis(block((-3, 0.5), (4, 2)), *wide, 5, 2.0)[:, 0]
    np.testing.assert_allclose(rising, np.linspace(-4, 8, 5))
    falling = axis(block((3, 0.5), (-4, 2)), *wide, 5, 2.0)[:, 0]
    np.testing.assert_allclose(falling, np.linspace(4, -8, 5))
    clipped = axis(block((3, 0.5), (-4, 2)), np.array([-5.0]), np.array([3.5]), 3, 2.0)[:, 0]
    np.testing.assert_allclose(clipped, [3.5, -0.75, -5])


def test_a_polytope_has_its_classes_at_its_corners() -> None:
    corners = np.array([[0, 0], [1, 0], [0, 2], [5, 5]], np.float32)
    square = polytope(corners, 3)
    np.testing.assert_array_equal(square[[0, 0, 2, 2], [0, 2, 0, 2]], corners)
    np.testing.assert_allclose(square[1, 1], corners.mean(axis=0))
    triangle = polytope(corners[:3], 3)
    np.testing.assert_allclose(triangle[2], np.repeat(corners[2:3], 3, axis=0))
    np.testing.assert_allclose(triangle[1, 1], [0.25, 1])


def test_a_strip_moves_one_block_and_nothing_else(pictures, composer: Composer) -> None:
    picture = decode((pictures / "a.png").read_bytes())
    found = walk(composer, picture, ["wearing hat"], steps=5, reach=1)
    source = composer.encode(images.network_input(picture, composer.bundle.manifest.image)[None]).z[0]
    # the tiny prior of Wearing_Hat: -3.5 with scale 0.4 and 3.5 with 1.0; real latents end at -3 and 3
    np.testing.assert_allclose(found.z[0, :, 1], np.linspace(-3, 3, 5), atol=1e-6)
    np.testing.assert_array_equal(np.delete(found.z[0], 1, axis=1), np.tile(np.delete(source, 1), (5, 1)))
    expected = 1 / (1 + np.exp(-(1.5 * found.z[0, :, 1] - 0.1)))
    np.testing.assert_allclose(found.probabilities[0, :, 1], expected, atol=1e-6)
    assert [cell.caption for cell in found.cells[0]][:2] == ["z -3.0, p 0.01", "z -1.5, p 0.09"]
    assert found.cells[0][0].picture.size == picture.size


def test_a_walk_begins_at_the_source_whatever_size_it_is_shown_at(composer: Composer) -> None:
    rng = np.random.default_rng(2)
    picture = images.from_array(rng.integers(0, 256, (60, 400, 3), dtype=np.uint8))
    small = walk(composer, picture, "smiling", steps=3, size=128)
    np.testing.assert_array_equal(small.z, walk(composer, picture, ["smiling"], steps=3).z)
    assert small.cells[0][0].picture.size == (128, 19)


def test_a_grid_walks_each_axis_over_its_own_range(pictures, composer: Composer) -> None:
    picture = decode((pictures / "a.png").read_bytes())
    found = walk(composer, picture, ["young", "smiling"], steps=3, reach=0)
    np.testing.assert_allclose(found.z[:, :, 2], np.repeat([[-3], [0], [3]], 3, axis=1), atol=1e-6)
    np.testing.assert_allclose(found.z[:, :, 0], np.repeat([[-3, 0, 3]], 3, axis=0), atol=1e-6)
    assert found.title == "Young down, Smiling across"


def test_the_walk_passes_through_the_source(pictures, composer: Composer) -> None:
    picture = decode((pictures / "a.png").read_bytes())
    found = walk(composer, picture, ["smiling"], steps=61)
    z = composer.encode(images.network_input(picture, composer.bundle.manifest.image)[None]).z[0, 0]
    closest = int(np.abs(found.z[0, :, 0] - z).argmin())
    assert compositing.pixel_change(picture, found.cells[0][closest].picture) < 1
    decoded = walk(composer, picture, ["smiling"], steps=61, compose="decode")
    assert compositing.pixel_change(picture, decoded.cells[0][closest].picture) > 5


def test_classes_span_a_square(categorical_composer: Composer) -> None:
    picture = images.from_array(np.full((32, 32, 3), 128, np.uint8))
    found = walk(categorical_composer, picture, ["hair"], steps=3, classes=["b", "d", "e"], compose="decode")
    assert found.probabilities.shape == (3, 3, 6)
    assert found.probabilities[0, 0, :5].argmax() == 1
    assert found.probabilities[0, 2, :5].argmax() == 3
    assert found.cells[2][0].caption.startswith("e ")
    np.testing.assert_allclose(found.z[..., 2:], found.z[0, 0, 2:] * np.ones((3, 3, 1)))
    assert found.title == "Hair: b and d above, e below"
    assert walk(categorical_composer, picture, ["hair"], classes=["d", "a"]).title == "Hair: d to a"
    first_four = walk(categorical_composer, picture, ["hair"], steps=2)
    assert first_four.title == "Hair: a and b above, c and d below"
    assert first_four.probabilities[..., :5].argmax(axis=2).tolist() == [[0, 1], [2, 3]]
    bundle = categorical_composer.bundle
    columns, low, high = bundle.manifest.layout.slices[0], (-0.5,) * 4, (0.7,) * 4
    narrow = replace(
        bundle, manifest=bundle.manifest.model_copy(update={"latent_range": LatentRange(low=low, high=high)})
    )
    corners = walk(Composer(narrow), picture, ["hair"], steps=2).z[..., columns]
    np.testing.assert_allclose(corners, np.clip(first_four.z[..., columns], -0.5, 0.7))
    assert not np.allclose(corners, first_four.z[..., columns])
    strip = walk(categorical_composer, picture, ["hair"], steps=4, classes=["a", "c"])
    assert strip.probabilities.shape[:2] == (1, 4)
    assert strip.probabilities[0, :, :5].argmax(axis=1)[[0, -1]].tolist() == [0, 2]
    means = categorical_composer.latents.block(
        np.eye(6, dtype=np.float32)[[0, 2]], categorical_composer.labels.index("hair")
    )
    real = bundle.manifest.latent_range
    ends = np.clip(means.loc, real.low[columns], real.high[columns])
    np.testing.assert_allclose(strip.z[0, [0, -1]][:, columns], ends, atol=1e-6)
    assert walk(categorical_composer, picture, ["hair"], steps=64, classes=["a", "c"]).z.shape[1] == 64
    with pytest.raises(UsageError, match="2 to 16"):
        walk(categorical_composer, picture, ["hair"], steps=17)


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        (["smilin"], {}, LabelError, "did you mean Smiling"),
        ([], {}, UsageError, "expected one label"),
        (["smiling", "young", "hat"], {}, LabelError, "unknown label"),
        (["smiling", "Smiling"], {}, UsageError, "two different"),
        (["smiling"], {"steps": 1}, UsageError, "--steps 1"),
        (["smiling"], {"reach": "2"}, UsageError, "--reach '2': expected a number"),
        (["smiling"], {"steps": 2.5}, UsageError, r"--steps 2\.5: expected a whole number, 2 to 64 for Smiling"),
        (["smiling", "young"], {"steps": 17}, UsageError, "2 to 16"),
        (["smiling"], {"reach": -1.0}, UsageError, "--reach -1"),
        (["smiling"], {"compose": "decoed"}, UsageError, "did you mean decode"),
        (["smiling"], {"classes": ["0", "1"]}, UsageError, "only a categorical label"),
    ],
)
def test_refusals(labels, options, error, message, composer: Composer) -> None:
    with pytest.raises(error, match=message):
        walk(composer, images.from_array(np.zeros((8, 8), np.uint8)), labels, **options)


def test_reach_is_of_binary_labels(categorical_composer: Composer) -> None:
    picture = images.from_array(np.full((32, 32, 3), 128, np.uint8))
    with pytest.raises(UsageError, match="--reach with Hair: a categorical label"):
        walk(categorical_composer, picture, ["hair"], steps=2, reach=50)


def test_a_bundle_without_a_conditional_prior_is_refused(composer: Composer) -> None:
    manifest = composer.bundle.manifest
    files = {name: file for name, file in manifest.files.items() if name != "conditional_prior"}
    plain = Composer(replace(composer.bundle, manifest=manifest.model_copy(update={"files": files})))
    with pytest.raises(UsageError, match="no conditional prior to measure a walk by"):
        walk(plain, images.from_array(np.zeros((8, 8), np.uint8)), ["smiling"])


def test_refusals_of_classes(categorical_composer: Composer) -> None:
    picture = images.from_array(np.zeros((8, 8), np.uint8))
    with pytest.raises(LabelError, match="Hair=z"):
        walk(categorical_composer, picture, ["hair"], classes=["a", "z"])
    with pytest.raises(UsageError, match="two to four different"):
        walk(categorical_composer, picture, ["hair"], classes=["a", "a"])
    with pytest.raises(UsageError, match="on its own"):
        walk(categorical_composer, picture, ["hair", "hat"])


def test_an_editor_gives_images_of_the_size_that_is_asked(pictures, editor: Editor) -> None:
    strip = editor.traverse(pictures / "a.png", "smiling", steps=3, size=24)
    assert [[(type(one), one.size) for one in row] for row in strip.images] == [[(Image.Image, (19, 24))] * 3]
    np.testing.assert_array_equal(np.asarray(strip.images[0][2]), strip.cells[0][2].picture.pixels)
    grid = editor.traverse(pictures / "a.png", ["smiling", "young"], steps=2)
    assert [len(row) for row in grid.images] == [2, 2]
    for size in (0, 1.5, "24"):
        with pytest.raises(UsageError, match=f"size {size!r}: expected"):
            editor.traverse(pictures / "a.png", "smiling", size=size)


def test_classes_are_named_by_numbers_too(categorical_composer: Composer) -> None:
    bundle = categorical_composer.bundle
    hair, hat = bundle.manifest.labels.labels
    labels = LabelSet(labels=(hair.model_copy(update={"classes": ("0", "1", "3", "8", "10")}), hat))
    composer = Composer(replace(bundle, manifest=bundle.manifest.model_copy(update={"labels": labels})))
    picture = images.from_array(np.full((32, 32, 3), 128, np.uint8))
    for classes in ([3, 8], (3.0, "8"), np.array([3, 8]), np.float32([3, 8]), ["3.0", 8]):
        assert walk(composer, picture, ["hair"], steps=2, classes=classes).title == "Hair: 3 to 8"
    with pytest.raises(LabelError, match="Hair=2: known: 0, 1, 3, 8, 10"):
        walk(composer, picture, ["hair"], classes=[2, 3])
    for classes in ("8", 8):
        with pytest.raises(UsageError, match="--classes 8: expected two to four different classes of Hair"):
            walk(composer, picture, ["hair"], classes=classes)
    with pytest.raises(UsageError, match="--classes None: expected text, or a list of texts"):
        walk(composer, picture, ["hair"], classes=[None])


def test_a_strip_a_grid_and_an_animation_on_disk(pictures, tiny_bundle, tmp_path) -> None:
    out = tmp_path / "new" / "walk.png"
    given = [pictures / "a.png", "--labels", "smiling", "--steps", 4, "--bundle", tiny_bundle, "--out", out]
    result = CliRunner().invoke(app, ["traverse", *map(str, given)])
    assert result.exit_code == 0, result.output
    with Image.open(out) as strip:
        assert strip.size == (6 + 5 * 134, 26 + 152)
    traverse(pictures / "a.png", bundle=tiny_bundle, labels=["smiling", "young"], steps=3, out=tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (6 + 3 * 134, 26 + 3 * 152)
    traverse(pictures / "a.png", bundle=tiny_bundle, labels=["smiling"], steps=6, out=tmp_path / "walk.gif")
    with Image.open(tmp_path / "walk.gif") as animation:
        assert (animation.n_frames, animation.info["loop"]) == (10, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "imgs", "new", "walk.gif"]
    assert [path.name for path in out.parent.iterdir()] == ["walk.png"]


def test_nothing_is_overwritten_and_bad_files_are_refused(pictures, tiny_bundle, tmp_path) -> None:
    def attempt(out: str, image: Path = pictures / "a.png", **options) -> None:
        traverse(image, **{"bundle": tiny_bundle, "labels": ["smiling"], "steps": 2, "out": tmp_path / out} | options)

    (tmp_path / "walk.png").write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        attempt("walk.png")
    assert (tmp_path / "walk.png").read_text() == "mine"
    attempt("walk.png", overwrite=True)
    with pytest.raises(UsageError, match=r"\.png or \.gif"):
        attempt("walk.jpg")
    with pytest.raises(UsageError, match="a grid does not move"):
        attempt("walk.gif", labels=["smiling", "young"])
    with pytest.raises(ImageError, match="unreadable: no such file"):
        attempt("other.png", image=tmp_path / "absent.png")
    shutil.copy(pictures / "a.png", tmp_path / "mine.png")
    with pytest.raises(UsageError, match="is the image itself"):
        attempt("mine.png", image=tmp_path / "mine.png", overwrite=True)
    assert (tmp_path / "mine.png").read_bytes() == (pictures / "a.png").read_bytes()
    (tmp_path / "mine.png").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imgs", "walk.png"]
