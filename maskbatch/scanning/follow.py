"""A scan that goes on as its folders are filled: look, wait until a file is finished, scan what is new, merge, look again.

Polling, not notifications: what another machine writes to a mounted folder raises none. A file counts as finished when its size and
time of change have stood still for a while *as seen from here* (clocks of other machines may be wrong) and its container says that it is
whole. A recorder that writes under another name and renames the file is covered by the same rule.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from maskbatch.config import Limits
from maskbatch.errors import InputError, UsageError
from maskbatch.scanning.run import scan
from maskbatch.scanning.summary import ScanSummary
from maskbatch.sources.discovery.discover import discover
from maskbatch.sources.videos.containers import OpenVideo, cut_off
from maskbatch.storage.opener import is_url
from maskbatch.types import Source

GIVE_UP_S = 600.0
"""A video that stands still for so long and is not whole will not be: it is scanned, and its row says what is missing."""


class Rest:
    """Which files have come to rest, over several looks.

    Args:
        settle_s: seconds that size and time of change must stand still.
        give_up_s: seconds after which a video is taken although its container is not complete.
        clock: seconds that only rise.
    """

    def __init__(
        self, settle_s: float, give_up_s: float = GIVE_UP_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settle_s = settle_s
        self._give_up_s = max(give_up_s, settle_s)
        self._clock = clock
        self._seen: dict[str, tuple[str, float, bool]] = {}

    def look(self, sources: Iterable[Source]) -> dict[str, str]:
        """Name → fingerprint of those that are finished now."""
        now = self._clock()
        seen: dict[str, tuple[str, float, bool]] = {}
        for source in sources:
            fingerprint, since, whole = self._seen.get(source.name, ("", now, False))
            if fingerprint != source.fingerprint:
                fingerprint, since, whole = source.fingerprint, now, False
            rests = now - since
            if not whole and rests >= self._settle_s:
                whole = rests >= self._give_up_s or is_complete(source)
            seen[source.name] = (fingerprint, since, whole)
        self._seen = seen
        return {name: fingerprint for name, (fingerprint, _, whole) in seen.items() if whole}


def is_complete(source: Source) -> bool:
    """Whether a file is whole as far as its container tells; True for what tells nothing."""
    if source.problem is not None or is_url(source.path):
        return True
    if source.media == "image":
        return _image_is_whole(source.path)
    try:
        video = OpenVideo(source, Limits())
    except InputError:
        return False  # no index yet, or no video: `GIVE_UP_S` decides
    try:
        return cut_off(source.path, video.format) is None
    except OSError:
        return False
    finally:
        video.close()


def _among(finished: dict[str, str]) -> Callable[[Source], bool]:
    return lambda source: finished.get(source.name) == source.fingerprint


def _image_is_whole(path: str) -> bool:
    """JPEG and PNG say where they end; others are taken as they rest."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (a name as found, maybe not valid text)
            start = file.read(4)
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            end = file.read()
    except OSError:
        return False
    if start.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in end
    if start.startswith(b"\x89PNG"):
        return b"IEND" in end
    return True


def follow_folders(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    stop: threading.Event,
    *,
    settle_s: float = 5.0,
    give_up_s: float = GIVE_UP_S,
    overwrite: bool = False,
    restart: bool = False,
    follow: bool = False,
    sniff: bool = False,
    **options: Any,
) -> Iterator[ScanSummary]:
    """Keep one result current as files arrive; a summary after each pass that found something new.

    Every pass is a whole scan of all that is finished: what an earlier one did is taken over, and the merge replaces the result in one step.

    Args:
        paths: as for `scan`; lists on standard input cannot be followed.
        out: as for `scan`.
        stop: ends it, between two passes.
        settle_s: seconds that a file must stand still; also how often is looked.
        give_up_s: see `GIVE_UP_S`.
        overwrite: for the first pass, as for `scan`.
        restart: for the first pass, as for `scan`.
        follow: enter linked folders.
        sniff: as for `scan`.
        options: of `scan`.

    Raises:
        MaskbatchError: as `scan`.
    """
    named = tuple(os.fspath(path) for path in paths)
    if "-" in named:
        raise UsageError("--watch looks again and again, which standard input cannot give; name a folder")
    rest = Rest(settle_s, give_up_s)
    done: dict[str, str] = {}
    while True:
        found = discover(named, follow=follow, sniff_all=sniff)
        finished = rest.look(found.sources)
        if finished and finished != done:
            yield scan(
                named,
                out,
                overwrite=overwrite,
                restart=restart,
                follow=follow,
                sniff=sniff,
                accept=_among(finished),
                **options,
            )
            done, overwrite, restart = finished, False, False
        with suppress(KeyboardInterrupt):
            if stop.wait(min(settle_s, 5.0)):
                return
            continue
        return  # interrupted between two passes: the result is whole
