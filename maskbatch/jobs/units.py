"""How pieces become work units.

A unit is only a package: its rows depend on each piece alone, so units may be cut in any way without changing a result. That is
why they can be large while there is much to do and small at the end, and why a resumed run need not cut them as before.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable

from maskbatch.jobs.key import run_mark
from maskbatch.types import Piece, Source, WorkUnit

SMALLEST_TAIL_UNIT = 8
FIRST_UNIT = 16


def unit_id(pieces: Iterable[Piece], key: str) -> str:
    """The run's mark and a hash of what the unit is: its pieces' names, fingerprints and ranges."""
    digest = hashlib.sha256(key.encode())
    for piece in pieces:
        what = (piece.source.name, piece.source.fingerprint, piece.part, piece.parts, piece.start_pts, piece.stop_pts)
        digest.update(repr(what).encode("utf-8", "backslashreplace"))
    return run_mark(key) + digest.hexdigest()[:24]


def make_unit(pieces: Iterable[Piece], key: str) -> WorkUnit:
    """The unit of these pieces."""
    pieces = tuple(pieces)
    return WorkUnit(unit_id(pieces, key), pieces)


class Backlog:
    """The pieces still to be handed out, cut into units when a worker asks.

    Videos come first, largest first, since a long one that starts last would keep a single core busy at the end. Images follow in
    the order of their names, in units that begin small, so that there is a result soon, grow with what has been handed out, and shrink
    with what is left, so that all workers finish together.
    """

    def __init__(self, pieces: Iterable[Piece], key: str, workers: int, unit_images: int) -> None:
        self._key = key
        self._workers = max(1, workers)
        self._unit_images = max(1, unit_images)
        pieces = list(pieces)
        videos = [piece for piece in pieces if piece.source.media == "video"]
        self._videos = deque(sorted(videos, key=lambda piece: (-piece.source.size, piece.source.name, piece.part)))
        self._images = deque(piece for piece in pieces if piece.source.media == "image")
        self._ready: deque[WorkUnit] = deque()
        self._images_out = 0

    def __len__(self) -> int:
        """Pieces not handed out yet."""
        return len(self._videos) + len(self._images) + sum(len(unit.pieces) for unit in self._ready)

    def sample(self, count: int) -> list[Source]:
        """The first few sources that would be handed out; hands out nothing."""
        ready = (piece for unit in self._ready for piece in unit.pieces)
        return [piece.source for piece in itertools.islice(itertools.chain(ready, self._videos, self._images), count)]

    def put_back(self, units: Iterable[WorkUnit]) -> None:
        """Hand out these units next (parts of a video just split, or what is left of a unit whose worker died).

        The newest come first: a culprit is closed in on before the next trouble is looked for, so that few units wait here.
        """
        self._ready.extendleft(reversed(list(units)))

    def put_pieces(self, pieces: Iterable[Piece]) -> None:
        """Hand out each of these pieces as a unit of its own."""
        self.put_back(make_unit([piece], self._key) for piece in pieces)

    def next(self) -> WorkUnit | None:
        """The next unit, or None when all have been handed out."""
        if self._ready:
            return self._ready.popleft()
        if self._videos:
            return make_unit([self._videos.popleft()], self._key)
        if not self._images:
            return None
        share = -(-len(self._images) // (self._workers * 3))
        grown = max(FIRST_UNIT, self._images_out // self._workers)
        count = min(len(self._images), self._unit_images, max(SMALLEST_TAIL_UNIT, share), grown)
        self._images_out += count
        return make_unit([self._images.popleft() for _ in range(count)], self._key)
