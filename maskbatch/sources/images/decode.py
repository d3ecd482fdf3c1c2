"""One still image: from the bytes of its file to a `Frame`.

What a file is, its bytes decide, not its name. The header is read first, and an image with too many pixels is refused
before it costs memory. Boxes are in display orientation, so Exif rotation is applied here, once, and nobody downstream
needs to know of it. Colour profiles are not applied.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from maskbatch.errors import InputError
from maskbatch.sources.images import jpeg, pillow_decoder, second_reader
from maskbatch.sources.sniff import SNIFF_BYTES, Kind, sniff
from maskbatch.types import Frame, Image, Problem, joined

# Half scale saves only a fifth of the time of a JPEG, because the entropy decoding stays, and is lost with the first
# small face that has to be cut from the full image.
_REDUCTIONS = (8, 4)


def decode_image(data: bytes, *, cover: int, max_pixels: int) -> Frame:
    """Decode a still image, or the first image of an animation.

    Args:
        data: the whole file.
        cover: the long side that the detector looks at, in pixels. A JPEG is decoded at a quarter or an eighth of its
            size where its long side is still at least `cover`; 0 always decodes the full size.
        max_pixels: images with more pixels are refused by their header.

    Returns:
        A `Frame` in BGR and display orientation. ``width`` and ``height`` are those of the original as displayed.
        ``problem`` is ``partial`` for a damaged file of which a part was decoded (the missing part is grey in a
        JPEG and black or the palette's first colour otherwise), and ``ok`` with a message for the first image of several.

    Raises:
        InputError: ``empty``, ``not_media``, ``unsupported``, ``too_large``, ``truncated``, ``corrupt`` or
            ``out_of_memory``.
    """
    if not data:
        raise InputError("empty", "the file is empty (0 bytes)")
    kind = sniff(data[:SNIFF_BYTES])
    try:
        if kind.key == "jpeg":
            return _decode_jpeg(data, cover, max_pixels)
        if kind.key in pillow_decoder.FORMATS:
            stored, exif, problems = pillow_decoder.decode(data, kind.key, kind.title, max_pixels)
            return _frame(upright(stored, exif.orientation), joined(problems), exif.taken_at)
        raise _not_a_picture(kind)
    except InputError as error:
        if kind.media != "image" or error.code not in ("corrupt", "truncated", "unsupported"):
            raise
        image, problem = second_reader.decode(data, kind.key, error, max_pixels)
        return _frame(image, problem, None)


def _frame(image: Image, problem: Problem | None, taken_at: str | None) -> Frame:
    height, width = image.shape[:2]
    return Frame(image, width, height, load_full=lambda: image, problem=problem, taken_at=taken_at)


def upright(image: Image, orientation: int) -> Image:
    """Turn a stored image into display orientation.

    Args:
        image: H×W×3 uint8.
        orientation: the Exif tag Orientation, 1 to 8 (Exif 2.32, 4.6.4 A).

    Returns:
        A contiguous image; the same one where nothing is to be done.
    """
    turn = _TURNS.get(orientation)
    return image if turn is None else np.asarray(turn(image), np.uint8)


_TURNS: dict[int, Callable[[Image], object]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def _decode_jpeg(data: bytes, cover: int, max_pixels: int) -> Frame:
    header = jpeg.read_header(data)
    pillow_decoder.check_pixels(header.width, header.height, max_pixels)
    factor = _reduction(max(header.width, header.height), cover)
    try:
        stored, problem = jpeg.decode(data, header, factor)
        image = upright(stored, header.exif.orientation)
    except MemoryError as error:
        raise InputError("out_of_memory", "not enough memory to decode the JPEG") from error
    width, height = header.width, header.height
    if header.exif.orientation >= 5:
        width, height = height, width
    full = image if factor == 1 else None

    def load_full() -> Image:
        nonlocal full
        if full is None:
            full = upright(jpeg.decode(data, header, 1)[0], header.exif.orientation)
        return full

    return Frame(image, width, height, load_full, problem=problem, taken_at=header.exif.taken_at)


def _reduction(long_side: int, cover: int) -> int:
    """The largest of the DCT scales 1/8, 1/4 and 1 at which the long side is at least `cover`."""
    if cover <= 0:
        return 1
    return next((factor for factor in _REDUCTIONS if long_side >= cover * factor), 1)


def _not_a_picture(kind: Kind) -> InputError:
    if kind.media == "image":
        return InputError("unsupported", f"{kind.title}; this format is not read, convert it to JPEG or PNG")
    if kind.media == "video":
        return InputError("not_media", f"the file holds {kind.title} but is named like an image")
    return InputError("not_media", f"not an image: the file holds {kind.title}")
