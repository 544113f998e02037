"""Run the tasks of a job in processes of this machine, one per processor. Writes nothing; its workers read sources.

Python lets one thread of a process run at a time, and what decodes, composites and encodes pictures asks for its turn
all the time: two processes do more than two threads, and many processors are used by processes alone. A worker does
what the run itself does with a few images, by the same functions, so the bytes are the same; the run writes and notes.

Workers hold nothing and write nothing. They end when the run's end of their socket closes, however the run ends.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING

from ..errors import CCVAEError, EngineError
from ..storage.remote import Remote
from .actor import Outcome, chunks

if TYPE_CHECKING:
    from .job import Job

FEW = 2_000
"""Outputs that are made here sooner than processes have started."""

CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ccvae_deploy.work.worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


def worthwhile(job: "Job", workers: int) -> bool:
    """Whether processes do a job sooner than this one alone: many outputs, graphs that run on the processor, and files
    that are near; requests for far ones wait better side by side in threads.
    """
    bundle = job.composer.bundle
    return (
        workers > 1
        and job.outputs >= FEW
        and job.latents is None
        and bundle.provider == "CPUExecutionProvider"
        and not any(isinstance(task.source.path, Remote) for task in job.tasks)
        and os.name == "posix"
        and not getattr(sys, "frozen", False)
    )


def results(job: "Job", workers: int) -> Generator[Outcome, None, None]:
    """Everything that becomes of a job's tasks, in the order in which it is done.

    Raises:
        EngineError: a worker has ended by itself, or failed.
    """
    todo = chunks(job)
    with _hired(workers) as crew, DefaultSelector() as ready:
        for worker in crew:
            ready.register(worker, EVENT_READ, worker)
            worker.send((partial(job.open_composer, provider="cpu"), job.composer.bundle.digest))
            worker.send(next(todo, ()))
        while ready.get_map():
            for key, _ in ready.select():
                worker = key.data
                outcome = worker.receive()
                if outcome is not None:
                    yield outcome
                elif (chunk := next(todo, None)) is not None:
                    worker.send(chunk)
                else:
                    ready.unregister(worker)


class _Worker:
    """A process and the socket to it.

    Args:
        turn: the number of a file that all workers of a run share.
    """

    def __init__(self, turn: int) -> None:
        self._socket, theirs = Pipe()
        # isolated: neither the folder it starts in nor the environment says what is imported, only this process does
        path = [str(Path(entry).absolute()) for entry in sys.path]
        command = [sys.executable, "-I", "-c", CODE, json.dumps(path), str(theirs.fileno()), str(turn)]
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(theirs.fileno(), turn)
            )

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def send(self, message: object) -> None:
        """Give it what `worker.main` takes."""
        try:
            self._socket.send(message)
        except ConnectionError as error:
            raise self._ended() from error

    def receive(self) -> Outcome | None:
        """An outcome; None behind those of each chunk."""
        try:
            message: Outcome | CCVAEError | None = self._socket.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        if isinstance(message, CCVAEError):
            raise message
        return message

    def dismiss(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _ended(self) -> EngineError:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return EngineError(f"a worker process {how}, perhaps for want of memory; start the command with --workers 1")


@contextmanager
def _hired(count: int) -> Iterator[list[_Worker]]:
    """Workers for as long as the block lasts."""
    crew: list[_Worker] = []
    with tempfile.TemporaryFile() as turn:
        try:
            crew.extend(_Worker(turn.fileno()) for _ in range(count))
            yield crew
        finally:
            for worker in crew:
                worker.dismiss()
