"""One file of tensors: whole or not there, and what a kill has left of it goes with the next."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ccvae_train import tensor_file
from ccvae_train.tensor_file import read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_holds_what_safetensors_writes_and_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    transposed = TENSORS | {"c": torch.ones(2, 4).T}
    write_tensors(path, transposed, "key", "text")
    save_file({name: tensor.contiguous() for name, tensor in transposed.items()}, tmp_path / "y", {"key": "text"})
    assert path.read_bytes() == (tmp_path / "y").read_bytes()
    text, found = read_tensors(path, "key")
    assert text == "text"
    assert all(torch.equal(found[name], tensor) for name, tensor in transposed.items())
    assert read_tensors(path, "other")[0] == ""


def test_others_may_read_it_as_any_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_tensors(tmp_path / "x", TENSORS, "key", "text")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL, no flock")
def test_what_a_kill_in_the_middle_of_a_save_left_goes_with_the_next(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys, torch
        from pathlib import Path
        from ccvae_train import tensor_file
        os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
        tensor_file.write_tensors(Path(sys.argv[1]), {"a": torch.zeros(1000)}, "key", "killed")
        """
    )
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, "key", "before")
    killed = subprocess.Popen([sys.executable, "-c", script, path])
    assert killed.wait() == -signal.SIGKILL
    assert names(tmp_path) == [f".x.safetensors.{killed.pid}", "x.safetensors"]
    assert read_tensors(path, "key")[0] == "before"
    write_tensors(path, TENSORS, "key", "after")
    assert names(tmp_path) == ["x.safetensors"]
    assert read_tensors(path, "key")[0] == "after"


@pytest.mark.skipif(os.name == "nt", reason="no flock")
def test_what_a_process_is_writing_stays_and_so_does_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [f".x.{text}" for text in ("", "1a", "12.old", "-3", "½", "new")] + [".x12.3", "x.4", ".y.5"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".x.6").mkdir()
    (tmp_path / ".x.7").symlink_to("x.4")
    os.mkfifo(tmp_path / ".x.8")
    monkeypatch.setattr(tensor_file.os, "getpid", lambda: 9)
    held = (tmp_path / ".x.10").open("xb")
    tensor_file.take(held.fileno())
    (tmp_path / ".x.11").write_text("left")
    write_tensors(tmp_path / "x", TENSORS, "key", "text")
    assert names(tmp_path) == sorted([*mine, ".x.6", ".x.7", ".x.8", ".x.10", "x"])
    held.close()
    write_tensors(tmp_path / "x", TENSORS, "key", "text")
    assert not (tmp_path / ".x.10").exists()


def test_an_unfinished_file_goes_when_it_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "x", TENSORS, "key", "before")

    def full(handle: int) -> None:
        raise OSError("full")

    monkeypatch.setattr(tensor_file.os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_tensors(tmp_path / "x", TENSORS, "key", "after")
    assert names(tmp_path) == ["x"]
    assert read_tensors(tmp_path / "x", "key")[0] == "before"
