"""A small folder of real images and a video to try a scan on, without any data and without a network.

The face is that of the photograph that ships with scikit-image (NASA's portrait of Eileen Collins, public domain). Masks
are drawn on it by the code below, once over mouth and nose and once below the nose.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from maskbatch.draw.paths import safe_output_path
from maskbatch.errors import MissingExtraError
from maskbatch.storage.atomic import write_bytes, written_whole
from maskbatch.types import Image, Source

INSTALL = "pip install 'maskbatch[demo]'"

Floats = npt.NDArray[np.float32]
Colour = tuple[int, int, int]

# The part of the photograph in which the face is, and how much larger masks are drawn, to be shrunk with soft edges.
_LEFT, _TOP, _RIGHT, _BOTTOM = 120, 40, 330, 260
_FINE = 5

# Points of the face in the enlarged part, measured by hand. Upper edge from the left to the right cheek, then the
# outline along the jaw from right to left.
_OVER_THE_NOSE = [
    (303, 428),
    (350, 398),
    (430, 372),
    (490, 338),
    (522, 328),
    (556, 338),
    (612, 374),
    (694, 408),
    (750, 446),
]
_BELOW_THE_NOSE = [
    (310, 520),
    (360, 505),
    (440, 490),
    (495, 482),
    (522, 479),
    (552, 483),
    (604, 494),
    (690, 518),
    (742, 536),
]
_JAW = [(738, 545), (712, 610), (668, 668), (600, 712), (522, 726), (440, 708), (378, 664), (334, 606), (311, 540)]
_LEFT_EAR, _RIGHT_EAR = (262, 400), (796, 446)

BLUE: Colour = (228, 204, 164)
WHITE: Colour = (236, 236, 232)
TEAL: Colour = (176, 178, 104)


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask to draw: its colour (BGR) and whether it leaves the nose free."""

    colour: Colour = BLUE
    below_nose: bool = False


EXPECTED: dict[str, dict[str, int]] = {
    "one/no_mask.jpg": {"without_mask": 1},
    "one/mask.jpg": {"with_mask": 1},
    "one/below_the_nose.jpg": {"mask_weared_incorrect": 1},
    "one/white_mask.png": {"with_mask": 1},
    "one/turned_by_exif.jpg": {"without_mask": 1},
    "group.jpg": {"with_mask": 3, "without_mask": 2, "mask_weared_incorrect": 1},
    "no_face.jpg": {},
}
"""What is in the images that `make_demo_media` writes, by name and label."""

VIDEO_NAME = "pan.mp4"


def make_demo_media(folder: str | os.PathLike[str]) -> None:
    """Write the images of `EXPECTED` and the video `VIDEO_NAME` (12 seconds, 640×360, H.264) below `folder`.

    The same bytes every time. Files that are there already are replaced.

    Raises:
        MissingExtraError: scikit-image, which has the photograph, is not installed.
        OutputError: the files cannot be written.
    """
    photo = _photograph()
    plain, blue, white, teal = photo, wear(photo, Mask()), wear(photo, Mask(WHITE)), wear(photo, Mask(TEAL))
    low_blue, low_white = wear(photo, Mask(below_nose=True)), wear(photo, Mask(WHITE, below_nose=True))
    root = Path(folder)
    _write(root, "one/no_mask.jpg", _jpeg(plain))
    _write(root, "one/mask.jpg", _jpeg(_framed(blue, 640, 480, 1.25, 40)))
    _write(root, "one/below_the_nose.jpg", _jpeg(_framed(low_blue, 600, 800, 1.6, -20)))
    _write(root, "one/white_mask.png", _png(_bright(_mirrored(white), 0.85)))
    _write(root, "one/turned_by_exif.jpg", _turned_jpeg(_bright(plain, 1.1)))
    people = [plain, blue, low_white, white, _mirrored(plain), teal]
    _write(root, "group.jpg", _jpeg(_group(people)))
    _write(root, "no_face.jpg", _jpeg(_no_face(photo)))
    _write_pan(root, [plain, blue, low_blue, white])


