"""What an evaluation is of: which runs count, what is told of them, and the judges of their data."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from ccvae_deploy.errors import UsageError
from ccvae_deploy.schema import ImageSpec, LabelSet
from ccvae_train import training
from ccvae_train.checkpoint import load_run, read_checkpoint
from ccvae_train.evaluate import jobs
from ccvae_train.evaluate.evaluate import evaluate
from ccvae_train.evaluate.protocols import PROTOCOLS
from ccvae_train.judge import load_judge
from ccvae_train.training import train

from .. import made_images
from .small_runs import DATA, SMALL, command

pytestmark = pytest.mark.usefixtures("made_data")


def test_a_run_counts_once_by_whatever_name(trained: Path) -> None:
    named = [trained / "latest", trained / "seed1", trained / ".." / "runs" / "seed1"]
    assert len(evaluate(named, protocols=["accuracy"], images=60, device="cpu", out=Path("out")).runs) == 1


def test_test_images_are_others_and_their_figures_too(trained: Path, monkeypatch) -> None:
    tested = replace(DATA.valid, labels=1 - DATA.valid.labels)
    monkeypatch.setattr(jobs, "test_partition", lambda *_, **__: (tested, "first"))
    options = {"protocols": ["accuracy"], "images": 60, "device": "cpu", "out": Path("out")}
    valid = evaluate([trained / "seed0"], **options).runs[0]
    test = evaluate([trained / "seed0"], partition="test", **options).runs[0]
    assert valid.figure("accuracy") + test.figure("accuracy") == pytest.approx(1)
    assert json.loads(Path("out/evaluation.json").read_text())["settings"]["partition"] == "test"
    # corrected since: other figures, though all else is as it was
    monkeypatch.setattr(jobs, "test_partition", lambda *_, **__: (DATA.valid, "second"))
    again = evaluate([trained / "seed0"], partition="test", **options).runs[0]
    assert again.figure("accuracy") == valid.figure("accuracy")
    with pytest.raises(UsageError, match="--partition tests: did you mean test"):
        evaluate([trained / "seed0"], partition="tests", **options)


def test_a_run_that_was_cut_off_stands_apart_and_is_told(trained: Path, capsys) -> None:
    shutil.copytree(trained / "seed1", "cut-off")
    state, tensors = read_checkpoint(Path("cut-off"))
    fewer = state.model_copy(update={"provenance": state.provenance | {"epochs_done": 1}})
    save_file(tensors, "cut-off/checkpoint.safetensors", metadata={"ccvae": fewer.model_dump_json()})
    runs = [trained / "seed0", Path("cut-off")]
    found = evaluate(runs, protocols=["accuracy"], images=60, device="cpu", out=Path("out"))
    assert [len(group) for group in found.groups().values()] == [1, 1]
    assert found.runs[1].model == "ccvae epochs=1 of 2"
    assert found.notes() == ["cut-off has been trained for 1 of 2 epochs"]
    assert "cut-off has been trained for 1 of 2 epochs" in Path("out/report.html").read_text()
    assert "note: cut-off has been trained for 1 of 2 epochs\n" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_a_judge_is_trained(trained: Path, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "train_judge", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(jobs, "writable", lambda _: False)
    shutil.copytree(trained / "seed0", "alone/seed0")
    with pytest.raises(UsageError, match=r"no judge can be written at .*name it with --judge"):
        evaluate([Path("alone/seed0")], protocols=["swap"], images=60, device="cpu", out=Path("out"))


def test_a_checkpoint_that_changes_while_it_is_read_is_read_again(trained: Path, monkeypatch) -> None:
    shutil.copytree(trained / "seed0", "going-on")
    newer, read = (trained / "seed1" / "checkpoint.safetensors").read_bytes(), []

    def load(path: Path):
        read.append(load_run(path))
        if len(read) == 1:
            Path("going-on/checkpoint.safetensors").write_bytes(newer)
        return read[-1]

    monkeypatch.setattr(jobs, "load_run", load)
    run, digest = jobs.loaded_run(Path("going-on"))
    assert (run, digest) == (read[1], hashlib.sha256(newer).hexdigest())


def test_runs_that_differ_in_more_than_seed_are_told_apart(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "open_dataset", lambda *_, **__: DATA)
        train(SMALL | {"epochs": 1, "latents": 8, "supervision": 0.2}, out=Path("runs/other"))
    runs = [trained / "seed0", trained / "seed1", Path("runs/other")]
    found = evaluate(runs, protocols=["accuracy"], images=80, device="cpu", out=Path("differing"))
    assert [len(alike) for alike in found.groups().values()] == [2, 1]
    *same, other = (run.model for run in found.runs)
    assert same == ["ccvae epochs=2 latents=6"] * 2
    assert other == "ccvae epochs=1 latents=8"


def test_a_judge_is_trained_only_where_a_protocol_needs_one(trained: Path) -> None:
    shutil.copytree(trained / "seed0", Path("alone/seed0"))
    result = command("alone/seed0", *(part for p in PROTOCOLS if not p.judged for part in ("--protocols", p.name)))
    assert result.exit_code == 0, result.output
    assert [path.name for path in Path("alone").iterdir()] == ["seed0"]
    assert json.loads(Path("alone/seed0/evaluation/evaluation.json").read_text())["runs"][0]["judge"] == {}


def test_a_judge_of_other_classes_is_refused(trained: Path, judge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments):
        found = load_judge(*arguments)
        first, *rest = found.state.labels.labels
        renamed = LabelSet(labels=(first.model_copy(update={"classes": ("cat", "dog")}), *rest))
        return replace(found, state=found.state.model_copy(update={"labels": renamed}))

    monkeypatch.setattr(jobs, "load_judge", load)
    result = command(trained / "seed0", "--judge", judge, "--protocols", "swap")
    assert result.exit_code == 2
    assert "tells other labels, or images of another size" in result.stderr


def test_a_judge_that_lies_there_must_fit(trained: Path, judge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(DATA, image=ImageSpec(size=64), fingerprint="b" * 64)
    shutil.copytree(judge, trained / "judge-made-64-rgb-bbbbbbbb")
    monkeypatch.setattr(jobs, "open_dataset", lambda *_, **__: other)
    result = command(trained / "seed0", "--protocols", "swap")
    assert result.exit_code == 2
    assert "tells other labels, or images of another size" in result.stderr


@pytest.mark.parametrize(("source", "policy"), [("made:./elsewhere", "ones"), ("other:DIR", None)])
def test_uncertain_labels_count_as_they_did_wherever_the_data_lie(trained, monkeypatch, source, policy) -> None:
    asked = []

    def opened(source: str, **options):
        asked.append(options["uncertain"])
        return DATA

    monkeypatch.setattr(jobs, "open_dataset", opened)
    run = load_run(trained / "seed0")
    config = run.state.config.model_copy(update={"data": "made:DIR", "uncertain": "ones"})
    changed = replace(run, state=run.state.model_copy(update={"config": config}))
    jobs.open_jobs([(changed, "")], source)
    assert asked == [policy]


def test_data_that_have_changed_since_training_are_told(trained: Path, monkeypatch) -> None:
    run = load_run(trained / "seed0")
    assert jobs.open_jobs([(run, "")], None)[0].notes == ()
    monkeypatch.setattr(jobs, "open_dataset", lambda *_, **__: replace(DATA, fingerprint="b" * 64))
    for source in (None, run.state.config.data):
        (note,) = jobs.open_jobs([(run, "")], source)[0].notes
        assert "has changed since" in note
    assert jobs.open_jobs([(run, "")], "made:elsewhere")[0].notes == ()


def test_runs_of_one_name_stay_apart(trained: Path, judge: Path) -> None:
    shutil.copytree(trained / "seed1", Path("other/seed0"))
    found = evaluate(
        [trained / "seed0", Path("other/seed0")],
        protocols=["panel"],
        images=80,
        device="cpu",
        judge=judge,
    )
    first, second = (run.name for run in found.runs)
    assert first != second
    assert first.startswith("seed0-")


def test_a_judge_of_other_labels_is_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccvae_train.device import choose_device
    from ccvae_train.judge import train_judge

    few = made_images.made_data(train=64, valid=64)
    train_judge(few, Path("judge"), epochs=1, seed=0, device=choose_device("cpu"))
    with pytest.raises(UsageError, match="tells other labels"):
        evaluate([trained / "seed0"], judge=Path("judge"), out=Path("out"))
