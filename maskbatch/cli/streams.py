"""Standard output and error as users may have them: closed, full, a pipe that nobody reads, an encoding that lacks our characters."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Make both streams usable for the length of the block, and find out at its end whether standard output took everything.

    Raises:
        BrokenPipeError: the reader of standard output has gone.
        OSError: standard output cannot be written, for example because its disk is full.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us (``2>&-``)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  for as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            # What is left in the buffer would fail once more when Python ends, with a message of its own.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise
