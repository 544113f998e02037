"""Several processes train as one does: two of them, over gloo, on made data."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from ccvae_deploy.errors import UsageError
from ccvae_deploy.storage.lock import FolderLock
from ccvae_train.checkpoint import read_checkpoint
from ccvae_train.noise import Noise
from ccvae_train.ranks import Ranks

SCRIPT = textwrap.dedent(
    """
    import json, os, sys, time
    from pathlib import Path
    import numpy as np, torch
    import ccvae_train.loop as loop, ccvae_train.training as training
    from ccvae_deploy.cli import app
    from ccvae_deploy.schema import ImageSpec, Label, LabelSet
    from ccvae_train.datasets import source
    from ccvae_train.datasets.dataset import Dataset, Partition
    from ccvae_train.device import choose_device

    torch.set_num_threads(1)
    rank, task, rng = int(os.environ.get("RANK", 0)), os.environ.get("TASK", ""), np.random.default_rng(0)

    def part(count):
        labels = rng.integers(0, 2, (count, 2)).astype(np.int8)
        images = rng.integers(20, 60, (count, 1, 1, 1)) + np.zeros((count, 32, 32, 3))
        images += 110 * labels[:, 0, None, None, None]
        return Partition(images.astype(np.uint8), labels)

    labels = LabelSet(labels=(Label(name="a"), Label(name="b")))
    data = Dataset("made", labels, ImageSpec(size=32), part(165), part(40), "b" * 64)
    training.open_dataset = lambda *a, **k: data
    training.choose_device = lambda *a: choose_device("cpu", "fp32")
    losses, check = [], loop._refuse_not_finite

    def watched(fit, means):
        losses.append(float(means["loss"]))
        if task == "interrupt" and fit.step == 11 and rank == 1:
            os.kill(os.getpid(), 2)
        if task == "die" and fit.step == 7 and rank == 1:
            os.kill(os.getpid(), 9)
        if task == "break" and fit.step == 7 and rank == 1:
            raise training.RunError("the disk of process 1 is on fire")
        if task == str(fit.step + 1) and rank == 0:
            os.kill(os.getpid(), 2)
        check(fit, means)

    loop._refuse_not_finite = watched
    try:
        app(["train", *sys.argv[1:]])
    finally:
        Path(f"losses-{rank}.json").write_text(json.dumps(losses))
    """
)
SETTINGS = ["--epochs", "200", "--latents", "6", "--batch-size", "33", "--supervision", "0.5", "--flip", "--out", "run"]
# at 2e-3, on 330 images, rounding alone had grown to 2e-4 of the loss by the 20th step
SETTINGS += ["--learning-rate", "1e-3"]


def run(folder: Path, processes: int, task: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`train` in `folder`, alone or under torchrun."""
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(SCRIPT)
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*start, "script.py", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"TASK": task, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def errors(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def test_two_processes_train_as_one_does_and_either_goes_on(tmp_path: Path) -> None:
    """A batch of 33 is shared unevenly, labels are missing, images are mirrored; rank 1 alone is interrupted."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert errors(run(one, 1, "20", *SETTINGS)) == [
        "error: interrupted; go on with `ccvae-deploy train --resume --out run`"
    ]
    first = run(two, 2, "interrupt", *SETTINGS)
    assert errors(first) == ["error: interrupted; go on with `ccvae-deploy train --resume --out run`"]
    assert first.stderr.count("run run\n") == 1
    assert "2 processes" in first.stderr
    assert read_checkpoint(two / "run")[0].step == 12
    begun = json.loads((two / "losses-0.json").read_text())
    assert begun == json.loads((two / "losses-1.json").read_text())
    alone = json.loads((one / "losses-0.json").read_text())
    assert (len(alone), len(begun)) == (20, 12)
    assert begun[0] == pytest.approx(alone[0], rel=1e-6)
    assert begun == pytest.approx(alone[:12], rel=1e-5)
    # one process goes on with it, then two again
    for processes, last in ((1, 16), (2, 20)):
        assert len(errors(run(two, processes, str(last), "--resume", "--out", "run"))) == 1
        assert read_checkpoint(two / "run")[0].step == last
        after = json.loads((two / "losses-0.json").read_text())
        assert after == pytest.approx(alone[last - 4 : last], rel=1e-4)
    assert [path.name for path in sorted((two / "run").iterdir())] == [
        path.name for path in sorted((one / "run").iterdir())
    ]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("die", "another of the 2 processes has ended; go on with --resume"),
        ("break", "the disk of process 1 is on fire"),
    ],
)
def test_a_process_that_fails_ends_the_other_with_one_line(tmp_path: Path, task: str, message: str) -> None:
    result = run(tmp_path, 2, task, *SETTINGS)
    assert result.returncode != 0
    (line,) = errors(result)
    assert message in line
    assert read_checkpoint(tmp_path / "run")[0].step == 5


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, 2, "", "--supervision", "2")
    assert result.returncode != 0
    (line,) = errors(result)
    assert "--supervision 2.0" in line
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_another_run_holds_is_refused_by_the_first_of_them(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with FolderLock(tmp_path / "run", shared=False):
        result = run(tmp_path, 2, "", *SETTINGS)
    assert result.returncode != 0
    assert errors(result) == ["error: another run writes to run; wait for it, or give another --out"]


def test_shares_make_up_the_batch_and_too_small_a_batch_is_refused() -> None:
    shares = [Ranks(rank, 3).share(10) for rank in range(3)]
    assert [row for share in shares for row in range(10)[share]] == list(range(10))
    assert sum(Ranks(rank, 3).weight(10) for rank in range(3)) == pytest.approx(3)
    assert Ranks().share(10) == slice(0, 10)
    assert Ranks().weight(7) == 1
    with pytest.raises(UsageError, match="a batch of 2 images cannot be shared by 3 processes"):
        Ranks(0, 3).share(2)


def test_an_image_has_its_noise_in_every_share() -> None:
    def noise(share: slice | None = None) -> Noise:
        generator = torch.Generator().manual_seed(3)
        return Noise(generator) if share is None else Noise(generator, share.start, 10)

    like = torch.zeros(1)
    whole, drawn = noise().normal((10, 4), like), noise().uniform((10,))
    for rank in range(3):
        share = Ranks(rank, 3).share(10)
        count = share.stop - share.start
        assert torch.equal(noise(share).normal((count, 4), like), whole[share])
        assert torch.equal(noise(share).uniform((count,)), drawn[share])
    assert np.unique(whole.numpy()).size == 40


def test_the_module_is_the_command() -> None:
    """`python -m ccvae_train` takes the arguments of `ccvae-deploy train`, and says the same."""

    def helped(*command: str) -> str:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "100"}
        return subprocess.run(
            [sys.executable, *command, "--help"], capture_output=True, text=True, env=environment
        ).stdout

    code = "from ccvae_deploy.cli import app; import sys; app(['train', *sys.argv[1:]], prog_name='ccvae-deploy')"
    said = helped("-m", "ccvae_train")
    assert said == helped("-c", code)
    assert "--supervision" in said
