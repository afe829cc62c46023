"""Work through the images of a domain in several processes that leave no trace."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, cast

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.domain import Shot

Render = Callable[[Shot], None]


def available_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Failure(NamedTuple):
    """What a process reports instead of an image."""

    error: Exception
    traceback: str


@contextmanager
def rendering(
    render: Render, shots: Sequence[Shot], processes: int
) -> Iterator[Iterator[Shot]]:
    """Render in processes that end with the block; gives the shots as they are done.

    The processes start here and not at the first shot, when a progress bar may run its
    thread. Each has its share from the start: there is no queue, so no thread that
    feeds it, and nobody waits for a lock that a killed process held.
    """
    processes = min(processes, len(shots))
    if processes <= 1:
        yield map(partial(_rendered, render), shots)
        return
    # Another process imports torch and mmpretrain anew, 7 s of each processor, with
    # every start method but fork. Fork is safe here: no thread of ours runs, and
    # rendering calls neither torch nor anything else that keeps a pool of threads.
    # Elsewhere than on Linux the system's own libraries do not allow it.
    context: Any = multiprocessing.get_context(
        'fork' if sys.platform == 'linux' else 'spawn'
    )
    workers: dict[Connection, Any] = {}
    try:
        for number in range(processes):
            reader, writer = context.Pipe(duplex=False)
            share = shots[number::processes]
            worker = context.Process(
                target=_work, args=(render, share, writer), daemon=True
            )
            worker.start()
            writer.close()  # so that the end of the process is the end of the pipe
            workers[reader] = worker
        yield _collect(workers)
    finally:
        for worker in workers.values():
            worker.terminate()
        for reader, worker in workers.items():
            worker.join()
            reader.close()


def _collect(workers: Mapping[Connection, Any]) -> Iterator[Shot]:
    waiting = dict(workers)
    while waiting:
        # A Ctrl-C that arrives just before the wait does not interrupt it: look again.
        for ready in multiprocessing.connection.wait(list(waiting), timeout=1):
            reader = cast(Connection, ready)
            try:
                message = reader.recv()
            except EOFError:
                worker = waiting.pop(reader)
                worker.join()
                if worker.exitcode:
                    raise InputError(
                        f'a drawing process was ended from outside (exit code '
                        f'{worker.exitcode}), most often for lack of memory. With '
                        f'fewer processes, and without --redraw, the same command '
                        f'continues the drawing'
                    ) from None
                continue
            if isinstance(message, _Failure):
                raise message.error from RuntimeError(message.traceback)
            yield message


def _work(render: Render, shots: Sequence[Shot], writer: Connection) -> None:
    # Ctrl-C reaches every process of the terminal; ours are ended by their parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    for shot in shots:
        if parent is not None and os.getppid() != parent.pid:
            return  # the parent was killed, and its next run renders the rest
        try:
            message: Shot | _Failure = _rendered(render, shot)
        except Exception as error:
            message = _Failure(_portable(error), traceback.format_exc())
        try:
            writer.send(message)
        except BrokenPipeError:
            return
        if isinstance(message, _Failure):
            return


def _portable(error: Exception) -> Exception:
    """Return the error, or one that says the same, if pickle cannot carry it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the error's own class raises, on either way
        return RuntimeError(f'{type(error).__name__}: {error}')
    return error


def _rendered(render: Render, shot: Shot) -> Shot:
    render(shot)
    return shot
