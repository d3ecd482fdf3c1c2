"""Images of alarms, kept for a while: every face in them is blurred, and they are deleted in time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from maskbatch.draw.faces import Face, Style, show_faces
from maskbatch.draw.images import encode_picture
from maskbatch.storage.atomic import write_bytes
from maskbatch.tasks import Task
from maskbatch.types import Image


class KeptFrames:
    """A folder of redacted images, ``CAMERA/DATE/TIME-ID.jpg``.

    Args:
        folder: root; made when the first image comes.
        retain_s: seconds that an image stays.
        task: how labels look.
    """

    def __init__(self, folder: Path, retain_s: float, task: Task) -> None:
        self._folder = folder
        self._retain_s = retain_s
        self._style = Style(redact=True, task=task)

    def keep(self, image: Image, faces: Sequence[Face], camera: str, at: float, name: str) -> Path:
        """Write an image, H×W×3 uint8 BGR, with its faces blurred. Raises OutputError."""
        copy = image.copy()
        show_faces(copy, faces, self._style)
        moment = time.gmtime(at)
        day, clock = time.strftime("%Y-%m-%d", moment), time.strftime("%H%M%SZ", moment)
        path = self._folder / quote(camera, safe=" ") / day / f"{clock}-{name}.jpg"
        write_bytes(path, encode_picture(copy, ".jpg", 88))
        return path

    def expire(self, at: float) -> int:
        """Delete what is older than it may be; how many images that were."""
        count = 0
        if not self._folder.is_dir():
            return 0
        for path in self._folder.glob("*/????-??-??/*.jpg"):
            try:
                if path.stat().st_mtime < at - self._retain_s:
                    path.unlink()
                    count += 1
            except OSError:
                continue
        for folder in [*self._folder.glob("*/????-??-??"), *self._folder.glob("*")]:
            try:
                folder.rmdir()  # only an empty one can be
            except OSError:
                continue
        return count
