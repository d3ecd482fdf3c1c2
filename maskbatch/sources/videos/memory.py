"""Giving back what decoders held."""

from __future__ import annotations

import ctypes
import gc
import os

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None  # glibc alone has it


def release_decoders() -> None:
    """Free the decoders that nobody uses any more, and return their memory to the system.

    PyAV's containers, streams and codecs refer to each other: without this a decoder's frames (27 MB at 720p) stay until Python collects
    by itself, seldom. And glibc would keep one decoder's frames beside the next one's (200 MB at 1080p).
    """
    gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)
