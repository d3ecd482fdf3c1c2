"""JPEG files: the header read by ourselves, the pixels by libjpeg-turbo (simplejpeg), strictly first.

Strict decoding is what finds damage: libjpeg only *warns* about a file that ends early or is broken in the middle, and
everything but simplejpeg swallows the warning.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from maskbatch.errors import InputError
from maskbatch.types import Image, Problem

# Start-of-frame markers that libjpeg-turbo decodes to 8-bit pixels: baseline, extended and progressive, Huffman or
# arithmetic. The others are lossless, hierarchical or differential (ITU-T T.81, table B.1).
_DECODABLE = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What is known before a pixel is decoded. `width` and `height` are those of the stored, unrotated image."""

    width: int
    height: int
    components: int
    adobe: bool
    orientation: int


def read_header(data: bytes) -> JpegHeader:
    """Walk the marker segments up to the first scan (ITU-T T.81, B.1).

    Raises:
        InputError: ``truncated`` where the data end before the first scan, ``corrupt`` where the segments make no
            sense, ``unsupported`` for lossless, hierarchical and 12-bit JPEG.
    """
    frame: tuple[int, int, int] | None = None
    adobe = False
    orientation = 1
    at = 2
    end = len(data)
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < end and data[at] == 0xFF:  # fill bytes may precede a marker
            at += 1
        if at < 0 or at >= end:
            raise InputError("truncated", "the JPEG ends inside its header, before any image data")
        marker = data[at]
        at += 1
        if marker == 0 or marker in _WITHOUT_LENGTH:
            continue
        if marker == 0xD9:
            raise InputError("corrupt", "the JPEG ends before any image data")
        if at + 2 > end:
            raise InputError("truncated", "the JPEG ends inside its header, before any image data")
        length = data[at] << 8 | data[at + 1]
        body = data[at + 2 : at + length]
        if length < 2:
            raise InputError("corrupt", "a segment of the JPEG header has an impossible length")
        if marker in _START_OF_FRAME:
            frame = _frame_size(marker, body)
        elif marker == 0xE1 and body.startswith(b"Exif\0") and orientation == 1:
            orientation = exif_orientation(body[6:])
        elif marker == 0xEE and body.startswith(b"Adobe"):
            adobe = True
        elif marker == 0xDA:
            break
        at += length
    if frame is None:
        raise InputError("corrupt", "the JPEG has image data but does not say their size")
    width, height, components = frame
    return JpegHeader(width, height, components, adobe, orientation)


def _frame_size(marker: int, body: bytes) -> tuple[int, int, int]:
    if len(body) < 6:
        raise InputError("truncated", "the JPEG ends inside its header, before any image data")
    bits, height, width, components = struct.unpack_from(">BHHB", body)
    if marker not in _DECODABLE:
        raise InputError("unsupported", "a lossless or hierarchical JPEG; convert it to an ordinary one")
    if bits != 8:
        raise InputError("unsupported", f"a JPEG of {bits} bits per sample; convert it to 8 bits")
    if width == 0 or height == 0:
        # Height 0 means that a DNL segment after the first scan gives it; no decoder in use reads that.
        raise InputError("corrupt", f"the JPEG header gives a size of {width}×{height}")
    if components not in (1, 3, 4):
        raise InputError("unsupported", f"a JPEG of {components} colour components")
    return width, height, components


def exif_orientation(tiff: bytes) -> int:
    """The tag Orientation (274) of an Exif block (a TIFF header and its first directory), 1 where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for index in range(count):
        at = start + 2 + 12 * index
        if at + 12 > len(tiff):
            return 1
        tag, kind, number = struct.unpack_from(order + "HHI", tiff, at)
        if tag == 274:
            if number != 1 or kind not in (3, 4):
                return 1
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, at + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def decode(data: bytes, header: JpegHeader, factor: int) -> tuple[Image, Problem | None]:
    """The stored image at ``1/factor`` of its size (each side rounded up), BGR, not rotated.

    Args:
        data: the whole file.
        header: of the same file.
        factor: 1, 2, 4 or 8. Other DCT scales exist, but they have no vectorised code and are slower than full size.

    Returns:
        H×W×3 uint8, and the problem where only tolerant decoding gave an image. What is missing is grey.

    Raises:
        InputError: ``truncated`` or ``corrupt``, where nothing can be decoded.
    """
    try:
        return _pixels(data, header, factor, strict=True), None
    except ValueError as error:
        reason = str(error).strip()
    truncated = "remature end" in reason or data.rfind(_END_OF_IMAGE) < 0
    try:
        image = _pixels(data, header, factor, strict=False)
    except ValueError as error:
        if truncated:
            raise InputError("truncated", "the JPEG ends too early to be decoded at all") from error
        raise InputError("corrupt", f"the JPEG cannot be decoded ({error})") from error
    if truncated:
        return image, Problem("partial", "truncated", "the JPEG ends early; what is missing is grey")
    return image, Problem("partial", "corrupt", f"the JPEG is damaged and was decoded as far as it goes ({reason})")


def _pixels(data: bytes, header: JpegHeader, factor: int, strict: bool) -> Image:
    # simplejpeg takes the smallest scale whose sides are at least these.
    size = {"min_width": -(-header.width // factor), "min_height": -(-header.height // factor)} if factor > 1 else {}
    if header.components != 4:
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="BGR", strict=strict, **size))
    cmyk = simplejpeg.decode_jpeg(data, colorspace="CMYK", strict=strict, **size)
    return cmyk_to_bgr(cmyk, inverted=header.adobe)


def cmyk_to_bgr(cmyk: Image, inverted: bool) -> Image:
    """H×W×4 uint8 CMYK to H×W×3 BGR without a colour profile: ``R = (1-C)(1-K)`` and so on.

    Files with an Adobe marker store the inks inverted (255 means no ink), as Adobe's own programs write them.
    """
    light = cmyk if inverted else cv2.bitwise_not(cmyk)
    black = light[:, :, 3]
    channels = [cv2.multiply(np.ascontiguousarray(light[:, :, index]), black, scale=1 / 255) for index in (2, 1, 0)]
    return np.asarray(cv2.merge(channels), np.uint8)
