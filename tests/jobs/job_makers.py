"""Small sources, units and rows for the tests of `jobs`; no pixels are needed there."""

from __future__ import annotations

from maskbatch.storage.atomic import FileOps
from maskbatch.types import Media, Piece, PieceResult, Source, UnitRows, WorkUnit


class Hasty(FileOps):
    """Does not wait for the disk: what the tests of the rules do with it is soon deleted."""

    def fsync(self, fileno: int) -> None:
        pass


def source(name: str, size: int = 10, mtime_ns: int = 1, media: Media = "image") -> Source:
    return Source(f"/in/{name}", name, media, size, mtime_ns)


def result(piece: Piece, faces: int = 0) -> PieceResult:
    return PieceResult(piece.source.name, piece.source.fingerprint, piece.part, max(1, piece.parts), faces=faces)


def rows_of(unit: WorkUnit, faces: int = 1) -> UnitRows:
    """As a worker makes them; the part's bytes are no Parquet, which only the merge would mind."""
    part = f"rows of {unit.id}".encode()
    return UnitRows(part, faces * len(unit.pieces), tuple(result(piece, faces) for piece in unit.pieces))
