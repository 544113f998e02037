"""`metrics.csv` beside a run: what someone else has made of it costs no epoch."""

import csv
from pathlib import Path

import pytest

from ccvae_deploy.errors import RunError
from ccvae_deploy.terminal.progress import shown
from ccvae_train import loop, training
from ccvae_train.checkpoint import read_checkpoint
from ccvae_train.run_folder import append_metrics, refuse_other_metrics
from ccvae_train.training import train

from .made_bars import SMALL

pytestmark = pytest.mark.usefixtures("made_bars")


def saved_again(path: Path) -> bytes:
    """As a spreadsheet of many countries saves a table."""
    path.write_bytes(path.read_bytes().replace(b",", b";"))
    return path.read_bytes()


def epochs(path: Path) -> list[int]:
    with path.open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def test_a_table_saved_again_with_semicolons_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(SMALL | {"epochs": 1}, out=Path("run")).run
    saved = saved_again(run / "metrics.csv")
    with monkeypatch.context() as patch:
        patch.setattr(training, "open_dataset", lambda *_, **__: pytest.fail("opened"))
        with pytest.raises(
            RunError,
            match=r"run/metrics\.csv is no table of epochs: it begins with 'epoch;step;.*'; "
            r"expected columns with commas .*; save it so or move it away, and resume again",
        ) as caught:
            train({}, out=run, resume=True)  # fmt: skip
    assert "\n" not in str(caught.value)
    assert (run / "metrics.csv").read_bytes() == saved
    (run / "metrics.csv").unlink()
    assert train({}, out=run, resume=True).finished


def test_a_table_saved_again_while_training_costs_no_checkpoint(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    saved, save = [], loop._save

    def then_spoil(fit, means) -> None:
        save(fit, means)
        if fit.provenance["epochs_done"] == 1:
            saved.append(saved_again(fit.run / "metrics.csv"))

    monkeypatch.setattr(loop, "_save", then_spoil)
    with shown():
        run = train(SMALL, out=Path("run")).run
    assert read_checkpoint(run)[0].provenance["epochs_done"] == 3
    assert epochs(run / "metrics.csv") == [2, 3]
    assert (run / "metrics-before-0002.csv").read_bytes() == saved[0]
    said = [line for line in capsys.readouterr().err.splitlines() if "no table of epochs" in line]
    assert said == [
        "run/metrics.csv was no table of epochs any more; it is run/metrics-before-0002.csv now, and a new one begins"
    ]


def test_the_mark_that_excel_puts_before_a_table_is_taken(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"\xef\xbb\xbfepoch,loss\r\n1,2\r\n2,3\r\n")
    refuse_other_metrics(tmp_path)
    assert append_metrics(tmp_path, {"epoch": 2, "loss": 1.5}) is None
    assert (tmp_path / "metrics.csv").read_text("utf-8").splitlines() == ["epoch,loss", "1,2", "2,1.5"]


def test_a_figure_that_one_epoch_lacks_keeps_its_column(tmp_path: Path) -> None:
    for epoch, figures in enumerate([{"ess": 0.5}, {}, {"ess": 0.6}], start=1):
        append_metrics(tmp_path, {"epoch": epoch, "loss": 2.0, **figures})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["epoch,loss,ess", "1,2,0.5", "2,2,", "3,2,0.6"]


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"epoch,loss\nfirst,2\n", "invalid literal for int() with base 10: 'first'"),
        ("epoch,loss\n1,2\n".encode("utf-16"), "'utf-8' codec can't decode byte 0xff"),
        (b"\n1,2\n", "it begins with ''"),
        (None, "not a regular file"),
    ],
)
def test_other_things_of_that_name_are_one_line_and_go_aside(tmp_path: Path, content: bytes | None, seen: str) -> None:
    path = tmp_path / "metrics.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        refuse_other_metrics(tmp_path)
    assert f"is no table of epochs: {seen}" in str(caught.value)
    assert append_metrics(tmp_path, {"epoch": 3, "loss": 1.5}) == tmp_path / "metrics-before-0003.csv"
    assert epochs(path) == [3]
    refuse_other_metrics(tmp_path)