def _photograph() -> Image:
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtraError(f"the demo's photograph comes with scikit-image; install it with {INSTALL}") from error
    photo = np.asarray(data.astronaut(), np.uint8)  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(photo[:, :, ::-1])


# --- masks


def wear(photo: Image, mask: Mask) -> Image:
    """The photograph with a mask drawn on the face.

    Args:
        photo: 512×512×3 uint8 BGR, ``skimage.data.astronaut()``.
        mask: which.

    Returns:
        A new image of the same size.
    """
    image = photo.copy()
    part = image[_TOP:_BOTTOM, _LEFT:_RIGHT]
    size = ((_RIGHT - _LEFT) * _FINE, (_BOTTOM - _TOP) * _FINE)
    fine = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    edge = _BELOW_THE_NOSE if mask.below_nose else _OVER_THE_NOSE
    upper = _smooth(edge)
    outline = np.concatenate([upper, _smooth(_JAW)])
    cover = _filled(size, outline)
    _shadow(fine, cover)
    for ends in (
        (upper[0], _LEFT_EAR),
        (_smooth(_JAW)[-8], _LEFT_EAR),
        (upper[-1], _RIGHT_EAR),
        (_smooth(_JAW)[7], _RIGHT_EAR),
    ):
        _strap(fine, ends[0], ends[1])
    cloth = _cloth(size, mask.colour, upper, fine)
    soft = cv2.GaussianBlur(cover, (0, 0), 2.0)[:, :, None]
    fine += (cloth - fine) * soft
    shrunk = cv2.resize(np.clip(fine, 0, 255), (part.shape[1], part.shape[0]), interpolation=cv2.INTER_AREA)
    part[:] = np.round(shrunk).astype(np.uint8)
    return image


def _smooth(points: Sequence[tuple[int, int]], steps: int = 8) -> Floats:
    """A Catmull-Rom curve through the points, `steps` pieces between two."""
    at = np.array([points[0], *points, points[-1]], np.float32)
    t = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)[:, None]
    pieces = []
    for a, b, c, d in zip(at, at[1:], at[2:], at[3:], strict=False):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.asarray(np.concatenate([*pieces, at[-1:]]), np.float32)


def _filled(size: tuple[int, int], outline: Floats) -> Floats:
    cover = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(cover, [np.round(outline).astype(np.int32)], 255, cv2.LINE_AA)
    return np.asarray(cover / 255, np.float32)


def _shadow(fine: Floats, cover: Floats) -> None:
    """The mask stands off a little and darkens the skin around it."""
    moved = cv2.warpAffine(cover, np.array([[1, 0, 4], [0, 1, 9]], np.float32), (cover.shape[1], cover.shape[0]))
    fine *= 1 - 0.3 * cv2.GaussianBlur(moved, (0, 0), 9)[:, :, None]


def _strap(fine: Floats, start: Any, stop: tuple[int, int]) -> None:
    """An elastic from a corner of the mask to the ear, slightly bowed."""
    middle = (np.asarray(start) + np.asarray(stop)) / 2 + (0, 6)
    curve = _smooth([tuple(np.round(point).astype(int)) for point in (start, middle, stop)])
    line = np.zeros(fine.shape[:2], np.uint8)
    cv2.polylines(line, [np.round(curve).astype(np.int32)], False, 255, 6, cv2.LINE_AA)
    weight = cv2.GaussianBlur(line.astype(np.float32) / 255, (0, 0), 1.5)[:, :, None]
    fine += (np.float32(228) - fine) * (0.9 * weight)


