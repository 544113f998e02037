"""The whole command on small runs: files, tables, resumption, several runs, what is skipped and what is refused."""

import csv
import html
import io
import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_deploy.errors import DataError, UsageError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet, ModelSpec
from ccvae_train import training
from ccvae_train.datasets import celeba, chexpert
from ccvae_train.evaluate import evaluate as module
from ccvae_train.evaluate import jobs
from ccvae_train.evaluate.evaluate import evaluate
from ccvae_train.evaluate.finding import Finding
from ccvae_train.evaluate.paper import RECIPE, has_papers_labels, published
from ccvae_train.evaluate.parts import read_part
from ccvae_train.evaluate.protocols import PROTOCOLS
from ccvae_train.evaluate.report import write_page
from ccvae_train.evaluate.results import Evaluation, Part, RunResult, mean_and_spread
from ccvae_train.evaluate.spreadsheets import write_csvs
from ccvae_train.evaluate.tables import cell, evaluation_tables
from ccvae_train.training import train

from .. import made_images
from .small_runs import DATA, SMALL, command

pytestmark = pytest.mark.usefixtures("made_data")


def test_everything_on_one_run(trained: Path) -> None:
    result = command(trained / "latest")
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.splitlines() if not line.endswith("are written")) <= 80
    assert "fid" in result.stdout
    assert (trained / "judge-made-32-rgb-a1b2c3d4" / "judge.safetensors").is_file()
    out = trained / "seed1" / "evaluation"
    content = json.loads((out / "evaluation.json").read_text())
    (run,) = content["runs"]
    assert set(run["protocols"]) == {protocol.name for protocol in PROTOCOLS}
    skipped = {name for name, found in run["protocols"].items() if found.get("skipped")}
    assert skipped == {"fid", "truth", "information"}
    assert run["protocols"]["accuracy"]["figures"]["accuracy"] > 0.7
    assert run["judge"]["accuracy"] > 0.9
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 7
    assert "default-src 'none'" in page
    assert "The judge of made" in page
    counts = {name: found["images"] for name, found in run["protocols"].items() if not found.get("skipped")}
    assert (counts["swap"], counts["gradients"], counts["accuracy"]) == (80, 32, len(DATA.valid))
    assert (counts["generation"], counts["panel"], counts["swaps"], counts["traversals"]) == (80, 6, 14, 1)
    assert '<p class="note">1 image. ' in page
    assert '<p class="note">80 images. Mean |change' in page
    with (out / "swap.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["bright", "Left_Bar"]
    with (out / "figures.csv").open() as file:
        figures = {row["figure"]: row["value"] for row in csv.DictReader(file)}
    assert float(figures["accuracy"]) == run["protocols"]["accuracy"]["figures"]["accuracy"]


def test_all_that_lies_beside_runs_may_be_named(trained: Path, judge: Path) -> None:
    """As `runs/*` does once a judge is there."""
    found = evaluate(sorted(trained.iterdir()), protocols=["accuracy"], images=60, device="cpu", out=Path("out"))
    assert {run.name for run in found.runs} == {"seed1", "seed0"}
    with Path("out/summary.csv").open() as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert (rows["accuracy"]["runs"], rows["accuracy"]["source"]) == ("2", "Tables 1 and 6")
    values = [run.figure("accuracy") for run in found.runs]
    assert float(rows["accuracy"]["mean"]) == pytest.approx(sum(values) / 2)


def test_seeds_that_are_the_same_are_told(trained: Path) -> None:
    shutil.copytree(trained / "seed0", "copy")
    found = evaluate([trained / "seed0", Path("copy")], protocols=["accuracy"], images=60, out=Path("out"))
    assert any("are not all of different seeds" in note for note in found.notes())


@pytest.mark.parametrize("change", ["table", "picture", "link"])
def test_stored_protocols_of_strangers_reach_no_file_outside(trained: Path, tmp_path: Path, change: str) -> None:
    options = {"protocols": ["panel", "accuracy"], "images": 60, "device": "cpu", "out": Path("out")}
    evaluate([trained / "seed0"], **options)
    folder = Path("out/parts/seed0")
    (tmp_path / "private.png").write_bytes((folder / "panel-panel.png").read_bytes())
    part = folder / ("accuracy.json" if change == "table" else "panel.json")
    content = json.loads(part.read_text())
    if change == "table":
        content["finding"]["tables"][0]["name"] = "../../mine"
    elif change == "picture":
        (folder / "panel-").mkdir()
        content["finding"]["pictures"] = ["/../../../../private"]
    else:
        (folder / "panel-panel.png").unlink()
        (folder / "panel-panel.png").symlink_to(tmp_path / "private.png")
    part.write_text(json.dumps(content))
    assert read_part(folder, part.stem, content["key"]) is None


def test_an_evaluation_that_leads_out_of_its_run_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "seed0", "theirs")
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree("theirs/evaluation", ignore_errors=True)
    Path("theirs/evaluation").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"theirs/evaluation is a link out of its run; name where it leads with --out"):
        evaluate([Path("theirs")], protocols=["accuracy"], images=60, device="cpu")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_finished_protocols_are_taken_where_all_agrees(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"protocols": ["swap", "accuracy", "panel"], "images": 80, "device": "cpu"}
    whole = evaluate([trained / "seed0"], out=Path("out"), **options)
    first = Path("out/evaluation.json").read_bytes()
    ran = []

    def noted(protocol, *rest):
        ran.append(protocol.name)
        return run(protocol, *rest)

    run = module._run
    monkeypatch.setattr(module, "_run", noted)
    again = evaluate([trained / "seed0"], out=Path("out"), **options)
    assert ran == []
    assert Path("out/evaluation.json").read_bytes() == first
    assert again.runs == whole.runs
    Path("out/parts/seed0/panel-panel.png").unlink()
    Path("out/parts/seed0/swap.json").write_text('{"key": 3}')
    evaluate([trained / "seed0"], out=Path("out"), **options)
    assert ran == ["swap", "panel"]
    assert Path("out/parts/seed0/panel-panel.png").is_file()
    evaluate([trained / "seed0"], out=Path("out"), **(options | {"seed": 5}))
    assert ran[2:] == ["accuracy", "swap", "panel"]


