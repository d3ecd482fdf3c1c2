"""Crops and frames for the page: decoded here, since browsers count frames differently and cannot play every codec."""

from __future__ import annotations

import threading
from collections import OrderedDict

import cv2
import numpy as np

from maskbatch.classify.crops import face_squares
from maskbatch.draw.eyes import cover_eyes
from maskbatch.draw.faces import redact as blur
from maskbatch.draw.images import encode_picture, square_crop, thumbnail
from maskbatch.draw.originals import Originals
from maskbatch.errors import InputError, MaskbatchError
from maskbatch.review.faces import Array, FaceTable
from maskbatch.types import Image

SIDE = 144
LARGEST = 1600
"""Longer side of a frame on the page, in pixels."""
_QUALITY = 85
_FRAMES_MB = 192
_CROPS = 4000


class Images:
    """Decodes once, keeps what was shown last. Used by several threads.

    Args:
        faces: the table.
        originals: where the inputs are.
        redact: eyes are covered in crops and faces blurred in frames, except that nose and mouth of the crop's own face stay.
    """

    def __init__(self, faces: FaceTable, originals: Originals, *, redact: bool = False) -> None:
        self._faces = faces
        self._originals = originals
        self._redact = redact
        self._lock = threading.Lock()
        self._decoding = threading.Lock()
        self._frames: OrderedDict[tuple[int, int], Image] = OrderedDict()
        self._crops: OrderedDict[int, bytes] = OrderedDict()

    def crop(self, row: int) -> bytes:
        """JPEG of a face, `SIDE` pixels square. Raises InputError where its input cannot be read (any more)."""
        with self._lock:
            if row in self._crops:
                self._crops.move_to_end(row)
                return self._crops[row]
        image, faces = self._image(row), self._faces
        box = faces.boxes[row]
        left, top, side = (float(value) for value in face_squares(box[None])[0][:3])
        if self._redact:
            image = image.copy()
            cover_eyes(image, box.tolist(), None)
        data = thumbnail(square_crop(image, left, top, side), SIDE, _QUALITY)
        with self._lock:
            self._crops[row] = data
            while len(self._crops) > _CROPS:
                self._crops.popitem(last=False)
        return data

    def frame(self, row: int) -> bytes:
        """JPEG of the whole image or frame of a face, at most `LARGEST` pixels wide. Raises InputError."""
        return self.shown(self._image(row), self._faces.boxes[self._faces.same_image(row)])

    def shown(self, image: Image, boxes: Array) -> bytes:
        """An image as JPEG, at most `LARGEST` pixels wide; with `redact`, the faces in it (n×4) are blurred."""
        if self._redact:
            image = image.copy()
            for box in boxes:
                x1, y1, x2, y2 = (float(value) for value in box)
                blur(image, (x1, y1, x2, y2))
        scale = min(1.0, LARGEST / max(image.shape[:2]))
        if scale < 1:
            size = round(image.shape[1] * scale), round(image.shape[0] * scale)
            image = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        return encode_picture(image, ".jpg", _QUALITY)

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of the image of a face, in pixels. Raises InputError."""
        height, width = self._image(row).shape[:2]
        return width, height

    def _image(self, row: int) -> Image:
        faces = self._faces
        key = (int(faces.source[row]), int(faces.frame[row]))
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        name = faces.sources[key[0]]
        # One at a time: two decoders would only take turns on two cores, and one of them hold a second video open.
        with self._decoding:
            with self._lock:
                if key in self._frames:
                    return self._frames[key]
            try:
                image = self._originals.frame(name, key[1]) if faces.video[row] else self._originals.image(name)
            except InputError:
                raise
            except (MaskbatchError, OSError, ValueError) as error:
                raise InputError("corrupt", str(error)) from error
        with self._lock:
            self._frames[key] = image
            while len(self._frames) > 1 and sum(kept.nbytes for kept in self._frames.values()) > _FRAMES_MB << 20:
                self._frames.popitem(last=False)
        return image
