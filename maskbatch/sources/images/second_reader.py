"""FFmpeg as the second reader of still images: it has the last word before a file is called corrupt or unsupported.

It is slow to set up and knows neither Exif nor the rotation of AVIF, so it is asked only where the first reader gave up.
"""

from __future__ import annotations

import io

import av
import cv2
import numpy as np
from av.error import FFmpegError

from maskbatch.errors import InputError
from maskbatch.sources.images.pillow_decoder import check_pixels
from maskbatch.types import Image, Problem

# Demuxers by key of `maskbatch.sources.sniff.Kind`. HEIF is left out: FFmpeg's decoder gives one tile of a picture made of many.
_DEMUXERS = {
    "avif": "mov",
    "bmp": "bmp_pipe",
    "exr": "exr_pipe",
    "gif": "gif",
    "hdr": "hdr_pipe",
    "jpeg": "jpeg_pipe",
    "jpeg2000": "j2k_pipe",
    "png": "png_pipe",
    "qoi": "qoi_pipe",
    "tiff": "tiff_pipe",
    "webp": "webp_pipe",
}
_PNM = {b"1": "pbm_pipe", b"4": "pbm_pipe", b"2": "pgm_pipe", b"5": "pgm_pipe", b"3": "ppm_pipe", b"6": "ppm_pipe"}
_GAMMA = 2.2


def decode(data: bytes, key: str, refusal: InputError, max_pixels: int) -> tuple[Image, Problem]:
    """Decode the first image in `data` strictly; what FFmpeg calls damaged is refused.

    Args:
        data: the whole file.
        key: its format, a key of `maskbatch.sources.sniff.Kind`.
        refusal: what the first reader said of the file.
        max_pixels: images with more pixels are refused by their header.

    Returns:
        H×W×3 uint8 BGR as stored, and what to say of it: a remark where the first reader cannot read such files at all, ``partial``
        where it found them damaged, since FFmpeg does not tell of everything that is missing. Floating-point samples are
        shown from 0 to 1 with a gamma of 2.2; brighter ones are white.

    Raises:
        InputError: `refusal` itself, or ``too_large``.
    """
    demuxer = _PNM.get(data[1:2]) if key == "ppm" else _DEMUXERS.get(key)
    if demuxer is None:
        raise refusal
    try:
        with av.open(io.BytesIO(data), "r", format=demuxer, options={"err_detect": "explode"}) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            stream.thread_count = 1
            check_pixels(stream.width, stream.height, max_pixels)
            frame = next(iter(container.decode(stream)))
            image = (
                _tone_mapped(frame)
                if "f32" in frame.format.name
                else np.ascontiguousarray(frame.to_ndarray(format="bgr24"), np.uint8)
            )
    except InputError as error:
        raise (error if error.code == "too_large" else refusal) from error
    except (FFmpegError, IndexError, StopIteration, ValueError, MemoryError) as error:
        raise refusal from error
    if refusal.code == "unsupported":
        return image, Problem("ok", None, "decoded by FFmpeg")
    return image, Problem(
        "partial",
        refusal.code,
        f"decoded by FFmpeg alone, so parts may be missing; the first reader says: {refusal.message}",
    )


def _tone_mapped(frame: av.VideoFrame) -> Image:
    planes = frame.to_ndarray(format="gbrpf32le")  # despite its name, PyAV gives the channels as R, G, B
    shown = np.clip(np.nan_to_num(planes, nan=0.0), 0.0, 1.0) ** (1 / _GAMMA) * 255
    return np.asarray(cv2.cvtColor(np.rint(shown).astype(np.uint8), cv2.COLOR_RGB2BGR), np.uint8)
