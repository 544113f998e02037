"""Run the tasks of a job in processes of this machine, one per processor unless others are asked. Writes nothing; its
workers read sources and write temporaries.

Python lets one thread of a process run at a time, and what decodes, composites and encodes pictures asks for its turn
all the time: two processes do more than two threads, and many processors are used by processes alone. A worker does
what the run itself does with a few images, by the same functions, so the bytes are the same; the run moves outputs to
their places and notes them.

Workers hold no lock on results and write none: an output is a temporary until the run moves it, unless it goes to a far
store. They end with the run, however it ends.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from multiprocessing import Pipe
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING

from ..errors import CCVAEError, EngineError, one_line
from ..storage.remote import Remote
from ..storage.store import Store
from .actor import Settled, chunks

if TYPE_CHECKING:
    from .job import Job

FEW = 2_000
"""Outputs that are made here sooner than processes have started."""

CODE = (
    # an interrupt is for the run, which ends its workers
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ccvae_deploy.work.worker import main; main(*map(int, sys.argv[2:]))"
)


def worthwhile(job: "Job", workers: int) -> bool:
    """Whether processes do a job sooner than this one alone: many outputs, graphs that run on the processor, and files
    that are near; requests for far ones wait better side by side in threads.
    """
    bundle = job.composer.bundle
    return (
        workers > 1
        and job.unrecorded >= FEW
        and job.latents is None
        and bundle.provider == "CPUExecutionProvider"
        and not any(isinstance(task.source.path, Remote) for task in job.tasks)
        and os.name == "posix"
        and bool(sys.executable)
        and not getattr(sys, "frozen", False)
    )


def results(job: "Job", workers: int) -> Generator[Settled, None, None]:
    """Everything that becomes of a job's tasks, in the order in which it is done.

    Raises:
        EngineError: a worker cannot be started, has ended by itself, or failed.
        WriteError: the disk is full for a worker, or refuses.
    """
    todo = chunks(job)
    first = list(islice(todo, workers))
    temporaries = job.store.temporaries() if isinstance(job.store, Store) else None
    with _hired(len(first)) as crew, DefaultSelector() as ready:
        for worker, begin in zip(crew, first, strict=True):
            ready.register(worker, EVENT_READ, worker)
            worker.send((partial(job.open_composer, provider="cpu"), job.composer.bundle.digest, temporaries))
            worker.send(begin)
        while ready.get_map():
            for key, _ in ready.select():
                worker = key.data
                outcome = worker.receive()
                if outcome is not None:
                    yield outcome
                    # the files in it, before the next ones come
                    del outcome
                elif (chunk := next(todo, None)) is not None:
                    worker.send(chunk)
                else:
                    ready.unregister(worker)


class _Worker:
    """A process and the socket to it.

    Args:
        shared: the numbers of the files that all workers of a run are given, see `worker.main`.
    """

    def __init__(self, *shared: int) -> None:
        self._socket, theirs = Pipe()
        # what is imported is what this process would import, whatever lies in the folder it starts in
        path = [entry or str(Path.cwd()) for entry in sys.path if isinstance(entry, str)]
        files = (theirs.fileno(), *shared)
        command = [sys.executable, "-P", "-c", CODE, json.dumps(path), *map(str, files)]
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=files,
                # else every worker has threads for all cores
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )

    def fileno(self) -> int:
        """The file descriptor that a selector waits for."""
        return self._socket.fileno()

    def send(self, message: object) -> None:
        """Give it what `worker.main` takes."""
        try:
            self._socket.send(message)
        except OSError:
            # what it had to say comes first
            self.receive()

    def receive(self) -> Settled | None:
        """An outcome; None behind those of each chunk."""
        try:
            message: Settled | CCVAEError | None = self._socket.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(message, CCVAEError):
            raise message
        return message

    def end(self) -> None:
        """Whatever it does; `wait` for it then."""
        self._process.kill()
        self._socket.close()

    def wait(self) -> None:
        """Until it has ended."""
        self._process.wait()

    def _ended(self) -> EngineError:
        code = self._process.wait()
        how = f"ended with {code}" if code >= 0 else f"was killed by signal {-code}"
        if code == -signal.SIGKILL:
            how += ", perhaps for want of memory"
        return EngineError(f"a worker process {how}; start the command again, with --workers 1 if it is so again")


@contextmanager
def _hired(count: int) -> Iterator[list[_Worker]]:
    """Workers for as long as the block lasts.

    Raises:
        EngineError: they cannot be started.
    """
    crew: list[_Worker] = []
    with ExitStack() as stack:
        try:
            turn = stack.enter_context(tempfile.TemporaryFile())
            alive, ours = os.pipe()
            stack.callback(os.close, alive)
            stack.callback(os.close, ours)
            stack.callback(_dismiss, crew)
            for _ in range(count):
                crew.append(_Worker(turn.fileno(), alive))
        except OSError as error:
            raise EngineError(
                f"worker processes cannot be started: {one_line(error)}; start the command again with --workers 1"
            ) from error
        yield crew


def _dismiss(crew: Sequence[_Worker]) -> None:
    for worker in crew:
        worker.end()
    for worker in crew:
        worker.wait()
