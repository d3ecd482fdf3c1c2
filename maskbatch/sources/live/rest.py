"""Which files of a folder are finished, while others are still being written.

A file counts when its size and time of change have stood still for a while *as seen from here* (clocks of other machines may be wrong) and
its container says that it is whole. A recorder that writes under another name and renames the file is covered by the same rule.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from maskbatch.config import Limits
from maskbatch.errors import InputError
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
