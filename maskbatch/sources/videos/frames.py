"""Decoded frames to BGR images in display orientation."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from maskbatch.errors import InputError
from maskbatch.types import Image


@dataclass(frozen=True, slots=True)
class DisplayMatrix:
    """The display matrix of a frame: transposed first, then mirrored (ISO/IEC 14496-12, 8.3.2)."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, picture: Any) -> DisplayMatrix:
        for data in picture.side_data:
            if data.type.name == "DISPLAYMATRIX":
                matrix = np.frombuffer(bytes(data), "<i4")
                if len(matrix) < 9:
                    break
                a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
                if abs(b) > abs(a):
                    return cls(True, c < 0, b < 0)
                return cls(False, a < 0, d < 0)
        return cls()

    def size(self, width: int, height: int) -> tuple[int, int]:
        return (height, width) if self.transpose else (width, height)

    def apply(self, image: Image) -> Image:
        if self.transpose:
            image = np.asarray(cv2.transpose(image), np.uint8)
        if self.mirror_x or self.mirror_y:
            code = -1 if self.mirror_x and self.mirror_y else int(self.mirror_x)
            image = np.asarray(cv2.flip(image, code), np.uint8)
        return image


class FrameConverter:
    """Decoded frames to BGR in square pixels; one scaler for the small images and one for the full ones (a scaler is expensive to make).

    Args:
        cover: long side of the small images in pixels.
        aspect: width of a stored pixel over its height. Images are stretched to what is displayed, never shrunk.
    """

    def __init__(self, cover: int, aspect: Fraction = Fraction(1)) -> None:
        self._cover = cover
        self._aspect = aspect
        self._small = VideoReformatter()
        self._full = VideoReformatter()
        self._lock = threading.Lock()  # `load_full` may be called from another thread

    def small(self, picture: Any, matrix: DisplayMatrix) -> Image:
        width, height = self.displayed(picture.width, picture.height)
        long_side = max(width, height)
        if long_side > self._cover:
            width = max(1, round(width * self._cover / long_side))
            height = max(1, round(height * self._cover / long_side))
        return matrix.apply(_to_bgr(self._small, picture, width, height))

    def full(self, picture: Any, matrix: DisplayMatrix) -> Image:
        with self._lock:
            return matrix.apply(_to_bgr(self._full, picture, *self.displayed(picture.width, picture.height)))

    def displayed(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in square pixels, before the display matrix."""
        if self._aspect > 1:
            return max(1, round(width * self._aspect)), height
        return width, max(1, round(height / self._aspect))


def pixel_aspect(stream: Any) -> Fraction:
    """Width of a stored pixel over its height, as the container or the stream says; 1 where that is nothing a camera writes."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return Fraction(aspect) if aspect and Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def _to_bgr(reformatter: Any, picture: Any, width: int, height: int) -> Image:
    try:
        converted = reformatter.reformat(
            picture, width=width, height=height, format="bgr24", interpolation=Interpolation.BILINEAR, threads=1
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError("unsupported", f"the pixel format {picture.format.name} cannot be converted") from error
    return np.ascontiguousarray(converted.to_ndarray(), np.uint8)
