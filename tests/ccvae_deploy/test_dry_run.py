"""Dry runs: the forecast is what the run then does, and nothing is written."""

import pytest
from PIL import Image

from ccvae_deploy.dry_run import dry_run
from ccvae_deploy.errors import UsageError


@pytest.fixture
def forecast(pictures, tiny_bundle):
    """A dry run of three samples of `smiling=1`."""
    asked = {"set": ["smiling=1"], "samples": 3, "provider": "cpu", "bundle": tiny_bundle}
    return lambda out, **options: dry_run([pictures], out=out, **{**asked, **options})


def test_a_new_folder(forecast, pictures, tmp_path) -> None:
    found = forecast(tmp_path / "out")
    assert (found.sources, found.ignored, found.units, found.outputs) == (9, 0, {"new": 9}, 27)
    assert found.examples == (
        "a__smiling=1__00.png",
        "a__smiling=1__01.png",
        "a__smiling=1__02.png",
        "b__smiling=1__00.jpg",
        "b__smiling=1__01.jpg",
    )
    assert found.bytes == 3 * sum(path.stat().st_size for path in pictures.rglob("*.*"))
    assert not (tmp_path / "out").exists()


def test_every_state_and_then_the_run(forecast, pictures, tmp_path, expected, run, tree) -> None:
    out = tmp_path / "expected"
    Image.new("RGB", (40, 40), "red").save(pictures / "a.png")
    Image.new("RGB", (40, 40), "red").save(pictures / "z.png")
    (out / "b__smiling=1__00.jpg").unlink()
    (out / "c__smiling=1__02.webp").write_bytes(b"")
    (pictures / "g.png").unlink()
    (pictures / "g.png").symlink_to("nowhere")
    before = tree(out)
    found = forecast(out)
    assert found.units == {"changed": 1, "incomplete": 2, "unreadable": 1, "done": 5, "new": 1}
    assert found.outputs == 12
    assert tree(out) == before
    summary = run(out)
    assert (summary.written, summary.skipped, summary.failed) == (12, 5, 1)
    assert forecast(out).units == {"unreadable": 1, "done": 9}


def test_what_is_gone_or_empty_is_no_image_to_be_made(forecast, pictures, tmp_path, run) -> None:
    (pictures / "empty.jpg").touch()
    (pictures / "gone.png").symlink_to("nowhere")
    found = forecast(tmp_path / "out")
    assert found.units == {"new": 9, "unreadable": 2}
    assert found.outputs == 27
    replaced = pictures / "a.png"
    done = run(tmp_path / "other", pictures / "a.png")
    replaced.write_bytes(b"")
    assert (done.written, forecast(tmp_path / "other", overwrite=True, seed=5).units["unreadable"]) == (3, 3)


def test_more_samples_and_other_settings(forecast, tmp_path, expected, tree) -> None:
    out = tmp_path / "expected"
    assert forecast(out, samples=5).units == {"incomplete": 9}
    assert forecast(out, overwrite=True, seed=1).units == {"replaced": 9}
    with pytest.raises(UsageError, match="made with other settings") as caught:
        forecast(out, seed=1)
    assert caught.value.exit_code == 2
    assert tree(out) == expected


def test_plans_and_shards(forecast, tmp_path) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text("file,smiling,young\na.png,1,\na.png,,0\nb.jpg,0,\n")
    asked = {"set": (), "plan": plan}
    assert forecast(tmp_path / "out", **asked).units == {"new": 3}
    parts = [forecast(tmp_path / "out", shard=f"{index}/2", **asked) for index in range(2)]
    assert sum(part.outputs for part in parts) == 9
