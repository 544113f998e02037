"""A batch by itself: tasks in, files and receipts out, the same wherever it is done."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from ccvae_deploy.errors import ImageError
from ccvae_deploy.receipts import Failure
from ccvae_deploy.work import batch
from ccvae_deploy.work.batch import Finished, Read, Task
from ccvae_deploy.work.job import settle


@pytest.fixture
def tasks(pictures, tiny_bundle, tmp_path) -> tuple[Task, ...]:
    """Three edits of one picture, one each of the others, as another process would get them."""
    (pictures / "broken.png").write_bytes(b"no image")
    plan = tmp_path / "plan.csv"
    names = [path.relative_to(pictures).as_posix() for path in sorted(pictures.rglob("*.*"))]
    plan.write_text("file,smiling,young\na.png,0,\na.png,1,1\n" + "".join(f"{name},1,\n" for name in names))
    job = settle([pictures], bundle=tiny_bundle, plan=plan, samples=2, out=tmp_path / "none", provider="cpu")
    return pickle.loads(pickle.dumps(job.tasks))


def read(task: Task, composer) -> Read:
    return batch.due(task, [""] * len(task.wanted), composer)


def done(composer, reads: list[Read]) -> list[Finished | Failure]:
    with ThreadPoolExecutor(2) as pool:
        return list(batch.finish(composer, batch.start(composer, reads, pool), pool))


def test_what_comes_out_is_what_the_command_writes(tasks, composer, tmp_path, run, tree) -> None:
    with pytest.raises(ImageError, match="not an image"):
        read(next(task for task in tasks if task.source.relative == "broken.png"), composer)
    reads = [read(task, composer) for task in tasks if task.source.relative != "broken.png"]
    finished = pickle.loads(pickle.dumps(done(composer, reads)))
    assert sum(len(one.outputs) for one in finished) == 22
    run(tmp_path / "out", plan=tmp_path / "plan.csv", samples=2, sheet=False)
    found = tree(tmp_path / "out")
    lines = found.pop("receipts.jsonl").decode().splitlines(keepends=True)
    for name in ("settings.json", "failures.jsonl"):
        found.pop(name)
    assert {output.name: output.data for one in finished for output in one.outputs} == found
    assert sorted(output.receipt.line.decode() for one in finished for output in one.outputs) == sorted(lines)


def test_edits_of_one_source_share_its_encode(tasks, composer) -> None:
    (first,) = [task for task in tasks if task.source.relative == "a.png"]
    assert [one.name for one in first.wanted] == ["smiling=0", "smiling=1", "smiling=1,young=1"]
    with ThreadPoolExecutor(1) as pool:
        begun = batch.start(composer, [read(first, composer)], pool)
        finished = list(batch.finish(composer, begun, pool))
    assert len(begun.encoded.z) == 1
    assert [one.wanted.name for one in finished] == [one.name for one in first.wanted]


def test_a_picture_that_cannot_be_written_is_a_failure_beside_the_others(tasks, composer, monkeypatch) -> None:
    write_out = batch.write_out

    def refusing(picture, *arguments):
        if picture.size[0] == 40:
            raise ImageError("cannot be written")
        return write_out(picture, *arguments)

    monkeypatch.setattr(batch, "write_out", refusing)
    reads = [read(task, composer) for task in tasks if task.source.relative in ("a.png", "b.jpg")]
    results = done(composer, reads)
    assert [one.reason for one in results if isinstance(one, Failure)] == ["cannot be written"] * 3
    assert [one.source for one in results if isinstance(one, Finished)] == ["b.jpg"]
