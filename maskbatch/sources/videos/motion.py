"""The motion gate: frames in which nothing moves need no detector.

Time is divided into windows of `gate_refresh_s` (by presentation time, so that they are the same wherever a file is cut).
The first frame of a window is always let through; each later one is compared with the last frame that was let through, and
held back while the two are alike. A change of the whole image (infra-red switch, lights, a bumped camera) counts as motion.

The state of a window hangs on nothing before the window. A reader that begins inside one goes back to its beginning.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskbatch.types import Image

GRID_LONG_SIDE = 96
"""Long side of the image that is compared. A face that a detector finds at 640 pixels covers at least two of its pixels."""

NOISE_LEVELS = 14.0
"""Difference (of 255) that sensor noise and compression reach; measured on flat parts of office footage."""

MIN_CHANGED = 3
"""Pixels of the small image that must differ."""

GLOBAL_SHIFT = 12.0
"""Change of the median level that means another light, not somebody in the image. Smaller ones are taken out."""


class MotionGate:
    """Decides frame by frame; call `lets_through` in order of presentation with every sampled frame of a window."""

    def __init__(self, refresh_units: int) -> None:
        """`refresh_units`: length of a window in units of the time stamps."""
        self._units = max(1, refresh_units)
        self._window: int | None = None
        self._reference: npt.NDArray[np.int16] | None = None

    def window_start(self, pts: int) -> int:
        """Time stamp at which the window of `pts` begins."""
        return pts // self._units * self._units

    def lets_through(self, image: Image, pts: int) -> bool:
        """Whether the frame is to be detected. `image`: BGR of any size; of one window all frames have the same scale."""
        small = _small(image)
        window = pts // self._units
        reference = self._reference
        if (
            window == self._window
            and reference is not None
            and reference.shape == small.shape
            and not _differs(reference, small)
        ):
            return False
        self._window = window
        self._reference = small
        return True


def _small(image: Image) -> npt.NDArray[np.int16]:
    height, width = image.shape[:2]
    factor = GRID_LONG_SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.blur(grey, (3, 3)), np.int16)


def _differs(reference: npt.NDArray[np.int16], small: npt.NDArray[np.int16]) -> bool:
    difference = small - reference
    shift = float(np.median(difference))
    if abs(shift) > GLOBAL_SHIFT:
        return True
    return int(np.count_nonzero(np.abs(difference - shift) > NOISE_LEVELS)) >= MIN_CHANGED
