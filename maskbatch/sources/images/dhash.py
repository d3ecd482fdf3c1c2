"""The difference hash: images that look alike have hashes that differ in few bits."""

from __future__ import annotations

import cv2
import numpy as np

from maskbatch.types import Image

SIDE = 8


def dhash(image: Image) -> str:
    """16 hexadecimal digits: for each of 8×8 cells, whether it is darker than its right neighbour (N. Krawetz, 2013, "dHash").

    Args:
        image: H×W×3 uint8 BGR, of any size.
    """
    small = cv2.resize(image, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes().hex()
