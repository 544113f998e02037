"""The judge learns plain labels of both kinds, keeps itself in one safe file, and becomes one ONNX graph."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_deploy.errors import RunError, UsageError
from ccvae_deploy.images import in_unit
from ccvae_deploy.schema import Label, LabelSet
from ccvae_export.judge_graph import export_judge
from ccvae_train import judge as judge_module
from ccvae_train.datasets.dataset import Partition
from ccvae_train.device import choose_device
from ccvae_train.evaluate.tables import judge_table
from ccvae_train.judge import JUDGE, TOLD, load_judge, refuse_taken, train_judge
from ccvae_train.judge_network import label_loss
from ccvae_train.label_columns import predicted

from . import made_images

CPU = choose_device("cpu", "fp32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_judge(made_images.made_data(), tmp_path_factory.mktemp("runs") / "judge", epochs=4, seed=0, device=CPU)


def test_it_tells_labels_of_both_kinds_and_says_how_well(trained) -> None:
    figures = trained.state.figures
    assert figures["accuracy"] > 0.97 > figures["floor"] + 0.3
    assert set(figures["by_label"]) == {"bright", "Left_Bar", "hue"}
    assert all(set(f) == set(TOLD) for f in figures["by_label"].values())
    assert figures["by_label"]["bright"]["average_precision"] > 0.97
    table = judge_table(trained.state)
    assert [column.header for column in table.columns] == ["label", "accuracy", "floor", "balanced", "AUROC", "AP"]
    assert table.row_count == 4
    values = made_images.made_values(60, 9)
    images = in_unit(made_images.paint(values, 9))
    assert (predicted(trained.logits(images), made_images.LABELS) == values).mean() > 0.97
    features = trained.features(images)
    assert features.shape == (60, 128)
    assert (features >= 0).all()


def test_the_file_gives_the_same_judge_back(trained) -> None:
    again = load_judge(trained.path, CPU)
    images = in_unit(made_images.paint(made_images.made_values(5, 3)))
    assert (again.logits(images) == trained.logits(images)).all()
    assert again.state == trained.state
    assert json.loads((trained.path / "judge.json").read_text())["fingerprint"] == "a1b2c3d4" * 8


def test_onnx_graph_computes_the_same_at_any_batch(trained) -> None:
    session = onnxruntime.InferenceSession(export_judge(trained), providers=["CPUExecutionProvider"])
    meta = json.loads(session.get_modelmeta().custom_metadata_map["ccvae"])
    assert meta["columns"] == ["bright", "Left_Bar", "hue=r", "hue=g", "hue=b"]
    for count in (1, 3, 17):
        images = in_unit(made_images.paint(made_images.made_values(count, count)))
        assert np.abs(session.run(None, {"image": images})[0] - trained.logits(images)).max() < 1e-4


def test_missing_labels_have_no_say() -> None:
    labels = LabelSet(labels=(Label(name="a"), Label(name="b", kind="categorical", classes=("x", "y", "z"))))
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 9.0, -9.0, 0.0]])
    both = label_loss(logits, torch.tensor([[1, 2], [-1, -1]]), labels)
    assert float(both) == pytest.approx((np.log(2) + np.log(3)) / 2, abs=1e-6)
    assert float(label_loss(logits, torch.full((2, 2), -1), labels)) == 0


def test_judge_trains_with_missing_labels(tmp_path) -> None:
    data = made_images.made_data(made_images.BINARY)
    labels = data.train.labels.copy()
    labels[np.random.default_rng(0).random(labels.shape) < 0.5] = -1
    found = train_judge(
        replace(data, train=Partition(data.train.images, labels)), tmp_path / "judge", epochs=4, seed=0, device=CPU
    )
    assert found.state.figures["balanced"] > 0.95


@pytest.mark.parametrize("damage", [lambda b: b[:500], lambda b: b"\xff" * 64 + b[64:], lambda b: b""])
def test_a_damaged_judge_is_one_line(trained, tmp_path: Path, damage) -> None:
    (tmp_path / JUDGE).write_bytes(damage((trained.path / JUDGE).read_bytes()))
    with pytest.raises(RunError, match="is damaged") as caught:
        load_judge(tmp_path, CPU)
    assert "\n" not in str(caught.value)


def test_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("words")
    with pytest.raises(UsageError, match="is not empty"):
        judge_module.judge(out=tmp_path)
    (tmp_path / "mine.txt").rename(tmp_path / JUDGE)
    with pytest.raises(UsageError, match="holds a judge already"):
        judge_module.judge(out=tmp_path)


def test_what_a_judge_that_was_cut_off_has_left_is_in_nobodys_way(trained, tmp_path: Path) -> None:
    (tmp_path / f".{JUDGE}.123").write_bytes(b"half")
    refuse_taken(tmp_path)


def test_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge_module, "open_dataset", lambda *_, **__: made_images.made_data())
    result = CliRunner().invoke(app, ["judge", "--epochs", "1", "--device", "cpu", "--onnx"])
    assert result.exit_code == 0, result.output
    assert "mean over labels" in result.output
    assert sorted(p.name for p in Path("runs/judge-made-32-rgb-a1b2c3d4").iterdir()) == [
        "judge.json",
        "judge.onnx",
        "judge.safetensors",
    ]
    assert CliRunner().invoke(app, ["judge", "--epochs", "0"]).exit_code == 2


def test_a_bad_option_points_to_the_help_of_judge() -> None:
    with pytest.raises(UsageError, match=r"^--image-size 50: .*; see `ccvae-deploy judge --help`$"):
        judge_module.judge(image_size=50)


@pytest.mark.parametrize(
    ("option", "value"), [("--seed", "-1"), ("--image-size", "33"), ("--channels", "2"), ("--device", "gpu")]
)
def test_options_are_checked_before_work(option, value, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge_module, "open_dataset", lambda *_, **__: pytest.fail("data were opened"))
    result = CliRunner().invoke(app, ["judge", option, value])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {option} {value}")
    assert not list(tmp_path.iterdir())