def _cloth(size: tuple[int, int], colour: Colour, upper: Floats, fine: Floats) -> Floats:
    """The cloth: rounded like the face beneath, three pleats, a wire along the upper edge, a fine weave, the light of the photo."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    across = (columns - 525) / 225
    top = np.interp(np.arange(width), upper[:, 0], upper[:, 1]).astype(np.float32)[None, :]
    depth = rows - top  # below the upper edge
    light = 1.03 - 0.30 * across**2 - 0.08 * across - 0.0010 * np.maximum(rows - 540, 0)
    pleats = np.zeros_like(light)
    for middle in (500, 560, 620):
        fold = rows - (middle + 26 * (1 - across**2) - 14)
        pleats += -0.16 * np.exp(-((fold / 5) ** 2)) + 0.07 * np.exp(-(((fold - 11) / 6) ** 2))
    wire = 0.08 * np.exp(-(((depth - 15) / 6) ** 2)) - 0.09 * np.exp(-(((depth - 27) / 4) ** 2))
    noise = np.random.default_rng(7).normal(0, 1, (height, width)).astype(np.float32)
    weave = 0.09 * cv2.GaussianBlur(noise, (0, 0), 2.2)
    skin = cv2.GaussianBlur(fine.mean(axis=2), (0, 0), 45)
    shade = light + pleats * np.clip(depth / 60, 0, 1) + wire + weave + 0.0006 * (skin - 170)
    return np.asarray(shade[:, :, None] * np.array(colour, np.float32), np.float32)


# --- images


def _framed(photo: Image, width: int, height: int, scale: float, shift: int) -> Image:
    """The photograph scaled and cut to another format about its face, as far as it reaches."""
    half_w, half_h = width / 2 / scale, height / 2 / scale
    centre_x = float(np.clip(225 + shift / scale, min(half_w, 256), max(512 - half_w, 256)))
    centre_y = float(np.clip(190, min(half_h, 256), max(512 - half_h, 256)))
    matrix = np.array([[scale, 0, width / 2 - scale * centre_x], [0, scale, height / 2 - scale * centre_y]], np.float32)
    out = cv2.warpAffine(photo, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(out, np.uint8)


def _mirrored(image: Image) -> Image:
    return np.asarray(cv2.flip(image, 1), np.uint8)


def _bright(image: Image, gain: float) -> Image:
    return np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8)


def _group(people: Sequence[Image]) -> Image:
    """Six people in a video call: tiles of two sizes on a dark ground."""
    canvas = np.full((720, 1280, 3), 38, np.uint8)
    places = [(20, 20, 400), (440, 20, 400), (860, 20, 400), (120, 450, 250), (515, 450, 250), (910, 450, 250)]
    for photo, (x, y, side) in zip(people, places, strict=True):
        tile = _framed(photo, side, side, side / 400, 0)
        canvas[y : y + side, x : x + side] = tile
        cv2.rectangle(canvas, (x - 1, y - 1), (x + side, y + side), (90, 90, 90), 2)
    return canvas


def _no_face(photo: Image) -> Image:
    """The part of the photograph with the model of the Space Shuttle and no face."""
    return np.ascontiguousarray(cv2.resize(photo[300:512, 300:512], (640, 640), interpolation=cv2.INTER_CUBIC))


# --- files


def _write(root: Path, name: str, data: bytes) -> None:
    write_bytes(safe_output_path(root, name, Source("", name, "image")), data)


def _jpeg(image: Image) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90, colorspace="BGR"))


def _png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def _turned_jpeg(image: Image) -> bytes:
    """Stored lying on its side, with the Exif orientation 6 that tells viewers to turn it clockwise."""
    data = _jpeg(np.asarray(cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE), np.uint8))
    tiff = b"MM\x00*\x00\x00\x00\x08" + b"\x00\x01" + b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00" + bytes(4)
    body = b"Exif\x00\x00" + tiff
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def _write_pan(root: Path, people: Sequence[Image]) -> None:
    """A camera that moves along people side by side, 12 seconds at 25 frames a second."""
    import av

    strip = np.concatenate([_framed(photo, 480, 360, 0.94, 0) for photo in people], axis=1)
    target = safe_output_path(root, VIDEO_NAME, Source("", VIDEO_NAME, "video"))
    frames, rate = 300, 25
    with written_whole(target) as temporary, av.open(str(temporary), "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.codec_context.options = {"crf": "20", "preset": "veryfast"}
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = 2 * rate
        for index in range(frames):
            # Slow at both ends, as a hand moves a camera.
            at = (1 - np.cos(np.pi * index / (frames - 1))) / 2 * (strip.shape[1] - 640)
            view = np.asarray(cv2.getRectSubPix(strip, (640, 360), (float(at) + 319.5, 179.5)), np.uint8)
            frame = av.VideoFrame.from_ndarray(view, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
