"""Worker processes that are started before it is known what they will do.

A worker needs a third of a second to start Python and to import the decoders. The command line starts its workers first of all; they
are ready when the inputs are found. Nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any

from maskbatch.errors import WorkerError

BOARD_ENTRIES = 4096
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class WarmProcess:
    """A process that waits for a worker's specification.

    Attributes:
        process: alive, or dead already.
        connection: our end of its pipe.
        board: 32-bit numbers in shared memory: signs of life, then the state of each piece of its unit (`processes`).
    """

    process: SpawnProcess
    connection: Connection
    board: Any


_pool: list[WarmProcess] = []


def start_warm_pool(count: int, preload: str) -> None:
    """Start processes for later `take_process` calls; they import the module `preload` meanwhile."""
    _pool.extend(_spawn(BOARD_ENTRIES, preload) for _ in range(count))


def take_process(board_entries: int) -> WarmProcess:
    """A process for a worker: one of the pool if there is one, else a new one."""
    while _pool:
        warm = _pool.pop()
        if len(warm.board) >= board_entries:
            return warm
        warm.process.kill()
    return _spawn(max(board_entries, BOARD_ENTRIES), "")


def drop_warm_pool() -> None:
    """End the processes that nobody needed."""
    while _pool:
        warm = _pool.pop()
        warm.process.kill()
        warm.connection.close()


def _spawn(board_entries: int, preload: str) -> WarmProcess:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    try:
        board = context.RawArray(ctypes.c_uint32, board_entries)
    except OSError as error:
        raise WorkerError(
            f"worker processes need shared memory, and there is none ({error.strerror}: {error.filename}); --executor inline does without"
        ) from error
    process = context.Process(target=_main, args=(theirs, board, preload), name="maskbatch-worker", daemon=True)
    # Ctrl-C reaches the whole group, but the parent decides: a worker inherits the blocked signal from its first instruction on.
    resource_tracker.ensure_running()  # the first start would start it, and that unblocks the signal (CPython's ensure_running)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _without_main():
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return WarmProcess(process, ours, board)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module from `multiprocessing`, which would run it again in the new process.

    That costs time, and a script that scans without ``if __name__ == "__main__"`` would start workers without end.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _main(connection: Connection, board: Any, preload: str) -> None:
    """Runs in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    _silence_libraries()
    if preload:
        with contextlib.suppress(Exception):  # reported by whoever needs it
            importlib.import_module(preload)
    from maskbatch.jobs.executors.processes import serve

    serve(connection, board)


def _silence_libraries() -> None:
    """libtiff, FFmpeg and the like write their remarks straight to the terminal; ours travel through the pipe.

    ``MASKBATCH_WORKER_STDERR=1`` lets them through, for debugging.
    """
    if not os.environ.get("MASKBATCH_WORKER_STDERR"):
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends: a worker that hangs in a decoder would never notice by itself."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():  # it has ended already
        os._exit(1)
