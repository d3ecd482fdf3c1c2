"""All still images but JPEG, through Pillow.

The file classes of Pillow are used directly: the format is already known, and `PIL.Image.open` would apply Pillow's own
pixel limit, which lies below ours, and warn on standard error. Formats that run other programs or contain scripts (EPS,
PDF, WMF) are not in the list.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from maskbatch.errors import InputError
from maskbatch.sources.images.exif import EXIF_DIRECTORY, NO_EXIF, Exif, from_tags
from maskbatch.types import Image, Problem

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_CLASSES = {
    "png": ("PIL.PngImagePlugin", "PngImageFile"),
    "gif": ("PIL.GifImagePlugin", "GifImageFile"),
    "bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "dib": ("PIL.BmpImagePlugin", "DibImageFile"),
    "tiff": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "avif": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "jpeg2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "ppm": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "qoi": ("PIL.QoiImagePlugin", "QoiImageFile"),
    "ico": ("PIL.IcoImagePlugin", "IcoImageFile"),
    "heif": ("pi_heif", "HeifImageFile"),
}
FORMATS = frozenset(_CLASSES)
"""Keys of `maskbatch.sources.sniff.Kind` that `decode` takes."""

# These decoders write into the image strip by strip, so that a failed one leaves the part above the damage.
_DECODED_IN_STRIPS = frozenset({"png", "gif", "bmp", "dib", "tiff", "ppm", "qoi"})


def decode(data: bytes, key: str, title: str, max_pixels: int) -> tuple[Image, Exif, list[Problem]]:
    """Decode the first image in `data`.

    Args:
        data: the whole file.
        key: its format, one of `FORMATS`.
        title: the format in words, for messages.
        max_pixels: images with more pixels are refused by their header.

    Returns:
        H×W×3 uint8 BGR as stored, its Exif whose orientation is still to be applied, and remarks. Images that are
        transparent somewhere lie on white, as a browser shows them. Samples of 16 bits keep their upper 8.
        Colour profiles are not applied.

    Raises:
        InputError: ``too_large``, ``truncated``, ``corrupt``, ``unsupported`` or ``out_of_memory``.
    """
    with _without_pillow_warnings():
        try:
            if key == "webp":
                _check_webp_canvas(data, max_pixels)
            if key == "tiff":
                check_compression(data)
                _silence_libtiff()
            return _decode(data, key, title, max_pixels)
        except InputError:
            raise
        except MemoryError as error:
            raise InputError("out_of_memory", f"not enough memory to decode {title}") from error
        except Exception as error:  # Pillow's readers raise whatever broken bytes make them raise
            bare = _without_metadata(data, key)
            if bare is None:
                raise _as_input_error(error, title) from error
        # A second look, without what has no pixels: metadata that a reader refuses are no damage to the image.
        try:
            image, exif, problems = _decode(bare, key, title, max_pixels)
        except InputError:
            raise
        except Exception as error:
            raise _as_input_error(error, title) from error
        return image, exif, problems or [Problem("ok", None, "decoded whole; its metadata cannot be read")]


_PNG_WITHOUT_PIXELS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tIME", b"pHYs", b"hIST", b"sPLT"})


def _without_metadata(data: bytes, key: str) -> bytes | None:
    """A PNG without text, profiles and the like (PNG specification, 11.3); None where nothing was left out."""
    if key != "png":
        return None
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in _PNG_WITHOUT_PIXELS:
            kept.append(data[at : at + 12 + size])
        at += 12 + size
    bare = b"".join(kept)
    return bare if len(bare) < len(data) else None


def _decode(data: bytes, key: str, title: str, max_pixels: int) -> tuple[Image, Exif, list[Problem]]:
    with _open(data, key, title) as file:
        check_pixels(*file.size, max_pixels)
        problems: list[Problem] = []
        try:
            file.load()
        except InputError:
            raise
        except Exception as error:
            failure = _as_input_error(error, title)
            # The core image is there although `load` failed; Pillow's own way to it is a switch for the whole process.
            if key not in _DECODED_IN_STRIPS or getattr(file, "_im", None) is None or file.im.getbbox() is None:
                raise failure from error
            problems.append(Problem("partial", failure.code, f"{failure.message}; what is missing is blank"))
            file.tile = []
        damaged = bool(problems)
        image = _as_bgr(file, title, problems)
        if image.max(initial=0) < 16 and file.mode in ("RGB", "RGBA") and key in ("png", "tiff"):
            image = _full_range(data, image, problems)
        if not damaged:
            problems += _animation(file)
        return image, _exif(file), problems


_TIFF_UNREAD = {
    34712: "JPEG 2000",
    34933: "PNG",
    34934: "JPEG XR",
    22610: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    34661: "JBIG",
    34715: "JBIG2",
    34887: "LERC",
    32895: "IT8",
    32896: "IT8",
    32897: "IT8",
    32898: "IT8",
    34676: "SGI LogLuv",
}
"""Compressions that the reader was built without, which libtiff would say on standard error; names as in libtiff's tiff.h."""


