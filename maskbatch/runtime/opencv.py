"""OpenCV's own threads."""

from __future__ import annotations

import cv2


class OneOpenCVThread:
    """Keeps OpenCV to one thread until `close`: with a worker per core its threads would only take cores from the other workers."""

    def __init__(self) -> None:
        self._before = cv2.getNumThreads()
        cv2.setNumThreads(1)

    def close(self) -> None:
        """As it was before; the executor without processes works in its caller's."""
        cv2.setNumThreads(self._before)
