"""What goes wrong around a training run: labels that cannot be learned, a full disk, too few images, too much data."""

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccvae_deploy.errors import CCVAEError, DataError, RunError, TrainingError, WriteError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_train import checkpoint, grids, loop, run_folder, tensor_file, training
from ccvae_train.checkpoint import read_checkpoint
from ccvae_train.datasets.dataset import Dataset, Partition
from ccvae_train.supervision import unseen_values
from ccvae_train.training import train

SMALL = {"epochs": 2, "latents": 6, "batch_size": 32, "device": "cpu"}
NAMES = LabelSet(labels=(Label(name="often"), Label(name="Seldom", classes=("no", "yes"))))

Made = Callable[[np.ndarray], None]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Made:
    """Lets `train` see images of these labels."""
    monkeypatch.chdir(tmp_path)

    def give(labels: np.ndarray, images: np.ndarray | None = None) -> None:
        rng = np.random.default_rng(0)
        if images is None:
            images = rng.integers(0, 255, (len(labels), 32, 32, 3)).astype(np.uint8)
        valid = Partition(images[:40], labels[:40])
        data = Dataset("made", NAMES, ImageSpec(size=images.shape[1]), Partition(images, labels), valid, "a" * 64)
        monkeypatch.setattr(training, "open_dataset", lambda *_, **__: data)

    return give


def some_labels(count: int = 128) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2, (count, 2)).astype(np.int8)


def after_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Let something happen once a step is done, of which steps are counted from 0."""
    step = loop.one_step

    def stepped(fit, rows) -> None:
        step(fit, rows)
        if fit.step == number:
            act()

    monkeypatch.setattr(loop, "one_step", stepped)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run)[1]


def test_same_seed_same_bits_and_another_seed_another_model(made: Made) -> None:
    made(some_labels())
    runs = [train(SMALL | {"seed": seed, "flip": True, "supervision": 0.3}, out=Path(f"r{i}")).run
            for i, seed in enumerate((3, 3, 4))]  # fmt: skip
    first, again, other = map(weights, runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("value", [0, 1])
def test_a_constant_label_is_refused_before_a_folder_is_made(made: Made, value: int) -> None:
    labels = some_labels()
    labels[:, 1] = value
    labels[5, 1] = -1
    made(labels)
    with pytest.raises(DataError, match=f"label Seldom is {'yes' if value else 'no'} in every training image; leave"):
        train(SMALL)
    assert not Path("runs").exists()


def test_a_label_without_a_positive_among_the_shown_is_said_and_trained_around(made: Made, capsys) -> None:
    labels = some_labels()
    labels[:, 1] = 0
    labels[7, 1] = 1
    made(labels)
    assert train(SMALL | {"supervision": 0.1}).finished
    said = [line for line in capsys.readouterr().err.splitlines() if "no shown label is" in line]
    more = "raise --supervision to show some, or add images that have it"
    assert said == [f"no shown label is Seldom=yes, so nothing is learned of it; {more}"]
    prior = read_checkpoint(Path("runs/latest"))[0].label_prior
    assert 0 < prior[1] < 0.05
    train(SMALL | {"supervision": 1.0}, out=Path("all"))
    assert "no shown label" not in capsys.readouterr().err


def test_a_class_that_no_training_image_has_is_said() -> None:
    """Those of the validation images alone, which a table may hold."""
    names = LabelSet(labels=(Label(name="hair", kind="categorical", classes=("black", "blond", "red")),))
    labels = np.array([[0], [1], [0], [-1]], np.int8)
    assert unseen_values(labels, labels[:1], names) == ["hair=blond", "hair=red"]
    assert unseen_values(labels, labels, names) == ["hair=red"]


def test_a_label_that_no_shown_image_has_is_refused(made: Made) -> None:
    labels = some_labels()
    labels[:, 1] = -1
    labels[[3, 90], 1] = 0, 1
    made(labels)
    with pytest.raises(CCVAEError, match="label Seldom is shown for no training image; raise --supervision"):
        train(SMALL | {"supervision": 0.05})
    assert not Path("runs").exists()


def test_a_batch_larger_than_the_data_is_all_of_it(made: Made, capsys) -> None:
    made(some_labels(50))
    assert train(SMALL | {"batch_size": 500}).finished
    assert "--batch-size 500 is more than there are: every step takes all 50 images" in capsys.readouterr().err
    assert read_checkpoint(Path("runs/latest"))[0].step == 2


def test_a_full_disk_keeps_the_checkpoint_and_training_goes_on(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to write more than 50 kB into any file once the first epoch is saved."""
    made(some_labels())
    save, limits = loop._save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(fit, means) -> None:
        if fit.step == 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        save(fit, means)

    monkeypatch.setattr(loop, "_save", full)
    try:
        with pytest.raises(
            WriteError, match=r"cannot write .*checkpoint.*make room and go on with .*--resume"
        ) as caught:
            train(SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    run = Path("runs/latest")
    assert read_checkpoint(run)[0].step == 4
    assert not list(run.glob(".checkpoint*"))
    monkeypatch.setattr(loop, "_save", save)
    assert train({}, resume=True).finished
    assert read_checkpoint(run)[0].step == 8


def test_a_disk_that_is_full_for_the_figures_is_one_line_too(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made(some_labels())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "append_metrics", full)
    with pytest.raises(WriteError, match=r"cannot write in run: No space left on device; make room and start again"):
        train(SMALL, out=Path("run"))


def test_a_run_that_ends_between_figures_and_checkpoint_can_be_begun_again(made: Made, monkeypatch) -> None:
    made(some_labels())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "save", full)
        with pytest.raises(WriteError, match="make room and start again"):
            train(SMALL, out=Path("run"))
    assert [path.name for path in Path("run").iterdir()] == ["metrics.csv"]
    assert train(SMALL, out=Path("run")).finished
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 3