@functools.cache
def _silence_libtiff() -> None:
    """Take the handlers away by which libtiff writes to standard error; Pillow raises what matters (TIFFError(3TIFF))."""
    with contextlib.suppress(OSError, ImportError):
        importlib.import_module("PIL._imaging")
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        for path in {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "libtiff" in line}:
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


def check_compression(data: bytes) -> None:
    """Refuse a TIFF whose compression is not read, by the tag Compression (259) of its first directory (TIFF 6.0, section 2).

    Raises:
        InputError: ``unsupported``.
    """
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"+\0", b"\0+")
    width, entry = (8, 20) if big else (4, 12)
    start = int.from_bytes(data[8:16] if big else data[4:8], order)
    size = 8 if big else 2
    count = int.from_bytes(data[start : start + size], order)
    for index in range(min(count, 4096)):
        at = start + size + index * entry
        if int.from_bytes(data[at : at + 2], order) == 259:
            value = int.from_bytes(data[at + 4 + width : at + 6 + width], order)
            if value in _TIFF_UNREAD:
                raise InputError(
                    "unsupported",
                    f"a TIFF with {_TIFF_UNREAD[value]} compression, which is not read; convert it to LZW or Deflate",
                )
            return


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image by the size that its header gives.

    Raises:
        InputError: ``too_large``, or ``corrupt`` for an image without pixels.
    """
    if width <= 0 or height <= 0:
        raise InputError("corrupt", f"the header gives a size of {width}×{height}")
    if width * height > max_pixels:
        raise InputError(
            "too_large",
            f"{width}×{height} are {width * height:,} pixels, more than the {max_pixels:,} of --max-pixels; "
            "it was not decoded",
        )


def _open(data: bytes, key: str, title: str) -> ImageFile:
    module, name = _CLASSES[key]
    try:
        opener = getattr(importlib.import_module(module), name)
    except ImportError as error:
        hint = "install the package pi-heif to read it" if key == "heif" else f"this needs {module}"
        raise InputError("unsupported", f"{title}: {hint}") from error
    file: ImageFile = opener(io.BytesIO(data))
    return file


def _as_bgr(file: ImageFile, title: str, problems: list[Problem]) -> Image:
    mode = file.mode
    if mode.startswith("I;16") or mode == "I":
        # 16-bit grey comes as I;16, and as I (32 bits) from formats that say so themselves (PNM).
        samples = np.asarray(file)
        grey = np.clip(samples, 0, 65535).astype(np.uint16)
        shift = _shift(grey, problems)
        return np.asarray(cv2.cvtColor((grey >> shift).astype(np.uint8), cv2.COLOR_GRAY2BGR), np.uint8)
    if mode == "F":
        raise InputError("unsupported", f"{title} of floating-point samples; convert it to 8 or 16 bits")
    if file.has_transparency_data:
        rgba = np.asarray(file.convert("RGBA"))
        return _on_white(rgba, problems)
    if mode == "L":
        return np.asarray(cv2.cvtColor(np.asarray(file), cv2.COLOR_GRAY2BGR), np.uint8)
    rgb = np.asarray(file if mode == "RGB" else file.convert("RGB"))
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)


def _shift(samples: npt.NDArray[np.uint16], problems: list[Problem]) -> int:
    """By how many bits 16-bit samples are shifted to 8. Cameras put 10 or 12 bits into the lower ones, which would be black."""
    bits = int(samples.max()).bit_length() if samples.size else 16
    if not 0 < bits <= 12:
        return 8
    problems.append(Problem("ok", None, f"samples of 16 bits of which {bits} are used; shown at their full range"))
    return max(0, bits - 8)


def _full_range(data: bytes, image: Image, problems: list[Problem]) -> Image:
    """Colours of 16 bits that are nearly black because only the lower bits are used; Pillow keeps the upper 8."""
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if samples is None or samples.dtype != np.uint16 or samples.shape != image.shape:
        return image
    shift = _shift(np.asarray(samples, np.uint16), problems)
    return (np.asarray(samples, np.uint16) >> shift).astype(np.uint8) if shift < 8 else image


def _on_white(rgba: Image, problems: list[Problem]) -> Image:
    """Most images with an alpha channel are opaque; only the others pay for the blending."""
    alpha = rgba[:, :, 3]
    bgr = np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGR), np.uint8)
    if alpha.min() == 255:
        return bgr
    if alpha.max() == 0:  # programs that write 32 bits per pixel leave the fourth byte at 0
        problems.append(Problem("ok", None, "the alpha channel hides everything and was ignored"))
        return bgr
    weight = alpha.astype(np.uint16)[:, :, None]
    blended = bgr * weight + (255 - weight) * np.uint16(255)
    return ((blended + 127) // 255).astype(np.uint8)


def _animation(file: ImageFile) -> list[Problem]:
    if not getattr(file, "is_animated", False):
        return []
    try:
        count = int(getattr(file, "n_frames", 1))
    except Exception:  # a broken later frame says nothing about the first
        return [Problem("partial", "unsupported", "the first frame of an animation; its other frames were not read")]
    what = "pages" if file.format == "TIFF" else "frames of an animation"
    return [Problem("partial", "unsupported", f"the first of {count} {what}; the others were not read", count - 1)]


def _exif(file: ImageFile) -> Exif:
    # TIFF is already turned by Pillow while it loads, and says 1 afterwards.
    try:
        tags = file.getexif()
        return from_tags(tags, tags.get_ifd(EXIF_DIRECTORY))
    except Exception:  # unreadable metadata of a readable image
        return NO_EXIF


def _check_webp_canvas(data: bytes, max_pixels: int) -> None:
    """Pillow reserves the whole canvas of a WebP file when it opens it, so its size is looked up before (RFC 9649)."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise InputError("truncated", "the WebP image ends inside its header")
    if chunk == b"VP8X":
        width = int.from_bytes(body[4:7], "little") + 1
        height = int.from_bytes(body[7:10], "little") + 1
    elif chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        if width == 0 or height == 0:
            raise InputError("corrupt", "the WebP image has a broken header")
    check_pixels(width, height, max_pixels)


def _as_input_error(error: Exception, title: str) -> InputError:
    text = " ".join(str(error).split()) or type(error).__name__
    if type(error).__name__ == "DecompressionBombError":
        return InputError("too_large", f"{title} with more pixels than can be read safely")
    if "truncat" in text.lower() or "not enough" in text.lower() or isinstance(error, EOFError):
        return InputError("truncated", f"{title} that ends early ({text})")
    if isinstance(error, NotImplementedError) or "unsupported" in text.lower() or "unknown pixel mode" in text.lower():
        return InputError("unsupported", f"{title} of a variant that is not read ({text})")
    return InputError("corrupt", f"{title} whose data are damaged ({text})")


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters: Any = None


@contextmanager
def _without_pillow_warnings() -> Iterator[None]:
    """Pillow reports odd metadata as Python warnings, which would end up on the terminal amid the progress bar.

    `warnings.catch_warnings` alone is not for threads: the first to enter saves the filters and the last to leave puts
    them back.
    """
    global _quiet_depth, _quiet_filters  # noqa: PLW0603
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.__exit__(None, None, None)
