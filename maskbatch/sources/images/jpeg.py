"""JPEG files: the header read by ourselves, the pixels by libjpeg-turbo (simplejpeg), strictly first.

Strict decoding is what finds damage: libjpeg only *warns* about a file that ends early or is broken in the middle, and
everything but simplejpeg swallows the warning.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from maskbatch.errors import InputError
from maskbatch.sources.images.exif import NO_EXIF, Exif, read_exif
from maskbatch.types import Image, Problem

# Start-of-frame markers that libjpeg-turbo decodes to 8-bit pixels: baseline, extended and progressive, Huffman or
# arithmetic. The others are lossless, hierarchical or differential (ITU-T T.81, table B.1).
_DECODABLE = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_SCAN, _END = 0xDA, 0xD9
_END_OF_IMAGE = bytes((0xFF, _END))


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What is known before a pixel is decoded. `width` and `height` are those of the stored, unrotated image."""

    width: int
    height: int
    components: int
    adobe: bool
    exif: Exif


def read_header(data: bytes) -> JpegHeader:
    """Walk the marker segments up to the first scan (ITU-T T.81, B.1).

    Raises:
        InputError: ``truncated`` where the data end before the first scan, ``corrupt`` where the segments make no
            sense, ``unsupported`` for lossless, hierarchical and 12-bit JPEG.
    """
    frame: tuple[int, int, int] | None = None
    adobe = False
    exif: Exif | None = None
    for marker, start, stop in _segments(data):
        if marker == _END:
            raise InputError("corrupt", "the JPEG ends before any image data")
        if stop - start < 4:
            raise InputError("corrupt", "a segment of the JPEG header has an impossible length")
        body = data[start + 4 : stop]
        if marker in _START_OF_FRAME:
            frame = _frame_size(marker, body)
        elif marker == 0xE1 and body.startswith(b"Exif\0") and exif is None:
            exif = read_exif(body[6:])
        elif marker == 0xEE and body.startswith(b"Adobe"):
            adobe = True
        elif marker == _SCAN:
            break
    else:
        raise InputError("truncated", "the JPEG ends inside its header, before any image data")
    if frame is None:
        raise InputError("corrupt", "the JPEG has image data but does not say their size")
    width, height, components = frame
    return JpegHeader(width, height, components, adobe, exif or NO_EXIF)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The marker segments behind the start of the image: each marker, where its 0xFF stands, and where the segment ends.

    The last ones are those that a caller does not go on after (the first scan) or where the data end. A length may be impossible
    (under 2, or behind the end).
    """
    at, end = 2, len(data)
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < end and data[at] == 0xFF:  # fill bytes may precede a marker
            at += 1
        if at < 0 or at >= end:
            return
        marker = data[at]
        at += 1
        if marker == 0 or marker in _WITHOUT_LENGTH:
            continue
        if at + 2 > end and marker != _END:
            return
        length = int.from_bytes(data[at : at + 2], "big")
        yield marker, at - 2, at + length
        at += max(length, 2)


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


def decode(data: bytes, header: JpegHeader, factor: int) -> tuple[Image, Problem | None]:
    """The stored image at ``1/factor`` of its size (each side rounded up), BGR, not rotated.

    A warning of the library is not damage. Where strict decoding fails, the file is decoded strictly once more without what has no
    pixels (metadata, colour profiles, bytes between segments): cameras and editors write those wrongly, and every other reader shows
    such images whole.

    Args:
        data: the whole file.
        header: of the same file.
        factor: 1, 2, 4 or 8. Other DCT scales exist, but they have no vectorised code and are slower than full size.

    Returns:
        H×W×3 uint8, and the problem where only tolerant decoding gave an image (what is missing is grey), or a remark.

    Raises:
        InputError: ``truncated`` or ``corrupt``, where nothing can be decoded.
    """
    try:
        return _pixels(data, header, factor, strict=True), None
    except ValueError as error:
        first = _reason(error)
    bare = without_metadata(data)
    try:
        return _pixels(bare, header, factor, strict=True), Problem(
            "ok", None, f"decoded whole, with a remark of the reader: {first}"
        )
    except ValueError as error:
        reason = _reason(error)
    truncated = "remature end of JPEG" in reason or data.rfind(_END_OF_IMAGE) < 0
    try:
        image = _pixels(bare, header, factor, strict=False)
    except ValueError as error:
        if truncated:
            raise InputError("truncated", "the JPEG ends too early to be decoded at all") from error
        raise InputError("corrupt", f"the JPEG cannot be decoded ({_reason(error)})") from error
    if truncated:
        return image, Problem("partial", "truncated", "the JPEG ends early; what is missing is grey")
    if _TRAILING.search(reason):
        return image, Problem("ok", None, f"decoded whole, with a remark of the reader: {reason}")
    return image, Problem("partial", "corrupt", f"the JPEG is damaged and was decoded as far as it goes ({reason})")


def _reason(error: ValueError) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_TRAILING = re.compile(r"extraneous bytes before marker 0xd9")
"""Bytes between the last pixel and the end marker: cameras pad there."""

_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def without_metadata(data: bytes) -> bytes:
    """The same image with nothing in its header but what decoding needs: tables, frame, restart interval, Adobe's colour transform.

    Args:
        data: a file whose header `read_header` accepts.
    """
    kept, jfif = [b"\xff\xd8"], False
    for marker, start, stop in _segments(data):
        segment = data[start:stop]
        if marker == _SCAN:
            return b"".join(kept) + data[start:]
        if marker == 0xE0 and not jfif and segment[4:8] == b"JFIF":
            kept.append(_JFIF)  # says that the colours are YCbCr
            jfif = True
        elif marker in _START_OF_FRAME or marker in _TABLES or (marker == 0xEE and segment[4:9] == b"Adobe"):
            kept.append(segment)
    return data


_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
"""Huffman and arithmetic tables, quantization tables, restart interval."""


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
