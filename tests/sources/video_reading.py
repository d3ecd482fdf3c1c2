"""Reading a video as the tests of this folder compare it: all rows and results of all its pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskbatch.config import Limits, Sampling
from maskbatch.sources.videos.reader import VideoReader, split_video
from maskbatch.types import Piece, PieceResult, Source

LIMITS = Limits()
ALL = Sampling(mode="all")
WHOLE = 1e9


def source_of(path: Path) -> Source:
    stat = path.stat()
    return Source(str(path), path.name, "video", stat.st_size, stat.st_mtime_ns)


def read(
    path: Path, sampling: Sampling = ALL, unit_seconds: float = WHOLE, cover: int = 96
) -> tuple[list[tuple[Any, ...]], list[PieceResult]]:
    """Rows (ordinal, time stamp, seconds, size, bytes of both pictures, gate) and results of all pieces of a file, or uncut."""
    source = source_of(path)
    rows: list[tuple[Any, ...]] = []
    results: list[PieceResult] = []
    pieces = (Piece(source),) if unit_seconds == WHOLE else split_video(source, sampling, unit_seconds, LIMITS)
    for piece in pieces:
        result = PieceResult(source.name, source.fingerprint, piece.part, piece.parts)
        with VideoReader(piece, sampling, LIMITS, cover) as reader:
            for frame in reader:
                full = frame.load_full()
                assert full.shape == (frame.height, frame.width, 3)
                key = (frame.image.tobytes(), full.tobytes())
                rows.append((frame.ordinal, frame.pts, frame.time_s, full.shape, *key, frame.skip_detection))
            reader.fill(result)
        results.append(result)
    return rows, results


def counts(results: list[PieceResult]) -> tuple[int, int, int]:
    """Read, failed, skipped."""
    return (
        sum(r.frames_read for r in results),
        sum(r.frames_failed for r in results),
        sum(r.frames_skipped for r in results),
    )
