"""The images behind the rows of a result: inputs found again where the scan saw them, and single frames of videos by their number."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskbatch.config import Limits, Sampling
from maskbatch.draw.images import load_picture
from maskbatch.errors import InputError
from maskbatch.sources.videos.packets import packet_index
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.sources.videos.sampling import chosen
from maskbatch.sources.videos.streams import file_and_stream
from maskbatch.storage.opener import is_url
from maskbatch.types import Image, Media, Piece, Source


class Originals:
    """Finds and decodes the inputs of a result.

    Args:
        run: what ``results.run.json`` says: the roots of the scan, and how it sampled videos.
        limits: as in the scan.
    """

    def __init__(self, run: Mapping[str, Any], limits: Limits | None = None) -> None:
        self._roots: dict[str, str] = dict(run.get("roots") or {})
        self._limits = limits or Limits()
        settings = run.get("settings") or {}
        sampling = {key.removeprefix("sampling."): value for key, value in settings.items() if "sampling." in key}
        self._sampling = Sampling(**sampling) if sampling else Sampling(mode="all")

    def path(self, name: str) -> Path | None:
        """The file of a source, or None where it is gone, lies in an archive or behind a URL."""
        return self._file(name) or self._file(file_and_stream(name)[0])

    def _file(self, name: str) -> Path | None:
        first, _, rest = name.partition("/")
        candidates: Iterable[Path] = ()
        if len(self._roots) == 1:
            root = Path(next(iter(self._roots.values())))
            candidates = (root / name, root)
        elif first in self._roots:
            candidates = (Path(self._roots[first]) / rest if rest else Path(self._roots[first]),)
        return next((path for path in candidates if not is_url(str(path)) and path.is_file()), None)

    def source(self, name: str, media: Media) -> Source | None:
        """A source as the decoders take it; None as for `path`."""
        path = self.path(name)
        if path is None:
            return None
        stat = path.stat()
        stream = None if path.name == name.rpartition("/")[2] else file_and_stream(name)[1]
        return Source(str(path), name, media, stat.st_size, stat.st_mtime_ns, stream=stream)

    def image(self, name: str) -> Image:
        """A still image, H×W×3 uint8 BGR, upright, free to be drawn on.

        Raises:
            InputError: it is gone or cannot be read.
        """
        return load_picture(self._found(name, "image"), self._limits)

    def frame(self, name: str, ordinal: int) -> Image:
        """One frame of a video, as `image`, decoded from the key frame before it.

        Args:
            name: of the source.
            ordinal: rank of the frame in order of presentation, the column `frame`.

        Raises:
            InputError: the video is gone, cannot be read, or has no such frame.
        """
        source = self._found(name, "video")
        index = packet_index(source, self._limits, assume_fps=self._sampling.assume_fps)
        times = np.sort(index.pts[index.shown]) if index.ordered else None
        if times is None or not 0 <= ordinal < len(times):
            found = next((image for _, image in self.frames(name, {ordinal})), None)
        else:
            at = int(times[ordinal])
            piece = Piece(source, 0, 2, at, at + 1)
            found = next(
                (
                    image
                    for number, image in self._read(
                        piece, replace(self._sampling, mode="all", gate="none", snap_s=0.0), {ordinal}
                    )
                ),
                None,
            )
        if found is None:
            raise InputError("corrupt", f"{name} has no frame {ordinal} that can be decoded")
        return found

    def looked_at(self, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Ranks and presentation times of the frames of a video that the scan looked at, or would have with the motion gate off.

        Raises:
            InputError: the video is gone, cannot be read, or can only be read from beginning to end.
        """
        index = packet_index(self._found(name, "video"), self._limits, assume_fps=self._sampling.assume_fps)
        if not index.ordered:
            raise InputError(
                "unsupported", f"{name} can only be read from beginning to end; its frames are not found one by one"
            )
        keys = np.zeros(len(index), np.bool_)
        keys[index.keys] = True
        taken = np.flatnonzero(chosen(index.times, keys[index.order], index.time_base, index.origin, self._sampling))
        times = (index.times[taken] - index.origin) * float(index.time_base)
        return taken.astype(np.int64), times.astype(np.float64)

    def frames(self, name: str, wanted: Collection[int]) -> Iterator[tuple[int, Image]]:
        """Several frames of a video in one pass, in order; those that cannot be decoded are left out.

        Args:
            name: of the source.
            wanted: ranks, the column `frame`; of frames that the scan looked at.

        Raises:
            InputError: the video is gone or cannot be read.
        """
        yield from self._read(Piece(self._found(name, "video"), 0, 1), self._sampling, wanted)

    def _read(self, piece: Piece, sampling: Sampling, wanted: Collection[int]) -> Iterator[tuple[int, Image]]:
        with VideoReader(piece, sampling, self._limits, 64) as reader:
            for frame in reader:
                if frame.ordinal is not None and frame.ordinal in wanted:
                    image = frame.load_full()
                    yield frame.ordinal, image if image.flags.writeable else image.copy()

    def _found(self, name: str, media: Media) -> Source:
        source = self.source(name, media)
        if source is None:
            raise InputError("not_found", f"{name} is not where the scan found it")
        return source
