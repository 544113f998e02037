"""Every family as the protocols see it: what swap, generate and intervene change, and which protocols are skipped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_train import training
from ccvae_train.checkpoint import TrainedRun, load_run
from ccvae_train.device import choose_device
from ccvae_train.evaluate import jobs
from ccvae_train.evaluate.labelled_subject import LabelledSubject
from ccvae_train.evaluate.subject import RejectionSubject, SplitSubject, subject_of
from ccvae_train.label_columns import predicted
from ccvae_train.training import train

from .. import made_images

DATA = made_images.made_data()
SMALL = {"epochs": 2, "latents": 10, "batch_size": 16, "learning_rate": 3e-3, "device": "cpu", "image_size": 32}
KINDS = {"vae-classifier": RejectionSubject, "diva": SplitSubject, "m2": LabelledSubject, "mvae": LabelledSubject}
UNSPLIT = {"variance", "traversals", "gradients", "leakage", "diagnostics"}
SKIPPED = {"vae-classifier": {"traversals", "gradients", "diagnostics"}, "diva": set(), "m2": UNSPLIT, "mvae": UNSPLIT}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `runs` with one run of each family."""
    root = tmp_path_factory.mktemp("work") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "open_dataset", lambda *_, **__: DATA)
        for family in KINDS:
            train(SMALL | {"model": family}, out=root / family)
    return root


@pytest.fixture
def subject(runs: Path, request: pytest.FixtureRequest):
    run: TrainedRun = load_run(runs / request.param)
    found = subject_of(run, choose_device("cpu", "fp32"))
    assert type(found) is KINDS[request.param]
    return found


def images(count: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    values = made_images.made_values(count, seed)
    return made_images.paint(values, seed).transpose(0, 3, 1, 2).astype(np.float32) / 255, values.astype(np.int64)


def bright(pictures: np.ndarray) -> np.ndarray:
    """What the label `bright` is in the pixels, free of the tint and of the bar."""
    return pictures[:, :, :, 16:].min(axis=1).mean(axis=(1, 2))


@pytest.mark.parametrize("subject", KINDS, indirect=True)
def test_shapes_and_chunks(subject, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, values = images(7)

    def all_of_it() -> list[np.ndarray]:
        swapped = subject.swap(pictures, values, pictures[::-1])
        made = subject.generate(values, np.random.default_rng(0))
        return [subject.predict(pictures), subject.reconstruct(pictures), swapped, made]

    whole = all_of_it()
    assert [one.shape for one in whole] == [(7, 5), *[(7, 3, 32, 32)] * 3]
    for part in ("subject", "labelled_subject"):
        monkeypatch.setattr(f"ccvae_train.evaluate.{part}.CHUNK", 3)
    for one, other in zip(whole, all_of_it(), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
        assert one.dtype == np.float32


@pytest.mark.parametrize("subject", ["vae-classifier", "diva", "m2"], indirect=True)
def test_what_is_asked_is_in_the_pixels(subject) -> None:
    pictures, values = images(60)
    assert (predicted(subject.predict(pictures), subject.labels)[:, 0] == values[:, 0]).mean() > 0.9
    on, off = (subject.intervene(pictures, 0, np.full(60, value), np.random.default_rng(0)) for value in (1, 0))
    assert (bright(on) > bright(off)).mean() > 0.9
    asked = np.stack([np.repeat([0, 1], 30), np.zeros(60, int), np.zeros(60, int)], axis=1)
    made = bright(subject.generate(asked, np.random.default_rng(0)))
    # M2's z carries the label as well, so that y alone moves less
    labelled = isinstance(subject, LabelledSubject)
    assert made[30:].mean() > made[:30].mean() + (0.02 if labelled else 0.1)
    if labelled:
        return
    usual, unusual = (subject.intervene(pictures, 0, np.full(60, value), None) for value in (1, 0))
    assert bright(usual).mean() > bright(unusual).mean() + 0.1
    swapped = bright(subject.swap(pictures, values, np.roll(pictures, 1, axis=0)))
    assert np.corrcoef(swapped, values[:, 0])[0, 1] > 0.5


@pytest.mark.parametrize("subject", ["m2", "mvae"], indirect=True)
def test_models_without_a_split_take_labels_as_they_are(subject) -> None:
    pictures, values = images(9)
    others = np.random.default_rng(0).random(pictures.shape, dtype=np.float32)
    assert (subject.swap(others, values, pictures) == subject.swap(pictures, values, pictures)).all()
    first, second = (subject.intervene(pictures, 1, values[:, 1], np.random.default_rng(seed)) for seed in (0, 1))
    assert (first == second).all()
    assert (first != subject.intervene(pictures, 1, 1 - values[:, 1], None)).any()
    one, two = (subject.generate(values, np.random.default_rng(seed)) for seed in (0, 1))
    assert (one != two).any()


@pytest.mark.parametrize("subject", ["vae-classifier"], indirect=True)
def test_rejection_draws_what_the_classifier_is_sure_of(subject) -> None:
    pictures, values = images(40)
    z = subject.draw(values, np.random.default_rng(0))
    split = subject.layout.z_c
    assert (predicted(subject.classify(z[:, :split]), subject.labels) == values).all()
    base, asked = subject.encode(pictures)[0], 1 - values[:, 0]
    moved = subject.replaced(base, 0, asked, np.random.default_rng(0))
    assert (predicted(subject.classify(moved[:, :split]), subject.labels)[:, 0] == asked).all()
    assert (moved[:, 1:] == base[:, 1:]).all()
    with torch.inference_mode():
        one_label = torch.full((40, 3), -1)
        one_label[:, 0] = torch.from_numpy(asked)
        expected = subject.model.changed(torch.from_numpy(pictures), one_label)
    assert subject.replaced(base, 0, asked, None) == pytest.approx(expected.numpy(), abs=1e-4)


def test_evaluate_takes_all_families_and_says_what_it_skips(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jobs, "open_dataset", lambda *_, **__: DATA)
    monkeypatch.chdir(tmp_path)
    options = ["--device", "cpu", "--images", "60", "--out", "all"]
    for name in ("accuracy", "swap", "generation", "frechet", "interventions", "panel", "swaps", "diversity", *UNSPLIT):
        options += ["--protocols", name]
    result = CliRunner().invoke(app, ["evaluate", *(str(runs / family) for family in KINDS), *options])
    assert result.exit_code == 0, result.output
    found = json.loads(Path("all/evaluation.json").read_text())["runs"]
    assert [run["model"] for run in found] == list(KINDS)
    for run in found:
        skipped = {name: part["skipped"] for name, part in run["protocols"].items() if part.get("skipped")}
        assert set(skipped) == SKIPPED[run["model"]], skipped
        assert run["protocols"]["accuracy"]["figures"]["accuracy"] > 0.4
        assert run["protocols"]["swap"]["figures"]["swap distance"] > 0
