"""Which images are near copies of each other, across data sets: no model may be judged on a copy of what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR_BITS = 6
"""Two images are near copies when their 64-bit hashes differ in at most this many bits."""


def perceptual_hash(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """64 bits of an image's coarse structure (pHash: signs of low DCT frequencies against their median).

    Args:
        image: H×W×3 uint8 BGR, or H×W grey.
    """
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    return np.asarray(low > np.median(low[1:]), np.bool_)


def group_near_duplicates(paths: Sequence[Path], near_bits: int = NEAR_BITS) -> list[int]:
    """A group number per image; near copies, and copies of copies, share one. A mirrored copy counts as a copy.

    Images that cannot be read get a group of their own.
    """
    both = [None if grey is None else _both_hashes(grey) for grey in map(read_grey, paths)]
    readable = np.array([pair is not None for pair in both], np.bool_)
    hashes = np.array([np.zeros((2, 64), np.bool_) if pair is None else pair for pair in both]).reshape(-1, 2, 64)
    return group_hashes(hashes[:, 0], hashes[:, 1], readable, near_bits=near_bits)


def read_grey(path: Path) -> NDArray[np.uint8] | None:
    """H×W uint8, or None where OpenCV cannot read it."""
    data = np.fromfile(path, np.uint8)
    grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    return None if grey is None else np.asarray(grey, np.uint8)


def _both_hashes(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """2×64: of the image and of its mirror image."""
    return np.stack([perceptual_hash(grey), perceptual_hash(np.ascontiguousarray(grey[:, ::-1], np.uint8))])


def hashes_of(paths: Sequence[Path]) -> NDArray[np.bool_]:
    """n×2×64 hashes of the images that can be read: of each and of its mirror image."""
    found = [_both_hashes(grey) for grey in map(read_grey, paths) if grey is not None]
    return np.array(found, np.bool_).reshape(-1, 2, 64)


def group_hashes(
    hashes: NDArray[np.bool_],
    mirrored: NDArray[np.bool_],
    readable: NDArray[np.bool_],
    together: Sequence[Sequence[int]] = (),
    near_bits: int = NEAR_BITS,
) -> list[int]:
    """A group per image, named by the position of its first one: near copies, and copies of copies, share one.

    Args:
        hashes: n×64, of the images.
        mirrored: n×64, of their mirror images.
        readable: n; those that are not get a group of their own.
        together: positions that share a group whatever they look like.
        near_bits: see `NEAR_BITS`.
    """
    parent = list(range(len(hashes)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for positions in together:
        for other_index in positions[1:]:
            first, second = sorted((root(positions[0]), root(other_index)))
            parent[second] = first
    packed, packed_mirrored = np.packbits(hashes, axis=1), np.packbits(mirrored, axis=1)
    for index in np.flatnonzero(readable).tolist():
        for other in (packed, packed_mirrored):
            distance = np.bitwise_count(other[: index + 1] ^ packed[index]).sum(axis=1)
            for match in np.flatnonzero((distance <= near_bits) & readable[: index + 1]):
                first, second = sorted((root(index), root(int(match))))
                parent[second] = first
    return [root(index) for index in range(len(hashes))]
