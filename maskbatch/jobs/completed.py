"""What is done, input by input, small enough to be held for millions of them."""

from __future__ import annotations

import hashlib
import pickle
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from maskbatch.types import Piece, PieceResult, Receipt, Source, whole_piece

UNPACKED_RECEIPTS = 16
"""Receipts kept unpacked. Inputs are asked for in the order in which they were handed out, so few are in use at a time."""

SourceKey = tuple[str, str]
"""A source's name and fingerprint."""


@dataclass(frozen=True, slots=True)
class CompletedPiece:
    """A piece that is done, and where its rows are: `faces` rows from `offset` of the part of `unit`."""

    unit: str
    offset: int
    result: PieceResult


PiecesBySource = Mapping[SourceKey, dict[int, CompletedPiece]]
"""Done pieces by source, then by part number."""


class CompletedPieces(PiecesBySource):
    """The pieces that a work folder's receipts say are done.

    As Python objects they would take a kilobyte per input. So the results of a receipt are kept compressed, and of an input that was
    done in one piece, as images are, only a hash of its name and in which receipt it is.

    A video may have left pieces of two cuts (in parts, and quarantined as a whole when it crashed later); those of one cut are given: of
    a complete one, else of the finer.
    """

    def __init__(self) -> None:
        self._receipts: list[tuple[str, bytes]] = []
        self._in_one: dict[int, int] = {}
        self._in_parts: dict[SourceKey, dict[int, dict[int, CompletedPiece]]] = {}  # by number of parts, by part
        self._unpacked: OrderedDict[int, tuple[CompletedPiece, ...]] = OrderedDict()

    def add(self, receipt: Receipt) -> None:
        """Take in a receipt; where one came earlier for the same piece, that one counts."""
        number = len(self._receipts)
        self._receipts.append((receipt.unit, zlib.compress(pickle.dumps(receipt.results), 1)))
        for index, piece in enumerate(_placed(receipt.unit, receipt.results)):
            key = _key(piece)
            if piece.result.parts == 1:
                here = number << 32 | index
                place = self._in_one.setdefault(_hash(key), here)
                if place == here or _key(self._at(place)) == key:
                    continue  # else the hash of another name is the same
            cuts = self._in_parts.setdefault(key, {})
            cuts.setdefault(piece.result.parts, {}).setdefault(piece.result.part, piece)

    def __getitem__(self, key: SourceKey) -> dict[int, CompletedPiece]:
        cuts = list(self._in_parts.get(key, {}).values())
        place = self._in_one.get(_hash(key))
        if place is not None and _key(piece := self._at(place)) == key:
            cuts.append({piece.result.part: piece})
        if not cuts:
            raise KeyError(key)
        return max(cuts, key=lambda cut: (is_complete(cut), _parts(cut)))

    def __iter__(self) -> Iterator[SourceKey]:
        for place in self._in_one.values():
            if (key := _key(self._at(place))) not in self._in_parts:
                yield key
        yield from self._in_parts

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _at(self, place: int) -> CompletedPiece:
        return self._unpack(place >> 32)[place & 0xFFFFFFFF]

    def _unpack(self, number: int) -> tuple[CompletedPiece, ...]:
        pieces = self._unpacked.get(number)
        if pieces is None:
            unit, packed = self._receipts[number]
            pieces = self._unpacked[number] = tuple(_placed(unit, pickle.loads(zlib.decompress(packed))))
            if len(self._unpacked) > UNPACKED_RECEIPTS:
                self._unpacked.popitem(last=False)
        self._unpacked.move_to_end(number)
        return pieces


def _placed(unit: str, results: Iterable[PieceResult]) -> Iterator[CompletedPiece]:
    offset = 0
    for result in results:
        yield CompletedPiece(unit, offset, result)
        offset += result.faces


def _key(piece: CompletedPiece) -> SourceKey:
    return piece.result.name, piece.result.fingerprint


def _hash(key: SourceKey) -> int:
    text = "\0".join(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _parts(pieces: dict[int, CompletedPiece]) -> int:
    return next(iter(pieces.values())).result.parts


def is_complete(pieces: dict[int, CompletedPiece]) -> bool:
    """Whether all parts of a source are among its done pieces."""
    first = next(iter(pieces.values()), None)
    return first is not None and all(part in pieces for part in range(first.result.parts))


def remaining(sources: Iterable[Source], done: PiecesBySource) -> list[Piece]:
    """The pieces still to do. A video of which some parts are done is looked into again; those parts are then dropped."""
    return [
        whole_piece(source)
        for source in sources
        if source.problem is None and not is_complete(done.get((source.name, source.fingerprint), {}))
    ]
