"""`classify`: values, order, draws, and what a table is on disk."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ccvae_deploy import images
from ccvae_deploy.classify import classify_folder, classify_sources
from ccvae_deploy.cli import app
from ccvae_deploy.composer import Composer
from ccvae_deploy.errors import BundleError, EngineError, UsageError
from ccvae_deploy.folder import scan
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.records.label_table import LabelTable, Row


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_what_the_composer_says_in_path_order(
    pictures, tiny_bundle, composer: Composer, tmp_path
) -> None:
    result = classify_folder([pictures], bundle=tiny_bundle, out=tmp_path / "labels.csv", batch_size=4)
    rows = rows_of(tmp_path / "labels.csv")
    assert (result.sources, result.failed) == (9, 0)
    assert [row["source"] for row in rows] == [source.relative for source in scan([pictures]).sources]
    picture = decode((pictures / "a.png").read_bytes())
    expected = composer.classify(images.network_input(picture, composer.bundle.manifest.image)[None])[0]
    assert [float(rows[0][name]) for name in composer.labels.names] == pytest.approx(expected.tolist(), abs=1e-6)
    assert list(rows[0]) == ["source", "source_sha256", "Smiling", "Wearing_Hat", "Young", "error"]


def test_draws_depend_on_no_batch_and_agree_with_the_integral(pictures, tiny_bundle, composer: Composer) -> None:
    sources = scan([pictures]).sources
    many = list(classify_sources(composer, sources, samples=1000, seed=3))
    alone = list(classify_sources(Composer(composer.bundle, batch_size=1), sources[4:5], samples=1000, seed=3))
    assert alone[0].probabilities == pytest.approx(many[4].probabilities, abs=1e-6)
    picture = decode(sources[4].path.read_bytes())
    z = composer.encode(images.network_input(picture, composer.bundle.manifest.image)[None]).z
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    logits = 2.0 * (z[0, 0] + 0.1 * nodes) + 0.2  # the tiny classifier, posterior scale 0.1
    p = 1 / (1 + np.exp(-logits))
    mean = (weights * p).sum() / weights.sum()
    deviation = np.sqrt((weights * (p - mean) ** 2).sum() / weights.sum())
    assert many[4].probabilities["Smiling"] == pytest.approx(mean, abs=4 * deviation / 1000**0.5)
    assert many[4].spread["Smiling"] == pytest.approx(deviation, rel=0.1)
    (one,) = classify_sources(composer, sources[4:5], samples=1)
    assert set(one.spread.values()) == {0}
    other = list(classify_sources(composer, sources[4:5], samples=1000, seed=4))
    assert other[0].probabilities != many[4].probabilities


def test_a_bad_file_is_a_row_with_its_error_and_ends_with_1(pictures, tiny_bundle, tmp_path) -> None:
    (pictures / "bad.png").write_text("no image")
    (pictures / "notes.txt").write_text("no image either")
    out = tmp_path / "labels.jsonl"
    result = CliRunner().invoke(
        app, ["classify", str(pictures), "--bundle", str(tiny_bundle), "--out", str(out), "--samples", "2"]
    )
    assert result.exit_code == 1, result.output
    rows = [json.loads(line) for line in out.read_text("ascii").splitlines()]
    assert len(rows) == 10
    (bad,) = [row for row in rows if "error" in row]
    assert bad == {"source": "bad.png", "error": "not an image, or of an unknown kind"}
    assert set(rows[0]) == {"source", "source_sha256", "probabilities", "spread"}
    assert "1 failed (see the column `error`), 1 other file passed over" in result.stderr


def test_without_out_the_table_goes_to_stdout(pictures, tiny_bundle) -> None:
    result = CliRunner().invoke(app, ["classify", str(pictures / "a.png"), "--bundle", str(tiny_bundle)])
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["source"] == "a.png"
    assert 0 <= float(row["Smiling"]) <= 1


def test_on_a_terminal_no_bar_is_drawn_over_the_table(pictures, tiny_bundle, monkeypatch) -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("ccvae_deploy.classify.progress", lambda *_: pytest.fail("a bar"))
    classify_folder([pictures], bundle=tiny_bundle, out=(out := Terminal()))
    assert out.getvalue().count(b"\n") == 10


def test_a_graph_that_gives_up_between_rows_ends_with_1(pictures, tiny_bundle, monkeypatch) -> None:
    def gives_up(*_, **__):
        raise BundleError("cannot run")

    monkeypatch.setattr("ccvae_deploy.classify.classify_seen", gives_up)
    with pytest.raises(EngineError, match="cannot run") as caught:
        classify_folder([pictures], bundle=tiny_bundle, out=io.BytesIO())
    assert caught.value.exit_code == 1


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX only")
@pytest.mark.parametrize("name", [b"caf\xe9.png", b'a,b "c"\nd.png', b"a\rb.png", "ümlaut.png".encode()])
def test_any_name_survives_both_formats(name: bytes, pictures, tiny_bundle, tmp_path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes((pictures / "a.png").read_bytes())
    for out in (tmp_path / "t.csv", tmp_path / "t.jsonl"):
        classify_folder([folder], bundle=tiny_bundle, out=out)
    assert os.fsencode(rows_of(tmp_path / "t.csv")[0]["source"]) == name
    assert os.fsencode(json.loads((tmp_path / "t.jsonl").read_text("ascii"))["source"]) == name


def test_shards_are_parts_of_the_whole(pictures, tiny_bundle, tmp_path) -> None:
    parts = []
    for index in range(3):
        out = tmp_path / f"{index}.csv"
        classify_folder([pictures], bundle=tiny_bundle, out=out, shard=f"{index}/3")
        parts += [(row["source"], row["Smiling"]) for row in rows_of(out)]
    classify_folder([pictures], bundle=tiny_bundle, out=tmp_path / "all.csv")
    assert sorted(parts) == [(row["source"], row["Smiling"]) for row in rows_of(tmp_path / "all.csv")]
    with pytest.raises(UsageError, match="--shard '3/3'"):
        classify_folder([pictures], bundle=tiny_bundle, out=tmp_path / "x.csv", shard="3/3")


@pytest.mark.parametrize(
    ("names", "spread"), [(("smiling", "error"), False), (("source",), False), (("hat", "hat sd"), True)]
)
def test_a_label_called_as_a_column_goes_to_json_lines_alone(names, spread, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"has the name of another column of the table; give --out FILE\.jsonl"):
        LabelTable(io.BytesIO(), "csv", names, spread)
    lines = io.BytesIO()
    LabelTable(lines, "jsonl", names, spread).write(Row("a.png", "0" * 64, dict.fromkeys(names, 0.5)))
    assert json.loads(lines.getvalue())["probabilities"] == dict.fromkeys(names, 0.5)


def test_a_file_that_is_there_is_replaced_when_asked(pictures, tiny_bundle, tmp_path) -> None:
    out = tmp_path / "labels.csv"
    out.write_text("name,Smiling\na.png,1\n")
    with pytest.raises(UsageError, match="is there; add --overwrite"):
        classify_folder([pictures], bundle=tiny_bundle, out=out)
    assert out.read_text() == "name,Smiling\na.png,1\n"
    classify_folder([pictures], bundle=tiny_bundle, out=out, overwrite=True)
    first = out.read_bytes()
    classify_folder([pictures], bundle=tiny_bundle, out=out, overwrite=True, batch_size=3)
    assert out.read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "imgs") == ["labels.csv"]


def test_an_interrupted_run_leaves_no_table(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Composer, "classify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        classify_folder([pictures], bundle=tiny_bundle, out=tmp_path / "labels.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["imgs"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0"),
        ({"samples": 1001}, "--samples 1001"),
        ({"seed": -1}, "--seed -1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"workers": 0}, "--workers 0"),
        ({"out": Path("labels.xlsx")}, "ends in .csv or .jsonl"),
        ({"out": None}, "--out None: expected a path, or a stream of bytes"),
        ({"out": io.StringIO()}, "expected a path, or a stream of bytes"),
    ],
)
def test_refusals(options, message, pictures, tiny_bundle, tmp_path) -> None:
    with pytest.raises(UsageError, match=message):
        classify_folder([pictures], **{"bundle": tiny_bundle, "out": tmp_path / "t.csv"} | options)
