"""Plans: what a row says is what is done, and a file that cannot be followed is refused before any work."""

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ccvae_deploy import pipeline
from ccvae_deploy.edits import plan as plans
from ccvae_deploy.edits.plan import read_plan
from ccvae_deploy.edits.request import make_request
from ccvae_deploy.errors import CCVAEError
from ccvae_deploy.folder import Source
from ccvae_deploy.pictures.sheet import contact_sheet
from ccvae_deploy.schema import Label, LabelSet

LABELS = LabelSet(
    labels=(
        Label(name="Smiling"),
        Label(name="Wearing_Hat"),
        Label(name="Hair", kind="categorical", classes=("black", "blond", "a/b", "a:b")),
    )
)
NAMES = ("a.png", "deep/b.png", " c d.png", "q'\"\n.png", b"caf\xe9.png".decode("utf-8", "surrogateescape"))
SOURCES = [Source(Path("imgs", name), name) for name in NAMES]


def asked(path: Path, text: str | bytes, **options) -> dict[str, list[str]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    found = read_plan(path, LABELS, SOURCES, partial(make_request, LABELS, **options))
    return {relative: [one.name for one in edits] for relative, edits in found.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.csv"


def test_rows_cells_and_several_rows_of_one_source(path: Path) -> None:
    text = "file,Smiling,wearing hat,Hair\na.png,1,,\n\ndeep/b.png, 0.3 ,0,blond\na.png,0,,BLACK\n"
    assert asked(path, text) == {
        "a.png": ["smiling=0,hair=black", "smiling=1"],
        "deep/b.png": ["smiling=0.3,wearing_hat=0,hair=blond"],
    }


def test_a_column_is_there_once_however_short_its_name(path: Path) -> None:
    path.write_text("file,x,x\na.png,1,0\n")
    labels = LabelSet(labels=(Label(name="x"),))
    with pytest.raises(CCVAEError, match="columns x and x are one label"):
        read_plan(path, labels, SOURCES, partial(make_request, labels))


def test_a_cell_may_vary_a_label(path: Path) -> None:
    assert asked(path, "file,smiling,wearing hat\na.png,Vary,1\na.png,vary,\n") == {
        "a.png": ["smiling=vary", "smiling=vary,wearing_hat=1"]
    }


def test_byte_order_mark_line_ends_and_the_place_of_the_column(path: Path) -> None:
    assert asked(path, "\ufeffSmiling,File\r\n1,a.png\r\n") == {"a.png": ["smiling=1"]}


def test_paths_as_they_were_given(path: Path) -> None:
    assert asked(path, "file,smiling\nimgs/a.png,1\n./deep/b.png,0\n") == {
        "a.png": ["smiling=1"],
        "deep/b.png": ["smiling=0"],
    }


def test_odd_names(path: Path) -> None:
    text = b'file,smiling\n c d.png,1\n"q\'""\n.png",1\ncaf\xe9.png,1\n'
    assert set(asked(path, text)) == set(NAMES[2:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1: expected one column `file`"),
        ("file;smiling\na.png;1\n", "separated by commas; found file;smiling"),
        ("name,smiling\na.png,1\n", "row 1: expected one column `file`"),
        ("file,file,smiling\n", "row 1: expected one column `file`"),
        ("file\na.png\n", "row 1: no label"),
        ("file,smyling\na.png,1\n", r"row 1: column 'smyling' is no label of the bundle; did you mean Smiling"),
        ("file,smiling,\na.png,1,\n", "row 1: column 3 has no name; write a label there or delete the column"),
        ("file,smiling,Smiling\na.png,1,1\n", "columns smiling and Smiling are one label"),
        ("file,smiling\n", "has no rows"),
        ("file,smiling\na.png,1\nx.png,1\n", "row 3: x.png is none of the images"),
        ("file,smiling\n,1\n", "row 2: no file is named"),
        ("file,smiling\na.png\n", "row 2: 1 cells, expected 2"),
        ("file,smiling\na.png,1,1\n", "row 2: 3 cells, expected 2"),
        ("file,smiling\na.png,\n", "row 2: nothing to change for a.png; fill a cell or delete the row"),
        ("file,smiling\na.png,2\n", r"row 2 \(a.png\): Smiling=2: expected 0, 1 or a number from 0 to 1"),
        ("file,smiling\na.png,nan\n", r"row 2 \(a.png\): Smiling=nan"),
        ("file,hair\na.png,blonde\n", r"row 2 \(a.png\): Hair=blonde: did you mean blond"),
        ("file,smiling\na.png,1\n\na.png,1.0\n", "row 4: asks the same of a.png as row 2; delete one of them"),
        ("file,hair\na.png,a/b\na.png,a:b\n", "row 3: asks the same of a.png as row 2"),
        ('file,smiling\n"a.png,1\n', "no CSV"),
        ('file,smiling\n"a.png"x,1\n', "no CSV"),
        ("file,smiling\n" + "x" * 200_000 + ",1\n", "no CSV"),
        ("../../etc/passwd,1\n", "row 1: expected one column"),
        ("f\0i\0l\0e\0,\0s\0m\0i\0l\0i\0n\0g\0\n\0", "is no UTF-8 text"),
    ],
)
def test_refused_with_the_row_and_the_remedy(path: Path, text: str, message: str) -> None:
    with pytest.raises(CCVAEError, match=message) as caught:
        asked(path, text)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 500


def test_the_sheet_of_a_plan_names_its_rows_and_says_what_is_cut(tmp_path, run, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(pipeline, "contact_sheet", lambda *given: told.append(given[1:]) or contact_sheet(*given))
    rows = [f"{name},{smiling},{young}" for name in ("a.png", "b.jpg") for smiling, young in ((1, ""), ("vary", 0))]
    plan = tmp_path / "plan.csv"
    plan.write_text("\n".join(["file,smiling,young", *rows]))
    run(tmp_path / "out", plan=plan, samples=1, sheet=True)
    monkeypatch.setattr(pipeline, "ROWS", 3)
    run(tmp_path / "cut", plan=plan, samples=1, sheet=True)
    run(tmp_path / "alike", samples=1, sheet=True)
    assert told[0] == ("by plan, 1 sample each", ["smiling=1", "smiling=vary,young=0"] * 2)
    assert told[1][0] == "by plan, 1 sample each; the first 3 of 4"
    assert told[2] == ("smiling=1, 1 sample each; the first 3 of 9", [])


def test_a_plan_that_is_no_file_or_too_long(path: Path, tmp_path: Path, monkeypatch) -> None:
    for place, message in ((tmp_path, "no regular file"), (tmp_path / "absent", "cannot be read: No such file")):
        with pytest.raises(CCVAEError, match=message):
            read_plan(place, LABELS, SOURCES, partial(make_request, LABELS))
    monkeypatch.setattr(plans, "MAX_ROWS", 2)
    with pytest.raises(CCVAEError, match="more than 2 rows"):
        asked(path, "file,smiling\na.png,1\ndeep/b.png,1\n")
    monkeypatch.setattr(plans, "MAX_BYTES", 10)
    with pytest.raises(CCVAEError, match="the limit is 10"):
        asked(path, "file,smiling\na.png,1\n")


@given(st.binary(max_size=200) | st.text(alphabet='file,smng\n"0123a.png\r\0 ', max_size=200))
def test_any_file_is_followed_or_refused_with_one_error(tmp_path_factory, text: str | bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    try:
        found = asked(path, text)
    except CCVAEError:
        return
    assert found.keys() <= set(NAMES)


PLAN = "file,smiling,young\na.png,1,\nb.jpg,,0\na.png,0,1\ndeep/d.png,0.7,\n"


@pytest.fixture
def run(run):
    """With two samples."""
    return lambda out, **options: run(out, **{"samples": 2, **options})


def test_each_row_gives_what_the_same_set_gives(tmp_path, run, tree) -> None:
    path = tmp_path / "plan.csv"
    path.write_text(PLAN)
    summary = run(tmp_path / "out", plan=path)
    assert (summary.sources, summary.written, summary.skipped) == (3, 8, 0)
    assert summary.asked == {"Smiling": 6, "Young": 4}
    assert set(summary.drift) == {"Smiling", "Wearing_Hat", "Young"}
    found = tree(tmp_path / "out")
    rows = [json.loads(line) for line in found["receipts.jsonl"].splitlines()]
    for label in ("Smiling", "Young"):
        hits = [(row["after"][label] > 0.5) == (row["asked"][label] >= 0.5) for row in rows if label in row["asked"]]
        assert summary.reached[label] == sum(hits) / len(hits)
    for asks in (["smiling=1"], ["young=0"], ["smiling=0", "young=1"], ["smiling=0.7"]):
        run(tmp_path / "single", set=asks)
    single = tree(tmp_path / "single")
    outputs = [row["output"] for row in rows]
    assert outputs == [f"a__smiling=0,young=1__0{k}.png" for k in (0, 1)] + [
        f"{stem}__0{k}.{end}"
        for stem, end in (("a__smiling=1", "png"), ("b__young=0", "jpg"), ("deep/d__smiling=0.7", "png"))
        for k in (0, 1)
    ]
    assert all(found[name] == single[name] for name in outputs)
    assert set(found["receipts.jsonl"].splitlines()) <= set(single["receipts.jsonl"].splitlines())


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 64, "workers": 1}])
def test_order_of_rows_batches_and_resuming_change_no_byte(tmp_path, options, run, tree) -> None:
    path = tmp_path / "plan.csv"
    path.write_text(PLAN)
    run(tmp_path / "expected", plan=path)
    head, *rows = PLAN.splitlines(keepends=True)
    path.write_text(head + "".join(rows[2:]))
    run(tmp_path / "out", plan=path, **options)
    path.write_text(head + "".join(reversed(rows)))
    summary = run(tmp_path / "out", plan=path, **options)
    assert (summary.written, summary.skipped) == (4, 1)
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")


def test_more_edits_of_one_source_than_a_batch_holds(tmp_path, run) -> None:
    (tmp_path / "imgs").mkdir()
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "imgs/a.png")
    path = tmp_path / "plan.csv"
    path.write_text("file,smiling\n" + "".join(f"a.png,{i / 100}\n" for i in range(50)))
    summary = run(tmp_path / "out", inputs=tmp_path / "imgs", plan=path, samples=3, sheet=False)
    assert (summary.sources, summary.written, summary.receipts) == (1, 150, 150)
    again = run(tmp_path / "out", inputs=tmp_path / "imgs", plan=path, samples=3, sheet=False)
    assert (again.written, again.skipped) == (0, 1)


def test_a_bad_plan_writes_nothing(tmp_path, run) -> None:
    path = tmp_path / "plan.csv"
    path.write_text(PLAN + "i.jpeg,7,\n")
    with pytest.raises(CCVAEError, match=r"row 6 \(i.jpeg\)"):
        run(tmp_path / "out", plan=path)
    assert not (tmp_path / "out").exists()
