"""The functions of commands that train, as a program calls them: text for paths, URLs refused."""

from pathlib import Path

import pytest

from ccvae_deploy.errors import DataError, RunError, UsageError
from ccvae_train.checkpoint import load_run
from ccvae_train.config import read_recipe
from ccvae_train.datasets.download import fetch
from ccvae_train.datasets.licensed import check_celeba, check_chexpert
from ccvae_train.datasets.mnist import MNIST
from ccvae_train.datasets.source import open_dataset
from ccvae_train.datasets.writer import write_portraits
from ccvae_train.device import choose_device
from ccvae_train.evaluate.evaluate import evaluate
from ccvae_train.judge import judge, load_judge
from ccvae_train.training import train

ABSENT = "table:/nowhere/at/all"
CALLS = {
    "train": (lambda at: train({"data": ABSENT}, out=at), DataError),
    "resume": (lambda at: train({}, out=at, resume=True), RunError),
    "data": (lambda at: open_dataset(f"table:{at}"), DataError),
    "load_run": (load_run, RunError),
    "evaluate": (lambda at: evaluate([at], protocols=["frechet"]), RunError),
    "evaluate one": (lambda at: evaluate(at), RunError),
    "inception": (lambda at: evaluate(inception=at), UsageError),
    "judge": (lambda at: judge(ABSENT, out=at), DataError),
    "load_judge": (lambda at: load_judge(at, choose_device("cpu")), RunError),
    "read_recipe": (read_recipe, UsageError),
    "celeba": (check_celeba, DataError),
    "chexpert": (check_chexpert, DataError),
}
"""Functions of a path, and how each ends where nothing lies there."""


@pytest.mark.parametrize("name", CALLS)
def test_a_path_may_be_text(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, refusal = CALLS[name]
    with pytest.raises(refusal) as caught:
        call("some/x")
    assert "URL" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*CALLS, "evaluate to", "judged by", "write_portraits", "fetch"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_url_is_refused(name: str, kind: type, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    more = {
        "evaluate to": lambda at: evaluate("x", out=at),
        "judged by": lambda at: evaluate("x", judge=at),
        "write_portraits": lambda at: write_portraits(at, 1),
        "fetch": lambda at: fetch(at, MNIST),
    }
    call = more.get(name) or CALLS[name][0]
    with pytest.raises(UsageError, match=r"^s3://bucket/x: a URL, .*; give a path of this machine$"):
        call(kind("s3://bucket/x"))
    assert not any(tmp_path.iterdir())


def test_portraits_are_written_where_text_says(tmp_path: Path) -> None:
    write_portraits(f"{tmp_path}/faces", 1, size=16)
    assert (tmp_path / "faces" / "labels.csv").is_file()
    assert read_recipe("celeba")["data"] == "celeba:"
