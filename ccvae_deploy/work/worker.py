"""A process that edits for a run of this machine; see `processes`, which starts it. Reads sources, writes temporary
files only: nameless ones, and outputs in the run's folder of temporaries.
"""

import contextlib
import os
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import CCVAEError, EngineError, one_line
from ..pictures.canvas import take_turns
from ..storage.store import set_down
from .actor import Actor, Settled
from .batch import Finished


class _Here(Executor):
    """Does at once, in this thread, what it is given: the processes are the parallelism."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except CCVAEError as error:
            future.set_exception(error)
        return future


def main(connection: int, turn: int, alive: int) -> None:
    """Take chunks and give outcomes, None behind those of each chunk, or the error that ends it.

    Args:
        connection: an open socket to the run: how to open the composer, the digest and the folder of temporaries (None:
            outputs are sent) come first, then chunks.
        turn: an open file, see `take_turns`.
        alive: the open end of a pipe whose other end the run alone holds.
    """
    threading.Thread(target=_end_with, args=[alive], daemon=True).start()
    # as in the command: Pillow's, of damaged metadata
    warnings.filterwarnings("ignore", module=r"PIL\.")
    take_turns(turn)
    run = Connection(connection)
    try:
        open_composer, digest, temporaries = run.recv()
        actor = Actor(open_composer, digest, _Here())
        while True:
            for outcome in actor.edit(run.recv()):
                run.send(_handed_over(outcome, temporaries))
                # the files in it, while the next ones are made
                del outcome
            run.send(None)
    except Exception as error:
        with contextlib.suppress(OSError):
            run.send(error if isinstance(error, CCVAEError) else _failed(error))


def _handed_over(outcome: Settled, temporaries: Path | None) -> Settled:
    """An outcome with its outputs set down, so that they need not pass through the socket."""
    result, settled = outcome
    if temporaries is None or not isinstance(result, Finished):
        return outcome
    outputs = [
        replace(output, data=set_down(temporaries, output.data)) if isinstance(output.data, bytes) else output
        for output in result.outputs
    ]
    return replace(result, outputs=tuple(outputs)), settled


def _failed(error: Exception) -> EngineError:
    """One line for people, with the traceback behind it for `--debug`."""
    told = EngineError(f"a worker process failed: {type(error).__name__}: {one_line(error)}")
    told.add_note("".join(traceback.format_exception(error)))
    return told


def _end_with(alive: int) -> None:
    """End this process, whatever it does, with the run: nothing of it is left to do."""
    os.read(alive, 1)
    os._exit(0)
