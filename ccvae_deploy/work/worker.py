"""A process that edits for a run of this machine; see `processes`, which starts it. Reads sources, writes nothing."""

import signal
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection
from typing import Any

from ..errors import CCVAEError, EngineError, one_line
from ..pictures.canvas import take_turns
from .actor import Actor


class _Here(Executor):
    """Does at once, in this thread, what it is given: the processes are the parallelism."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except CCVAEError as error:
            future.set_exception(error)
        return future


def main(connection: int, turn: int) -> None:
    """Take chunks and give outcomes, None behind those of each chunk, or the error that ends it, until there is nobody.

    Args:
        connection: an open socket to the run: how to open the composer and the digest come first, then chunks.
        turn: an open file, see `take_turns`.
    """
    # an interrupt is for the run, which then lets go of its end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    take_turns(turn)
    with Connection(connection) as run:
        try:
            try:
                open_composer, digest = run.recv()
                actor = Actor(open_composer, digest, _Here())
                while True:
                    for outcome in actor.edit(run.recv()):
                        run.send(outcome)
                    run.send(None)
            except CCVAEError as error:
                run.send(error)
            except (EOFError, ConnectionError):
                return
            except Exception as error:
                failed = EngineError(f"a worker process failed: {type(error).__name__}: {one_line(error)}")
                failed.add_note("".join(traceback.format_exception(error)))
                run.send(failed)
        except ConnectionError:
            return
