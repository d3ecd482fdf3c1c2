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
    hashes = np.zeros((len(paths), 64), np.bool_)
    mirrored = np.zeros_like(hashes)
    readable = np.zeros(len(paths), np.bool_)
    for index, path in enumerate(paths):
        data = np.fromfile(path, np.uint8)
        grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
        if grey is None:
            continue
        readable[index] = True
        hashes[index] = perceptual_hash(np.asarray(grey, np.uint8))
        mirrored[index] = perceptual_hash(np.ascontiguousarray(grey[:, ::-1], np.uint8))
    parent = list(range(len(paths)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    packed, packed_mirrored = np.packbits(hashes, axis=1), np.packbits(mirrored, axis=1)
    for index in np.flatnonzero(readable).tolist():
        for other in (packed, packed_mirrored):
            distance = np.bitwise_count(other[: index + 1] ^ packed[index]).sum(axis=1)
            for match in np.flatnonzero((distance <= near_bits) & readable[: index + 1]):
                first, second = sorted((root(index), root(int(match))))
                parent[second] = first
    return [root(index) for index in range(len(paths))]
