"""The report page: figures over receipts, what is shown, and that nothing in it can load or run."""

import base64
import io
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_deploy.pictures.plots import bars, escaped, histogram
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.records.summary import Summary
from ccvae_deploy.report import EDITS, OTHERS, SHOWN, Collected, write_report
from ccvae_deploy.schema import Label, LabelSet

LABELS = LabelSet(labels=(Label(name="smiling"), Label(name="young")))
HAIR = LabelSet(labels=(Label(name="Hair", kind="categorical", classes=("black", "blond", "brown")),))
MIXED = LabelSet(labels=(*LABELS.labels, *HAIR.labels))


def row(source: str, after: float, *, before: float = 0.1, other: float = 0.4, change: float = 2.5) -> dict:
    return {
        "source": source,
        "output": f"{source}__smiling=1.png",
        "asked": {"smiling": 1.0},
        "before": {"smiling": before, "young": 0.3},
        "after": {"smiling": after, "young": other},
        "pixel_change": change,
        "control": 7.9,
        "drift": 0.1,
    }


def chances(labels: LabelSet, before: tuple[float, ...], after: tuple[float, ...]) -> dict:
    return {
        key: dict(zip(labels.column_names, values, strict=True))
        for key, values in (("before", before), ("after", after))
    }


def test_counts_of_a_pass() -> None:
    collected = Collected(LABELS)
    for i, after in enumerate((0.0, 0.04, 0.5, 0.99, 1.0)):
        collected.add(row(f"s{i}", after, other=0.3 + 0.1 * i))
    assert collected.chances["smiling=1"].tolist() == [2] + 9 * [0] + [1] + 8 * [0] + [2]
    assert collected.changes[2] == collected.controls[7] == 5


def test_outputs_like_their_source_count_and_those_of_no_source_do_not() -> None:
    collected = Collected(LABELS)
    for source, change in (("a", 0.0), ("b", 255.0), ("c", None)):
        collected.add(row(source, 0.5) | {"pixel_change": change, "control": 255.0})
    assert collected.changes.nonzero()[0].tolist() == [0, 255]
    assert collected.controls[255] == 3


def test_of_outputs_that_answer_alike_the_first_is_shown() -> None:
    collected = Collected(LABELS)
    for number in range(3):
        collected.add(row("a", 0.9) | {"output": str(number)})
    assert [one.row["output"] for one in (*collected.best(), *collected.worst())] == ["0", "0"]


@pytest.fixture
def page(tmp_path: Path):
    """The page about one receipt, with these figures."""

    def write(**figures) -> str:
        figures = {"asked": {}, "reached": {}, "drift": {}, "pixel_change": None, "provider": "cpu"} | figures
        counts = dict.fromkeys(("sources", "written", "receipts", "all_reached"), 1) | {"seconds": 1.0, "control": 0.0}
        none = dict.fromkeys(("skipped", "failed", "ignored"), 0)
        summary = Summary(out=tmp_path, sheet=None, **figures, **counts, **none)
        return write_report(tmp_path, LABELS, [row("a", 0.9)], summary, {}).read_text("utf-8")

    return write


def test_the_largest_drift_stands_first_and_none_at_all_is_no_bar(page) -> None:
    found = page(drift={"smiling": 0.0, "young": 0.3, "Hair=blond": 0.2})
    assert re.findall(r"<title>([\w=]+): 0\.", found) == ["young", "Hair=blond", "smiling"]
    assert "median change of other labels: 0.000 each" in page(drift={"young": 0.0})


def test_the_plot_of_pixels_has_all_of_the_control_too(page) -> None:
    assert "edit, 2 to 3: 1" in page()
    assert "reconstruction, 7 to 8: 1" in page()


def test_figures_of_a_strangers_bundle_stay_text(page) -> None:
    found = page(provider="<i>", reached={"<q>": 0.5}, asked={"<q>": 1}, drift={"<s>": 0.5})
    assert not re.search("<[iqs]>", found)
    assert "&lt;q&gt;: 50.0% classify as asked" in found


def test_a_class_goes_by_its_own_name() -> None:
    collected = Collected(HAIR)
    seen = (0.1, 0.7, 0.2)
    collected.add(row("a", 0.5) | chances(HAIR, seen, seen) | {"asked": {"Hair": 1.0}})
    assert list(collected.chances) == ["Hair=blond"]


