"""Run the tasks of a job on a Ray cluster, or on one that is started here. Writes nothing; its actors read sources.

Ray Data maps chunks of tasks over actors, each with a bundle opened once. An actor does what the local engine does with
a batch, by the same functions, and gives back files in memory with their receipts; the driver takes them one by one as
they come, writes and notes them. Ray holds back the actors when the driver is slower, so memory stays bounded. A chunk
whose actor has died is done again elsewhere: an edit is a function of its task, so its bytes are the same.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ..composer import Composer
from ..errors import EngineError, UsageError, nearest, one_line
from ..storage.plain import read_plain
from .actor import Actor, Chunk, Settled, chunks

if TYPE_CHECKING:
    from .job import Job

Engine = Literal["local", "ray"]

CHUNKS = 4
"""Chunks of one block, the unit that Ray does again when an actor dies."""

BLOCKS = 10_000


@dataclass(frozen=True)
class Crew:
    """How many actors there are, and the processors and GPUs of each."""

    actors: int
    processors: int
    gpus: int

    @classmethod
    def of(cls, resources: Mapping[str, float], provider: str, actors: int | None) -> "Crew":
        """One actor per GPU that shares the processors, or one per processor.

        Raises:
            UsageError: the cluster has not what is asked for.
        """
        processors = int(resources.get("CPU", 0))
        gpus = 0 if provider == "cpu" else int(resources.get("GPU", 0))
        if provider != "cpu" and not gpus:
            raise UsageError(f"--engine ray with {provider}: the cluster has no GPU; use --provider cpu")
        most = gpus or processors
        if not most or (actors or 0) > most:
            raise UsageError(f"--workers {actors or 1}: the Ray cluster has room for {most} actors; ask for no more")
        count = actors or most
        return cls(count, max(1, processors // count) if gpus else 1, 1 if gpus else 0)


class EditActor:
    """One session on one processor or GPU of the cluster.

    Args:
        open_composer: gives the composer; its bundle must be the driver's, by digest.
        threads: how many pictures are composited and encoded at once.
    """

    def __init__(self, open_composer: Callable[[], Composer], digest: str, threads: int) -> None:
        self.actor = Actor(open_composer, digest, ThreadPoolExecutor(threads))

    def __call__(self, rows: Mapping[str, Sequence[Chunk]]) -> Iterator[dict[str, list[Settled]]]:
        """Every outcome as a row of its own, so that none waits for the others."""
        for chunk in rows["chunk"]:
            for outcome in self.actor.edit(chunk):
                yield {"outcome": [outcome]}


def refuse_engine(engine: str, latents: object = None) -> None:
    """Refuse an engine that cannot work.

    Raises:
        UsageError: it is unknown or not installed, or latents are given that its actors cannot read.
    """
    if engine not in get_args(Engine):
        raise UsageError(f"--engine {engine!r}: {nearest(engine, get_args(Engine))}")
    if engine == "ray" and latents:
        raise UsageError("--latents with --engine ray: actors encode what they read; leave one of them out")
    if engine == "ray" and find_spec("ray") is None:
        raise UsageError("`--engine ray` needs Ray Data, which is not installed: pip install 'ccvae-deploy[ray]'")


@contextlib.contextmanager
def hired(job: "Job", actors: int | None = None) -> Iterator[Crew | None]:
    """A cluster for as long as the block lasts, and who is to work there; None where there is nothing to do.

    Args:
        actors: how many; None takes one per GPU where the job runs on one, else one per processor of the cluster.

    Raises:
        UsageError: Ray cannot be reached, or the cluster has not what is asked for.
    """
    if not job.tasks:
        yield None
        return
    import ray

    with _cluster():
        yield Crew.of(ray.cluster_resources(), _provider(job), actors)


def results(job: "Job", crew: Crew) -> Generator[Settled, None, None]:
    """Everything that becomes of a job's tasks, in the order in which it is done.

    Raises:
        EngineError: an actor cannot open the bundle, or Ray gave up.
    """
    import ray
    import ray.data

    items = [{"chunk": chunk} for chunk in chunks(job)]
    blocks = min(BLOCKS, max(crew.actors, -(-len(items) // CHUNKS)))
    edited = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
        EditActor,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=crew.actors),
        num_cpus=crew.processors,
        num_gpus=crew.gpus,
        fn_constructor_args=(
            # the driver's provider, since another may round otherwise
            partial(job.open_composer, provider=_provider(job)),
            job.composer.bundle.digest,
            crew.processors,
        ),
    )
    try:
        for row in edited.iter_rows():
            yield row["outcome"]
    except ray.exceptions.RayError as error:
        raise EngineError(f"Ray gave up: {_reason(error)}; start the command again") from error


def _provider(job: "Job") -> str:
    """What the driver's graphs run on, by the name of the option."""
    name = job.composer.bundle.provider.lower()
    return next((option for option in ("cuda", "tensorrt") if option in name), "cpu")


def _reason(error: Exception) -> str:
    """The last line of what Ray says: the error itself, below the traceback of the actor."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[-1] if lines else type(error).__name__)


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    """Ray as the user has started it, else the running cluster that Ray finds, else one of this machine's own.

    One of its own has a token that Ray makes, so that no other user of the machine can reach it, and ends with this
    process.
    """
    import ray
    import ray.data

    # Ray reports its use over the network unless told otherwise
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=_address(), logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UsageError(f"Ray cannot be started or reached: {one_line(error)}; see `ray status`") from error
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    try:
        with ray.data.DataContext.current(context):
            yield
    finally:
        if ours:
            ray.shutdown()


def _address() -> str:
    """`auto` where a cluster is named or answers, else `local`.

    Ray remembers the last cluster of this machine in a file, and would try for minutes to reach one that has ended
    without a word.
    """
    if os.environ.get("RAY_ADDRESS"):
        return "auto"
    remembered = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    try:
        # anyone can put one there, and a cluster runs what its head says
        if os.name == "posix" and remembered.lstat().st_uid != os.getuid():
            return "local"
        host, _, port = read_plain(remembered, 1024).decode().strip().rpartition(":")
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return "local"
    return "auto"
