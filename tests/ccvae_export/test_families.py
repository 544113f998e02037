"""Export of other families than ccvae: three graphs, four, or a refusal."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccvae_deploy import Editor
from ccvae_deploy.bundle import open_bundle
from ccvae_deploy.composer import Composer
from ccvae_deploy.edits.request import CONFIDENCE, make_request
from ccvae_deploy.errors import UsageError
from ccvae_deploy.schema import GRAPHS, LatentLayout
from ccvae_export.export import ExportReport, export_run
from ccvae_export.variants import latents
from ccvae_train.checkpoint import load_run

from .conftest import MIXED, write_run

LAYOUT = LatentLayout(blocks=(1, 2), residual=5)
PRIOR = (0.4, 0.2, 0.5, 0.3)


@pytest.fixture(scope="module")
def vae_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eq. 2, of data that are not there."""
    folder = tmp_path_factory.mktemp("runs") / "vae-classifier"
    return write_run(folder, MIXED, LAYOUT, PRIOR, "table:faces", "vae-classifier")


@pytest.fixture(scope="module")
def exported(vae_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportReport]:
    """Its export in a format, made once; do not change the bundle."""
    return functools.cache(lambda format: export_run(vae_classifier, format, tmp_path_factory.mktemp("out") / "bundle"))


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8))


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_a_vae_classifier_has_three_graphs_and_edits_by_rejection(vae_classifier: Path, exported, format: str) -> None:
    report = exported(format)
    bundle = open_bundle(report.bundle, provider="cpu", allow_torchscript=format == "torchscript")
    assert tuple(bundle.manifest.files) == GRAPHS[:3]
    assert {row.graph for row in report.parity.rows} == {*GRAPHS[:3], "composed edit"}
    assert report.exported[0].quality.ok
    model = load_run(vae_classifier).model
    image = np.random.default_rng(1).random((5, 3, 32, 32), dtype=np.float32)
    with torch.inference_mode():
        z, logits = (part.numpy() for part in model.read(torch.from_numpy(image)))
    assert bundle.encode(image)[0] == pytest.approx(z, abs=1e-4)
    assert bundle.classify(np.ascontiguousarray(z[:, :3])) == pytest.approx(logits, abs=1e-4)
    card = (report.bundle / "README.md").read_text()
    assert "# VAE with a classifier on" in card
    assert "Three graphs" in card
    assert "conditional prior" not in card
    editor = Editor(Composer(bundle))
    for asked in ({"Smiling": 1}, {"Hair": "blond"}):
        request = editor.edit(picture(), set=asked, samples=3)
        assert len({one.tobytes() for one in request.images}) == 3


def test_what_its_edits_draw_is_what_the_model_says(vae_classifier: Path, exported) -> None:
    """The ordinary look of a value is the same by the bundle's own mode `mean` and by the trained model."""
    composer, model = Composer.open(exported("onnx").bundle), load_run(vae_classifier).model
    image = np.random.default_rng(1).random((1, 3, 32, 32), dtype=np.float32)
    for label, value in (("Smiling", 1), ("Hair", 2)):
        asked = torch.full((1, 2), -1)
        asked[0, MIXED.index(label)] = value
        with torch.inference_mode():
            expected = model.decoder(model.changed(torch.from_numpy(image), asked)).numpy()
        request = make_request(MIXED, {label: MIXED.labels[MIXED.index(label)].classes[value]}, mode="mean")
        encoded = composer.encode(image)
        assert composer.changed(request, encoded, ["a"])[0, 0] == pytest.approx(expected[0], abs=1e-3)


def test_a_class_between_others_is_exported_and_left_as_it_is(tmp_path: Path) -> None:
    """On one latent the middle one of three classes is nowhere likely enough to be asked for."""
    hair = MIXED.labels[1].model_copy(update={"dims": 1})
    labels = MIXED.model_copy(update={"labels": (MIXED.labels[0], hair)})
    layout = LatentLayout(blocks=(1, 1), residual=6)
    run = write_run(tmp_path / "run", labels, layout, PRIOR, "table:faces", "vae-classifier")
    report = export_run(run, "torchscript", tmp_path / "bundle")
    assert report.exported[0].quality.ok
    editor = Editor.open(report.bundle, provider="cpu", allow_torchscript=True)
    middle = hair.classes[1]
    with pytest.raises(UsageError, match=middle):
        editor.edit(picture(), set={"Hair": middle})
    assert editor.edit(picture(), set={"Hair": hair.classes[2]}).receipts[0].after
    model = load_run(run).model
    drawn = model.drawn(1, np.ones(500, int), np.random.default_rng(0))

    def chances(z: torch.Tensor) -> torch.Tensor:
        return model.states.log_probabilities(model.classifier(torch.cat([torch.zeros_like(z), z], dim=1))).exp()[:, 3]

    # all near the most that there is, which is less than what other classes are asked for
    most = chances(torch.linspace(-5, 5, 2001).unsqueeze(1)).max()
    assert most < CONFIDENCE
    assert most - 0.02 < chances(torch.from_numpy(drawn)).min()


def test_diva_has_four_graphs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", family="diva")
    report = export_run(run, "onnx", tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle", provider="cpu")
    assert tuple(bundle.manifest.files) == GRAPHS
    assert bundle.manifest.model.family == "diva"
    assert report.exported[0].quality.ok
    assert "# DIVA on made portraits" in (tmp_path / "bundle" / "README.md").read_text()
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["model"]["family"] == "diva"
    assert len(Editor(Composer(bundle)).edit(picture(), set={"Smiling": 1}, samples=2).images) == 2


@pytest.mark.parametrize("family", ["m2", "mvae"])
def test_models_without_latents_of_a_label_are_refused(family: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", family=family)
    with pytest.raises(UsageError, match=f"run of {family}, which has no latents of a label") as refusal:
        export_run(run, "onnx")
    assert "\n" not in str(refusal.value)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint.safetensors"]


def test_eight_bits_are_calibrated_on_ordinary_looks(vae_classifier: Path) -> None:
    run = load_run(vae_classifier)
    images = np.random.default_rng(0).random((6, 3, 32, 32), dtype=np.float32)
    found = latents(run, images)
    assert found.shape == (12, 8)
    assert (found[:6, 3:] == found[6:, 3:]).all()
    logits = run.model.classifier(torch.from_numpy(found[:, :3]))
    before, after = run.model.states.likeliest(logits).split(6)
    assert (after == (before + 1) % torch.tensor([2, 3])).all()
