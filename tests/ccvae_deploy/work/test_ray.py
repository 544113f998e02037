"""The Ray engine leaves the bytes of the local one: undisturbed, with killed actors, and with a killed driver."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy import pipeline
from ccvae_deploy.composer import Composer
from ccvae_deploy.errors import EngineError, UsageError, WriteError
from ccvae_deploy.records import ledger
from ccvae_deploy.work import ray_engine

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with the first words of their command lines."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
    found: dict[int, str] = {}
    level = [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found |= {child: names[child] for child in level}
    return found


def actors_below(pid: int) -> list[int]:
    return [child for child, name in descendants(pid).items() if "EditActor" in name]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two processors in this process, with a token of its own rather than one in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty pictures, one of a name that is not UTF-8, and a file that is no image."""
    folder = tmp_path / "many"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(40):
        name = f"{'deep/' * (i % 2)}{i:02d}.{('png', 'jpg', 'webp')[i % 3]}"
        Image.fromarray(rng.integers(0, 255, (40 + i, 50, 3), dtype=np.uint8)).save(folder / name)
    (folder / "00.png").rename(folder / os.fsdecode(b"na\xefve.png"))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_same_bytes(cluster, many, tmp_path, run, tree) -> None:
    local = run(tmp_path / "local", many)
    spread = run(tmp_path / "ray", many, engine="ray", workers=2, batch_size=2)
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")
    assert (local.written, local.failed, local.skipped) == (120, 1, 0)
    assert (spread.written, spread.failed, spread.skipped) == (120, 1, 0)
    again = run(tmp_path / "ray", many, engine="ray")
    assert (again.written, again.failed, again.skipped) == (0, 1, 40)
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")


def test_a_plan_a_shard_and_a_changed_source(cluster, many, tmp_path, run, tree) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text("file,smiling,young\n04.jpg,1,\n02.webp,1,\n02.webp,,0\ndeep/03.png,vary,\n")
    for engine in ("local", "ray"):
        run(tmp_path / engine, many, plan=plan, engine=engine)
        run(tmp_path / f"{engine}-shard", many, shard="1/3", engine=engine)
    Image.new("RGB", (40, 40), "red").save(many / "04.jpg")
    for engine in ("local", "ray"):
        assert run(tmp_path / engine, many, plan=plan, engine=engine).written == 3
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")
    assert tree(tmp_path / "ray-shard") == tree(tmp_path / "local-shard")


@pytest.mark.parametrize("victims", [1, 2])
def test_actors_killed_midway(cluster, many, tmp_path, run, tree, monkeypatch, victims) -> None:
    """At the first result the others are in the making; nothing may be lost or twice."""
    run(tmp_path / "local", many)
    record, killed = ledger.Ledger.record, []

    def deadly(self, *arguments):
        if not killed:
            for pid in actors_below(os.getpid())[:victims]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        record(self, *arguments)

    monkeypatch.setattr(ledger.Ledger, "record", deadly)
    summary = run(tmp_path / "ray", many, engine="ray", workers=2, batch_size=1)
    assert len(killed) == victims
    assert summary.written == 120
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")


def test_actors_end_when_the_driver_cannot_write(cluster, many, tmp_path, run, monkeypatch, tree) -> None:
    def refuse(*_):
        raise WriteError("full")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_write", refuse)
        with pytest.raises(WriteError, match="full"):
            run(tmp_path / "ray", many, engine="ray", batch_size=1)
    assert wait_until(lambda: not actors_below(os.getpid()))
    run(tmp_path / "ray", many, engine="ray")
    run(tmp_path / "local", many)
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")


def test_a_killed_driver_takes_its_cluster_with_it_and_either_engine_goes_on(
    many, tiny_bundle, tmp_path, run, tree
) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom ccvae_deploy import pipeline\n"
        "from ccvae_deploy.records import ledger\n"
        "record = ledger.Ledger.record\ncount = 0\n"
        "def waiting(self, *arguments):\n"
        "    global count\n    count += 1\n"
        "    record(self, *arguments)\n"
        "    if count == 5: print('five', flush=True); sys.stdin.read()\n"
        "ledger.Ledger.record = waiting\n"
        "pipeline.edit_folder([Path(sys.argv[1])], bundle=Path(sys.argv[2]), out=Path(sys.argv[3]), set=['smiling=1'],"
        " samples=3, provider='cpu', batch_size=1, engine='ray', workers=2)\n"
    )
    run(tmp_path / "local", many)
    environment = os.environ | {"HOME": str(tmp_path), "RAY_TMPDIR": "/tmp", "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        environment.pop(name, None)
    command = [sys.executable, "-c", script, many, tiny_bundle, tmp_path / "out"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdout.readline() == b"five\n"
        below = descendants(driver.pid)
        assert any("EditActor" in name for name in below.values())
        driver.kill()
    # Ray's own agents take a minute to see that they are alone
    below = {pid: name for pid, name in below.items() if not name.startswith(("ray::DashboardA", "ray::RuntimeEnvA"))}
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below)), below
    assert (tmp_path / "out/.journal.jsonl").exists()
    assert run(tmp_path / "out", many).skipped == 5
    assert tree(tmp_path / "out") == tree(tmp_path / "local")


def test_a_local_run_that_was_cut_off_goes_on_with_ray(cluster, many, tmp_path, run, tree, interrupted) -> None:
    with interrupted(pipeline, "_write", 7):
        run(tmp_path / "out", many)
    assert run(tmp_path / "out", many, engine="ray").skipped == 6
    run(tmp_path / "local", many)
    assert tree(tmp_path / "out") == tree(tmp_path / "local")


def test_an_actor_with_another_bundle_is_refused_in_one_line(cluster, many, tmp_path, run, monkeypatch) -> None:
    def settle(*arguments, **options):
        job = settled(*arguments, **options)
        return replace(job, composer=Composer(replace(job.composer.bundle, digest="another")))

    settled = pipeline.settle
    monkeypatch.setattr(pipeline, "settle", settle)
    with pytest.raises(EngineError, match=r"^Ray gave up: .*has another bundle under this path") as caught:
        run(tmp_path / "out", many, engine="ray")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_refusals(cluster, many, tmp_path, run) -> None:
    with pytest.raises(UsageError, match="--workers 200: the Ray cluster has room for 2 actors"):
        run(tmp_path / "out", many, engine="ray", workers=200)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="--engine 'rya': did you mean ray"):
        run(tmp_path / "out", many, engine="rya")
    with pytest.raises(UsageError, match="--latents with --engine ray"):
        run(tmp_path / "out", many, engine="ray", latents=tmp_path / "latents.safetensors")


def test_a_cluster_that_has_ended_without_a_word_is_not_waited_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_engine._address() == "local"
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "ray/ray_current_cluster").write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert ray_engine._address() == "auto"
    assert ray_engine._address() == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_engine._address() == "auto"


def test_actors_share_out_what_there_is() -> None:
    of = ray_engine.Crew.of
    assert of({"CPU": 64.0, "GPU": 8.0}, "cuda", None) == ray_engine.Crew(8, 8, 1)
    assert of({"CPU": 64.0, "GPU": 8.0}, "cpu", None) == ray_engine.Crew(64, 1, 0)
    assert of({"CPU": 64.0}, "cpu", 3) == ray_engine.Crew(3, 1, 0)
    with pytest.raises(UsageError, match="the cluster has no GPU"):
        of({"CPU": 64.0}, "cuda", None)


def wait_until(condition, patience: float = 30.0) -> bool:
    """Whether it comes true within some seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False