def test_a_fid_of_other_weights_is_another(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their file may keep its name."""
    ran = []

    def run(bench):
        ran.append(bench.settings.inception.read_text())
        return Finding(figures={"FID": 1.0})

    monkeypatch.setattr(module, "_refuse_weights", lambda path: None)
    protocols = tuple(replace(protocol, run=run) for protocol in PROTOCOLS if protocol.name == "fid")
    monkeypatch.setattr(module, "chosen", lambda names: protocols)
    options = {"images": 60, "device": "cpu", "out": Path("out"), "inception": Path("weights")}
    for weights in ("one", "one", "two"):
        Path("weights").write_text(weights)
        evaluate([trained / "seed0"], **options)
    assert ran == ["one", "two"]


def test_stopped_work_goes_on(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(bench):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            module,
            "chosen",
            lambda names: tuple(
                p if p.name != "panel" else type(p)(p.name, p.title, p.source, stop)
                for p in PROTOCOLS
                if p.name in ("accuracy", "panel")
            ),
        )
        result = command(trained / "seed0", "--out", "out")
    assert result.exit_code == 130
    assert "goes on where it stopped" in result.output
    assert [path.name for path in Path("out/parts/seed0").iterdir()] == ["accuracy.json"]
    assert command(trained / "seed0", "--out", "out", "--protocols", "accuracy,panel").exit_code == 0


def test_classes_beside_binary_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = made_images.made_data()
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: data)
    monkeypatch.setattr(jobs, "open_dataset", lambda *_, **__: data)
    train(SMALL | {"label_dims": {"hue": 2}}, out=Path("runs/hue"))
    (run,) = evaluate([Path("runs/hue")], images=80, device="cpu").runs
    assert {part.protocol for part in run.parts if part.skipped} <= {"fid", "truth", "information"}
    assert "classes-2" in next(part.pictures for part in run.parts if part.protocol == "classes")
    assert run.figure("accuracy") > 0.6


def test_several_runs_give_mean_and_spread(trained: Path) -> None:
    found = evaluate([trained / "seed0", trained / "seed1"], protocols=["accuracy"], images=80, device="cpu")
    assert found.out == Path("evaluation")
    (runs,) = found.groups().values()
    mean, spread = mean_and_spread(runs, "accuracy")
    each = [run.figure("accuracy") for run in runs]
    assert mean == pytest.approx(sum(each) / 2)
    assert spread == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    (table,) = evaluation_tables(found)
    assert "2 runs" in table.title


def test_a_figure_that_one_run_lacks_is_the_mean_of_the_others_and_says_so(trained: Path) -> None:
    found = evaluate([trained / "seed0", trained / "seed1"], protocols=["accuracy"], images=80, device="cpu")
    first, second = found.runs
    lacking = replace(second, parts=tuple(replace(p, finding={"figures": {"accuracy": None}}) for p in second.parts))
    other = Evaluation(found.out, (first, lacking))
    (runs,) = other.groups().values()
    assert mean_and_spread(runs, "accuracy") == (first.figure("accuracy"), None)
    (note,) = other.notes()
    assert "do not all have a finite accuracy, " in note
    write_csvs(other)
    with (found.out / "summary.csv").open(newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert rows["accuracy"]["runs"] == "1"


def test_runs_that_validate_on_other_images_say_so(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate([trained / "seed0", trained / "seed1"], protocols=["accuracy"], images=80, device="cpu")
    assert not found.notes()
    first, second = found.runs
    other = Evaluation(found.out, (first, replace(second, fingerprint="0" * 64)))
    (note,) = other.notes()
    assert "validate on different images, drawn by their seeds" in note
    write_page(other)
    assert note in html.unescape((found.out / "report.html").read_text())
    assert [table.title for table in evaluation_tables(other)][1:] == ["note"]


def test_what_was_skipped_names_its_runs() -> None:
    def result(name: str, *reasons: tuple[str, str]) -> RunResult:
        parts = tuple(Part(protocol, {}, reason, 0.0, {}) for protocol, reason in reasons)
        return RunResult(name, Path(), "ccvae", "ccvae", 1.0, 0, "table:x", "valid", "f" * 64, False, "", {}, (), parts)

    runs = (
        result("a", ("swap", "no residual latents"), ("FID", "no weights")),
        result("b", ("swap", "not split"), ("FID", "no weights")),
    )
    console = Console(file=io.StringIO(), width=80)
    for table in evaluation_tables(Evaluation(Path(), runs)):
        console.print(table)
    shown = console.file.getvalue()
    assert "a: no residual latents" in shown
    assert "b: not split" in shown
    assert shown.count("no weights") == 1


def test_models_and_rates_make_the_papers_tables(trained: Path, judge: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "open_dataset", lambda *_, **__: DATA)
        train(SMALL | {"epochs": 1, "supervision": 0.5}, out=Path("runs/half"))
        train(SMALL | {"epochs": 1, "estimator": "paper"}, out=Path("runs/paper"))
    shutil.copytree(judge, Path("judge"))
    result = command(trained / "seed0", "runs/half", "runs/paper", "--protocols", "accuracy", "--judge", "judge")
    assert result.exit_code == 0, result.output
    assert not Path("runs/judge-made-32-rgb-a1b2c3d4").exists()
    for text in ("f = 0.2", "f = 0.5", "f = 1", "ccvae paper", "accuracy (Tables 1 and 6)"):
        assert text in result.output


def test_tables_of_an_evaluation_before_do_not_stay(trained: Path) -> None:
    out = Path("several")
    evaluate([trained / "seed0"], protocols=["accuracy", "swap"], images=80, device="cpu", out=out)
    (out / "mine.csv").write_text("mine")
    evaluate([trained / "seed0"], protocols=["accuracy"], images=80, device="cpu", out=out)
    assert sorted(path.name for path in out.glob("*.csv")) == ["accuracy.csv", "figures.csv", "mine.csv", "summary.csv"]


def test_what_is_asked_is_checked_before_work(trained: Path) -> None:
    for option, value in (("--seed", -1), ("--device", "gpu")):
        result = CliRunner().invoke(app, ["evaluate", str(trained / "seed0"), option, str(value)])
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith(f"error: {option} {value}")


def test_refuses_before_it_writes(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained / "seed0"
    with pytest.raises(UsageError, match="did you mean swap"):
        evaluate([run], protocols=["swp"], out=Path("out"))
    with pytest.raises(UsageError, match="--images 3"):
        evaluate([run], images=3, out=Path("out"))
    with pytest.raises(UsageError, match="no such file"):
        evaluate([run], inception=Path("nowhere.pth"), out=Path("out"))
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("words")
    with pytest.raises(UsageError, match="no evaluation"):
        evaluate([run], out=Path("mine"))
    other = LabelSet(labels=(DATA.labels.labels[0], Label(name="Left_Bar", classes=("right", "left"))))
    monkeypatch.setattr(jobs, "open_dataset", lambda *_, **__: made_images.made_data(other))
    with pytest.raises(DataError, match="other classes"):
        evaluate([run], out=Path("out"))
    assert not Path("out").exists()


def test_the_papers_figures() -> None:
    assert published("accuracy", "celeba:/data", "ccvae", 0.2) == 0.878
    assert published("swap distance", "chexpert:x", "m2", 0.06) == 1.43
    assert published("mutual information", "mnist:x", "ccvae", 1.0) == 0.01
    assert published("accuracy", "celeba:/data", "ccvae", 0.3) is None
    assert published("accuracy", "portraits", "ccvae", 0.2) is None
    assert published("reached", "celeba:/data", "ccvae", 0.2) is None


def test_cells() -> None:
    assert [cell(v) for v in (None, 0.12345, 12, 12345.6, -3.0)] == ["–", "0.1235", "12", "12,346", "-3.0000"]


def test_picture_protocols_have_no_figures(trained: Path) -> None:
    found = evaluate([trained / "seed0"], protocols=["swaps"], images=80, device="cpu", out=Path("out"))
    (part,) = found.runs[0].parts
    assert not part.figures
    assert part.pictures["swaps"].is_file()


def test_the_docs_name_every_protocol() -> None:
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text("utf-8")
    assert all(f"`{protocol.name}`" in text for protocol in PROTOCOLS)


def test_the_papers_figures_stand_beside_the_papers_labels_only() -> None:
    faces, grey = ImageSpec(size=64), ImageSpec(size=64, channels=1)
    assert has_papers_labels("celeba:/data", celeba.PAPER_LABELS[::-1], faces)
    assert not has_papers_labels("celeba:/data", celeba.PAPER_LABELS[:3], faces)
    assert not has_papers_labels("celeba:/data", celeba.PAPER_LABELS, grey)
    assert not has_papers_labels("celeba:/data", celeba.PAPER_LABELS, ImageSpec(size=128))
    assert has_papers_labels("chexpert:/data", chexpert.PAPER_LABELS, grey)
    assert has_papers_labels("mnist:/data", ["digit"], ImageSpec(size=32, channels=1))
    ours = RunResult("a", Path(), "ccvae", "ccvae", 0.2, 0, "celeba:/data", "valid", "f" * 64, True, "", {}, (), ())
    assert ours.paper("accuracy") == 0.878
    assert "the paper's figures are of test images" in Evaluation(Path(), (ours,)).notes()[0]
    assert Evaluation(Path(), (replace(ours, partition="test"),)).notes() == []
    assert replace(ours, papers_labels=False).paper("accuracy") is None


def test_chest_x_rays_of_another_setting_are_told_where_the_papers_figures_stand() -> None:
    text = (Path(training.__file__).parents[1] / "recipes" / "chexpert-paper.toml").read_text("utf-8")
    assert {name: tomllib.loads(text)[name] for name in RECIPE} == RECIPE

    def note(source: str, channels: int, uncertain: str, supervision: float = 0.2) -> str:
        config = SimpleNamespace(data="chexpert:x", uncertain=uncertain, supervision=supervision)
        labels = SimpleNamespace(names=chexpert.PAPER_LABELS)
        state, image = SimpleNamespace(config=config, model=ModelSpec()), ImageSpec(size=64, channels=channels)
        return jobs.other_setting(SimpleNamespace(path="runs/a", state=state, labels=labels, image=image), source)

    assert note("chexpert:x", 3, "zeros") == ""
    assert note("chexpert:x", 1, "ignore") == (
        "the paper's figures stand beside runs/a, whose setting is not that of chexpert-paper: channels 1, not 3; "
        "uncertain ignore, not zeros"
    )
    # beside these there are none
    assert note("chexpert:x", 1, "ignore", supervision=0.3) == note("celeba:x", 1, "ignore") == ""


def test_the_judges_own_accuracy_is_a_figure_wherever_one_judges(tmp_path: Path) -> None:
    run = RunResult(
        "a", Path(), "m2", "m2", 1.0, 0, "x", "valid", "f" * 64, False, "judge-x", {"accuracy": 0.91}, (), ()
    )
    found = Evaluation(tmp_path, (run,))
    write_csvs(found)
    for name, column in (("figures.csv", "value"), ("summary.csv", "mean")):
        with (tmp_path / name).open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["figure"], row[column]) == ("judge's own accuracy", "0.91")
    console = Console(file=io.StringIO(), width=80)
    console.print(next(evaluation_tables(found)))
    assert re.search(r"judge's own accuracy +│ +0\.9100 ", console.file.getvalue())
    write_page(found)
    assert html.escape("judge's own accuracy") + "</td><td>0.9100" in (tmp_path / "report.html").read_text()
    write_csvs(Evaluation(tmp_path, (replace(run, judge={}),)))
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 1


def test_tables_of_other_columns_have_files_of_their_own(tmp_path: Path) -> None:
    def result(name: str, labels: list[str]) -> RunResult:
        table = {
            "name": "matrix",
            "columns": ["label", *labels],
            "rows": [[one, *range(len(labels))] for one in labels],
        }
        part = Part("interventions", {"figures": {}, "tables": [table]}, "", 0.0, {})
        return RunResult(
            name, Path(), "ccvae", "ccvae", 1.0, 0, "table:x", "valid", "f" * 64, False, "", {}, (), (part,)
        )

    runs = (result("a", ["x", "y"]), result("b", ["y", "x", "z"]), result("c", ["x", "y"]))
    write_csvs(Evaluation(tmp_path, runs))
    first, second = ((tmp_path / name).read_text().splitlines() for name in ("matrix.csv", "matrix-2.csv"))
    assert first == ["run,label,x,y", "a,x,0,1", "a,y,0,1", "c,x,0,1", "c,y,0,1"]
    assert second == ["run,label,y,x,z", "b,y,0,1,2", "b,x,0,1,2", "b,z,0,1,2"]