def test_more_edits_than_are_plotted_are_counted_together() -> None:
    collected = Collected(LABELS)
    for source in range(3):
        for value in range(EDITS + 4):
            collected.add(row(f"s{source}", 0.5) | {"asked": {"smiling": value / 100}})
    assert len(collected.chances) == EDITS + 1
    assert collected.chances[OTHERS].sum() == 3 * 4


def test_a_source_that_had_the_class_is_no_success() -> None:
    seen = chances(HAIR, (0.3, 0.4, 0.3), (0.1, 0.8, 0.1))
    for asked, expected in ((1.0, 0), (0.0, 1)):
        collected = Collected(HAIR)
        collected.add(row("a", 0.5) | seen | {"asked": {"Hair": asked}})
        assert len(collected.best()) == expected


def test_the_best_and_worst_of_many_one_per_source() -> None:
    collected = Collected(LABELS)
    for i in range(200):
        for sample in range(3):
            collected.add(row(f"s{i:03d}", (i + sample / 10) / 201, before=0.9 if i > 150 else 0.1))
    best, worst = collected.best(), collected.worst()
    # sources that had the label already are no success
    assert [one.row["source"] for one in best] == [f"s{i:03d}" for i in range(150, 150 - SHOWN, -1)]
    assert best[0].after == pytest.approx(150.2 / 201)
    assert [one.row["source"] for one in worst] == [f"s{i:03d}" for i in range(SHOWN)]
    assert worst[1].after == pytest.approx(1 / 201)


def test_a_value_that_was_asked_off_and_a_class() -> None:
    collected = Collected(LABELS)
    off = row("s", 0.2)
    off["asked"] = {"smiling": 0.0}
    collected.add(off)
    assert collected.worst()[0].after == pytest.approx(0.8)
    collected = Collected(HAIR)
    collected.add(row("t", 0.2) | chances(HAIR, (0.7, 0.2, 0.1), (0.1, 0.3, 0.6)) | {"asked": {"Hair": 2.0}})
    (one,) = collected.best()
    assert (one.before, one.after) == (0.1, 0.6)
    collected = Collected(LABELS)
    varied = row("u", 0.3, before=0.2)
    varied["asked"] = {"smiling": "vary"}
    collected.add(varied)
    assert collected.chances["smiling=vary"].argmax() == 14


def test_plots_hold_their_figures() -> None:
    svg = histogram([("a", [1, 0, 4])], 0, 3, "axis")
    assert svg.count("<rect") == 2
    assert "a, 2 to 3: 4" in svg
    assert re.findall(r'height="([\d.]+)"><title>', svg) == ["32.0", "128.0"]
    assert "0.250" in bars([("label", 0.25)])
    assert histogram([], 0, 1, "empty").startswith("<svg")


def test_text_of_strangers_stays_text() -> None:
    assert escaped("<script>\"'&\n\udcff") == "&lt;script&gt;&quot;&#x27;&amp;\\n\\udcff"


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX only")
def test_the_page_of_a_run(pictures, tiny_bundle, tmp_path) -> None:
    evil = os.fsdecode(b"<img src=x onerror=alert(1)>\xff.png")
    (pictures / evil).write_bytes((pictures / "a.png").read_bytes())
    out = tmp_path / "o"
    summary = edit_folder(
        [pictures], bundle=tiny_bundle, set=["smiling=1", "young=0"], samples=3, out=out, report=True, sheet=False
    )
    page = (out / "report.html").read_text("utf-8")
    assert "<h1>Smiling=1, Young=0</h1>" in page
    assert f"{summary.receipts:,}, of which 30 in this run" in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;\\udcff__smiling=1,young=0" in page
    assert not re.search(r"<script|https?:|javascript:|<link|@import|url\(", page)
    assert "default-src 'none'; img-src data:" in page
    sources = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(sources) == 2 * page.count('class="pair"') >= 20
    Image.open(io.BytesIO(base64.b64decode(sources[0]))).verify()


