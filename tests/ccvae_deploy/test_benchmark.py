"""`benchmark`: rates that follow what graphs and edits take, nothing left behind, refusals before work."""

import json
import re
import tempfile
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccvae_deploy import benchmark as module
from ccvae_deploy.benchmark import benchmark
from ccvae_deploy.bundle import Bundle
from ccvae_deploy.cli import app
from ccvae_deploy.errors import BundleError, UsageError


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few calls, in an empty folder, with temporary files in another."""
    monkeypatch.setattr(module, "SECONDS", 0.02)
    monkeypatch.setattr(module, "FEWEST", 2)
    monkeypatch.setattr(module, "ROUNDS", 1)
    for name in ("here", "scratch"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


def test_rates_are_those_of_the_graphs(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Bundle.decode

    def slow(self, z):
        time.sleep(0.02)
        return decode(self, z)

    monkeypatch.setattr(Bundle, "decode", slow)
    found = benchmark(tiny_bundle, provider="cpu")
    assert list(found.graphs) == ["encoder", "decoder", "classifier", "conditional_prior"]
    # a call takes 20 ms and a little, at any batch
    assert 10 < found.graphs["decoder"][1] < 50
    assert 640 < found.graphs["decoder"][64] < 3200
    assert found.graphs["classifier"][1] > 100
    # two sources of eight samples are one batch of sources and one of edits, so at least two slow calls
    assert 0 < found.edits["png"] < 16 / 0.04
    assert found.edits.keys() == {"jpeg", "png"}


def test_nothing_is_left_behind(tiny_bundle: Path, tmp_path: Path) -> None:
    benchmark(tiny_bundle, provider="cpu")
    assert not list((tmp_path / "here").iterdir())
    assert not list((tmp_path / "scratch").iterdir())


def test_more_pictures_where_edits_are_fast(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    edit = module.edit_folder

    def counted(inputs, **options):
        summary = edit(inputs, **options)
        counts.append(summary.sources)
        return summary

    monkeypatch.setattr(module, "edit_folder", counted)
    monkeypatch.setattr(module, "SECONDS", 60.0)
    monkeypatch.setattr(module, "MOST", 5)
    monkeypatch.setattr(module, "_median_seconds", lambda call, given: 1.0)
    found = benchmark(tiny_bundle, provider="cpu")
    assert counts == [2, 5, 2, 5]
    assert found.graphs["encoder"] == {1: 1.0, 16: 16.0, 64: 64.0}


def test_a_family_without_conditional_prior(priorless_bundle: Path) -> None:
    found = benchmark(priorless_bundle, provider="cpu")
    assert list(found.graphs) == ["encoder", "decoder", "classifier"]
    assert found.edits["jpeg"] > 0


def test_what_cannot_be_is_refused_before_work(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at absent"):
        benchmark(Path("absent"))
    with pytest.raises(UsageError, match="--batch-size 0"):
        benchmark(tiny_bundle, batch_size=0)
    with pytest.raises(UsageError, match="--workers 0"):
        benchmark(tiny_bundle, workers=0)


def test_the_command_prints_a_table_or_json(tiny_bundle: Path) -> None:
    shown = CliRunner().invoke(app, ["benchmark", str(tiny_bundle), "--provider", "cpu"])
    assert shown.exit_code == 0, shown.output
    assert "conditional prior" in shown.stdout
    assert re.search(r"^ +jpeg +[\d,]+ images/s; a million in [\d.]+ \w+ *$", shown.stdout, re.MULTILINE)
    assert max(len(line.rstrip()) for line in shown.stdout.splitlines()) <= 80
    told = CliRunner().invoke(app, ["benchmark", str(tiny_bundle), "--json"])
    found = json.loads(told.stdout)
    assert found["graphs"]["encoder"].keys() == {"1", "16", "64"}
    assert found["samples"] == 8


@pytest.mark.parametrize(("seconds", "text"), [(80, "80 seconds"), (3000, "50.0 minutes"), (9000, "2.5 hours")])
def test_hours(seconds: float, text: str) -> None:
    assert module._hours(seconds) == text