def test_what_a_strangers_run_links_to_is_not_written(made: Made, tmp_path: Path) -> None:
    made(some_labels())
    run = train(SMALL | {"epochs": 1}, out=Path("run")).run
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    for name in (".metrics.csv", ".run.json", f".checkpoint.safetensors.{os.getpid()}", "grids/.epoch-0001.png"):
        (run / name).symlink_to(mine)
    state, tensors = read_checkpoint(run)
    run_folder.append_metrics(run, {"epoch": 1, "loss": 2.0})
    run_folder.write_run_json(run, state)
    grids.save_grid(run / "grids" / "epoch-0001.png", Image.new("RGB", (4, 4)))
    model = checkpoint.restore(run, state, tensors)
    checkpoint.save_checkpoint(run, model, torch.optim.AdamW(model.parameters()), state)
    assert mine.read_text() == "mine"
    assert not any(path.is_symlink() for path in run.rglob("*"))


@pytest.mark.parametrize("name", ["grids", "tensorboard"])
def test_a_strangers_run_whose_folder_is_a_link_does_not_go_on(made: Made, tmp_path: Path, name: str) -> None:
    made(some_labels())
    run = train(SMALL | {"epochs": 1}, out=Path("run")).run
    shutil.rmtree(run / name, ignore_errors=True)
    (tmp_path / "mine").mkdir()
    (run / name).symlink_to(tmp_path / "mine", target_is_directory=True)
    with pytest.raises(RunError, match=f"{name} is a link to another place"):
        train({}, out=run, resume=True)
    assert not list((tmp_path / "mine").iterdir())


def test_a_table_of_others_is_no_run_that_has_begun(made: Made) -> None:
    made(some_labels())
    Path("run").mkdir()
    Path("run/metrics.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(RunError, match=r"run is not empty; move away what it holds, or give another --out"):
        train(SMALL, out=Path("run"))
    assert Path("run/metrics.csv").read_text() == "epoch,loss\n1,2\n"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_no_table_of_a_run_that_has_begun(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "metrics.csv")
    with pytest.raises(RunError, match="is not empty; move away what it holds"):
        run_folder.refuse_taken(tmp_path)


def test_a_folder_called_latest_is_refused_before_the_data_are_opened(made: Made, monkeypatch) -> None:
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(RunError, match=r"--out runs/latest: `latest` points at the last run"):
        train(SMALL, out=Path("runs/latest"))
    Path("runs/latest").mkdir(parents=True)
    for out in (None, Path("runs/other")):
        with pytest.raises(RunError, match="runs/latest is a folder, where `train` puts a link"):
            train(SMALL, out=out)


def test_runs_of_one_second_have_folders_of_their_own(made: Made) -> None:
    first, second = (run_folder._made("made-1") for _ in range(2))
    assert (first, second) == (Path("runs/made-1"), Path("runs/made-1-2"))


def test_a_run_that_is_not_the_last_is_named_where_it_is_gone_on_with(made: Made) -> None:
    made(some_labels())
    runs = [train(SMALL, out=Path("runs") / name).run for name in ("one run", "two")]
    assert [checkpoint.going_on(run) for run in runs] == [
        "go on with `ccvae-deploy train --resume --out 'runs/one run'`",
        "go on with `ccvae-deploy train --resume`",
    ]


def test_an_interrupt_for_good_says_how_to_go_on(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made(some_labels())
    after_step(monkeypatch, 6, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt, match=r"go on with `ccvae-deploy train --resume --out run`"):
        train(SMALL, out=Path("run"))
    assert read_checkpoint(Path("run"))[0].step == 4


def test_a_step_that_takes_more_memory_than_there_is_is_one_line(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made(some_labels())
    after_step(monkeypatch, 5, lambda: torch.empty(1 << 58))
    with pytest.raises(
        TrainingError, match=r"at step 5, with batches of 32 images on cpu; the checkpoint before it stays in run;"
    ):
        train(SMALL, out=Path("run"))
    assert read_checkpoint(Path("run"))[0].step == 4


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not say what is anonymous memory")
def test_training_holds_no_copy_of_the_images(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.3 GiB of images, a file with holes; memory that is not the file's grows by less than a twentieth of it."""
    count = 200_000
    path = tmp_path / "images.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 64, 64, 3)).flush()
    made(some_labels(count), np.load(path, mmap_mode="r"))
    step, held = loop.one_step, []

    def watched(fit, rows) -> None:
        held.append(anonymous())
        step(fit, rows)
        if fit.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "one_step", watched)
    before = anonymous()
    assert not train(SMALL).finished
    assert len(held) == 6
    assert max(held) - before < 0.05 * path.stat().st_size


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10
