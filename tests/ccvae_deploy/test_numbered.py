"""Labels whose classes are numbers, as tables code them: a number means the class that it names, wherever it stands."""

import json
from pathlib import Path

import numpy as np
import pytest

from ccvae_deploy import Editor
from ccvae_deploy.benchmark import benchmark
from ccvae_deploy.bundle import MANIFEST
from ccvae_deploy.edits.request import asked_of, make_request
from ccvae_deploy.errors import LabelError
from ccvae_deploy.generate import generate_folder
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.schema import Label, LabelSet

LABELS = LabelSet(
    labels=(
        Label(name="sex", classes=("1", "2")),
        Label(name="reversed", classes=("1", "0")),
        Label(name="mixed", classes=("1", "many")),
        Label(name="plain"),
        Label(name="digit", kind="categorical", classes=("0", "1", "3", "10")),
    )
)
YES = (True, np.True_)


@pytest.fixture
def numbered(own_bundle: Path) -> Path:
    """A bundle whose label Smiling has the classes 1 and 2."""
    content = json.loads((own_bundle / MANIFEST).read_text())
    content["labels"]["labels"][0]["classes"] = ["1", "2"]
    (own_bundle / MANIFEST).write_text(json.dumps(content))
    return own_bundle


@pytest.mark.parametrize(
    ("label", "given", "position", "name"),
    [
        ("sex", (1, 1.0, "1", "1.0", " 1", np.float32(1), np.int64(1)), 0, "sex=1"),
        ("sex", (2, 2.0, "2", "2.0", np.float32(2), "2e0"), 1, "sex=2"),
        ("reversed", (0, 0.0, "0", "-0.0", np.float32(0)), 1, "reversed=0"),
        ("mixed", (1, 1.0, "1"), 0, "mixed=1"),
        ("mixed", ("MANY",), 1, "mixed=many"),
        ("plain", (1, 1.0, "1.0", np.float32(1), *YES), 1, "plain=1"),
        ("digit", (1, 1.0, "1", "1.0", np.float32(1)), 1, "digit=1"),
        ("digit", (10, 10.0, "10.0", np.float64(10)), 3, "digit=10"),
    ],
)
def test_a_number_is_the_class_that_it_names(label: str, given, position: int, name: str) -> None:
    for value in given:
        request = make_request(LABELS, {label: value})
        assert (request.asked[0].value, request.name) == (position, name), repr(value)
        assert asked_of(LABELS, request.values(LABELS))[0].spelled == name


@pytest.mark.parametrize("value", [0, 0.5, 1.5, 3, "-1", "yes", "nan", *YES])
def test_what_names_no_class_is_refused_with_the_names(value) -> None:
    with pytest.raises(LabelError, match=r"^sex=.*: its classes are called 1 and 2; give sex=1 or sex=2$"):
        make_request(LABELS, {"sex": value})


def test_a_number_that_is_no_class_of_many_is_refused() -> None:
    for value in (1.5, "1.5", 2.0, -1, True):
        with pytest.raises(LabelError, match="digit="):
            make_request(LABELS, {"digit": value})


def test_an_edit_a_plan_and_a_report_call_the_class_by_its_name(numbered: Path, imgs: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.csv", tmp_path / "o"
    # as pandas writes a column with blanks
    plan.write_text("file,smiling,young\na.png,1.0,\nb.png,2.0,\na.png,,1.0\n")
    edit_folder([imgs], bundle=numbered, plan=plan, out=out, provider="cpu", report=True)
    rows = {row["output"]: row for row in map(json.loads, (out / "receipts.jsonl").read_text().splitlines())}
    assert sorted(rows) == ["a__smiling=1__00.png", "a__young=1__00.png", "b__smiling=2__00.png"]
    assert rows["a__smiling=1__00.png"]["asked"] == {"Smiling": 0.0}
    assert rows["a__smiling=1__00.png"]["after"]["Smiling"] < 0.5 < rows["b__smiling=2__00.png"]["after"]["Smiling"]
    page = (out / "report.html").read_text()
    assert "Smiling=1: probability" in page
    assert "Smiling=2: probability" in page
    assert "Smiling=0" not in page


def test_generated_images_and_an_editor_too(numbered: Path, imgs: Path, tmp_path: Path) -> None:
    generate_folder(bundle=numbered, count=2, set={"smiling": np.float32(1)}, out=tmp_path / "g")
    assert (tmp_path / "g" / "000001__smiling=1__00.png").is_file()
    editor = Editor.open(numbered, provider="cpu")
    by_number, by_name = (editor.edit(imgs / "a.png", smiling=value).images[0].tobytes() for value in (2.0, "2"))
    assert by_number == by_name
    assert editor.variance(imgs / "a.png", labels="smiling", samples=2).labels == ("Smiling",)


def test_a_benchmark_asks_for_a_class_that_is_there(numbered: Path, monkeypatch) -> None:
    content = json.loads((numbered / MANIFEST).read_text())
    content["labels"]["labels"][0]["classes"] = ["2", "3"]
    (numbered / MANIFEST).write_text(json.dumps(content))
    for name, few in (("SECONDS", 0.01), ("FEWEST", 1), ("MOST", 1), ("ROUNDS", 1)):
        monkeypatch.setattr(f"ccvae_deploy.benchmark.{name}", few)
    assert benchmark(numbered, provider="cpu", workers=1)