def test_the_option_and_a_second_run(pictures, tiny_bundle, tmp_path) -> None:
    given = ["edit", pictures, "--set", "smiling=1", "--bundle", tiny_bundle, "--out", tmp_path / "o", "--no-sheet"]
    assert CliRunner().invoke(app, [*map(str, given)]).exit_code == 0
    assert not (tmp_path / "o" / "report.html").exists()
    (pictures / "a.png").unlink()
    result = CliRunner().invoke(app, [*map(str, given), "--report"])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "o" / "report.html").read_text("utf-8")
    # of the sources that are there
    assert "8, of which 0 in this run" in page
    assert "Smiling=1: probability of what was asked, after the edit" in page
    assert "<title>," not in page
    assert f"{tmp_path / 'o' / 'report.html'}" in "".join(result.stdout.split())
    assert 'alt="after"' in page


def test_shards_have_pages_of_their_own(pictures, tiny_bundle, tmp_path) -> None:
    for shard in ("0/2", "1/2"):
        summary = edit_folder(
            [pictures], bundle=tiny_bundle, set=["smiling=1"], out=tmp_path, shard=shard, report=True, sheet=False
        )
        assert summary.report == tmp_path / f"report-{shard.replace('/', '-of-')}.html"
        assert f"{summary.receipts}, of which {summary.written} in this run" in summary.report.read_text("utf-8")


def test_an_output_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    from ccvae_deploy.report import _pictures

    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "o").mkdir()
    collected = Collected(LABELS)
    stranger = row("s", 0.9)
    stranger["output"] = "../secret.png"
    collected.add(stranger)
    assert "<img" not in _pictures("t", "n", collected.best(), tmp_path / "o", {})


def test_a_value_between_is_a_probability_to_be_met() -> None:
    collected = Collected(LABELS)
    for source, after in (("far", 0.05), ("near", 0.32), ("over", 0.9)):
        collected.add(row(source, after, before=0.98) | {"asked": {"smiling": 0.3}})
    assert [one.row["source"] for one in collected.best()] == ["near", "far", "over"]
    assert [one.row["source"] for one in collected.worst()] == ["over", "far", "near"]
    assert (collected.best()[0].before, collected.best()[0].after) == (0.98, 0.32)
    assert collected.chances["smiling=0.3"].nonzero()[0].tolist() == [1, 6, 18]
    assert collected.soft == {"smiling=0.3"}


def test_a_source_on_the_side_of_a_value_between_had_it() -> None:
    collected = Collected(LABELS)
    for source, before in (("below", 0.2), ("above", 0.6)):
        collected.add(row(source, 0.3, before=before) | {"asked": {"smiling": 0.3}})
    assert [one.row["source"] for one in collected.best()] == ["above"]


def test_what_was_to_vary_is_asked_to_stay() -> None:
    collected = Collected(MIXED)
    for source, before, after in (
        ("kept", (0.2, 0.3, 0.1, 0.6, 0.3), (0.1, 0.3, 0.2, 0.7, 0.1)),
        ("turned", (0.8, 0.3, 0.1, 0.6, 0.3), (0.4, 0.3, 0.2, 0.3, 0.5)),
    ):
        seen = chances(MIXED, before, after)
        collected.add(row(source, 0.5) | seen | {"asked": {"smiling": "vary", "Hair": "vary"}})
    assert collected.best() == []
    assert [(one.row["source"], one.before, one.after) for one in collected.worst()] == [
        ("turned", 0.6, 0.3),
        ("kept", 0.6, 0.7),
    ]
    assert collected.worst()[0].asked == "smiling=vary, Hair=vary"
    assert collected.chances["smiling=vary"].nonzero()[0].tolist() == [8, 18]
    assert collected.chances["Hair=vary"].nonzero()[0].tolist() == [6, 14]


def test_of_several_labels_the_one_that_answers_least_counts() -> None:
    seen = chances(MIXED, (0.9, 0.4, 0.7, 0.2, 0.1), (0.25, 0.8, 0.1, 0.8, 0.1))
    for asked, before, after in (
        ({"smiling": 0.3, "young": 1.0, "Hair": 0.0}, 0.7, 0.1),
        ({"smiling": 0.75, "Hair": 1.0}, 0.9, 0.25),
        ({"young": "vary", "Hair": 1.0}, 0.6, pytest.approx(0.2)),
    ):
        collected = Collected(MIXED)
        collected.add(row("s", 0.5) | seen | {"asked": asked})
        assert [(one.before, one.after) for one in collected.worst()] == [(before, after)]
        assert len(collected.best()) == 1
