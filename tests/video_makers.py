"""Makes real video files for tests with FFmpeg through PyAV.

Every frame carries its number as a row of black and white blocks, so that a test can read from a decoded picture which frame
it is. Nothing here decides what is right; that is for the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
BITS = 12


def numbered(number: int, width: int = 160, height: int = 120) -> Image:
    """A BGR picture of a textured background whose lower half is the number in `BITS` blocks, highest bit left."""
    ys, xs = np.mgrid[0:height, 0:width]
    grey = (xs * 3 + ys * 2 + number * 5) % 160 + 40
    image = np.stack([grey, grey // 2 + 40, 200 - grey // 2], axis=2).astype(np.uint8)
    half, block = height // 2, width // BITS
    for bit in range(BITS):
        value = 235 if number >> (BITS - 1 - bit) & 1 else 20
        image[half:, bit * block : (bit + 1) * block] = value
    return image


def number_in(image: Image) -> int:
    """The number in a picture that `numbered` made, whatever was done to it by coding and scaling."""
    height, width = image.shape[:2]
    row = image[height * 3 // 4].astype(int).sum(axis=1)
    block = (width * (160 // BITS) / 160) if width != 160 else width // BITS
    number = 0
    for bit in range(BITS):
        number = number << 1 | int(row[int((bit + 0.5) * block)] > 3 * 128)
    return number


def write_video(
    path: Path,
    frames: int = 60,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    rate: int = 25,
    size: tuple[int, int] = (160, 120),
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    turn: tuple[int, bool, bool] | None = None,
    metadata: dict[str, str] | None = None,
    picture: Callable[[int], Image] | None = None,
) -> Path:
    """Write a video of numbered pictures.

    Args:
        pts: time stamps in `time_base`, ascending (variable frame rate); by default one per frame at `rate`.
        turn: counter-clockwise degrees, then mirrored left-right and upside down, as the display matrix.
        picture: makes the BGR picture of a frame; by default `numbered`.
    """
    with av.open(str(path), "w", options=container or {}) as output:
        output.metadata.update(metadata or {})
        stream: Any = output.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.options = options or {}
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1], vflip=turn[2])
        for packet in encoded(stream, frames, rate, size, pts, time_base, picture):
            output.mux(packet)
    return path


def encoded(
    encoder: Any,
    frames: int,
    rate: int,
    size: tuple[int, int],
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    picture: Callable[[int], Image] | None = None,
    first: int = 0,
) -> Iterable[Any]:
    """Packets of numbered pictures from an open encoder or stream."""
    for i in range(first, first + frames):
        image = numbered(i, *size) if picture is None else picture(i)
        frame = av.VideoFrame.from_ndarray(image, "bgr24")
        frame.pts = i if pts is None else pts[i]
        frame.time_base = time_base or Fraction(1, rate)
        yield from encoder.encode(frame)
    yield from encoder.encode()


def write_resolution_change(path: Path, sizes: Sequence[tuple[int, int]], frames_each: int = 25) -> Path:
    """One H.264 stream (MPEG-TS) whose pictures change their size at key frames."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height = sizes[0]
        stream.pix_fmt = "yuv420p"
        stream.options = {"bf": "0"}
        for part, size in enumerate(sizes):
            encoder: Any = stream
            if part:
                encoder = av.CodecContext.create("libx264", "w")
                encoder.width, encoder.height = size
                encoder.pix_fmt = "yuv420p"
                encoder.time_base = Fraction(1, 25)
                encoder.framerate = 25
                encoder.options = {"bf": "0"}
            frames = frames_each
            for packet in encoded(encoder, frames, 25, size, first=part * frames_each):
                packet.stream = stream
                output.mux(packet)
    return path


def cut_off(path: Path, share: float, to: Path) -> Path:
    """The first `share` of a file's bytes."""
    data = path.read_bytes()
    to.write_bytes(data[: int(len(data) * share)])
    return to


def damage(path: Path, to: Path, packets: Sequence[int]) -> Path:
    """A copy in which the payload of some packets (by position) is overwritten with zeros."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        found = [p for p in container.demux(container.streams.video[0]) if p.size]
        for position in packets:
            packet = found[position]
            assert packet.pos is not None
            data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    to.write_bytes(bytes(data))
    return to


def decode_all(path: Path) -> list[tuple[int | None, Image]]:
    """Time stamp and full picture of every frame that a plain sequential decode gives, in its order."""
    frames: list[tuple[int | None, Image]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                decoded = stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                continue
            frames += [(frame.pts, frame.to_ndarray(format="bgr24")) for frame in decoded]
    return frames
