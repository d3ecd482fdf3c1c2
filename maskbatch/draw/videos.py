"""Annotated copies of the videos: H.264 in MP4, at the time stamps and in the size of the source, with its sound.

The frames come from the same reader as in the scan, so that a frame's ordinal means the same, broken files included.
Between two samples the boxes of the first are held; a redaction covers the faces of both samples and the way between.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
import cv2
import numpy as np
import pyarrow as pa
from av.stream import Discard
from av.video.reformatter import Colorspace, VideoReformatter

from maskbatch.config import Limits, Sampling
from maskbatch.draw.faces import Box, Face, Style, show_faces
from maskbatch.draw.images import by_frame
from maskbatch.draw.paths import safe_output_path
from maskbatch.errors import InputError, OutputError
from maskbatch.sources.videos.containers import FREE_CLOCKS, OpenVideo
from maskbatch.sources.videos.packets import packet_index
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.sources.videos.sampling import RunningSampler, chosen
from maskbatch.storage.atomic import written_whole
from maskbatch.types import Frame, Image, Piece, Source

_FULL_SIZE = 1 << 20
"""As the reader's `cover`: its small image then is the full one."""

_CARRIED_BY_MP4 = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_CRF = "21"
_BT709 = 1


def annotate_video(
    source: Source,
    rows: pa.Table,
    out_dir: str | os.PathLike[str],
    sampling: Sampling | None = None,
    style: Style | None = None,
    limits: Limits | None = None,
    tick: Callable[[], None] = lambda: None,
    name: str = "",
) -> Path:
    """Write one video with its faces shown, also if it has none.

    Args:
        source: a video.
        rows: its rows of the results, in their order.
        out_dir: root of the output tree; the file is named like `source.name`, with ``.mp4`` added unless it is one.
        sampling: as in the scan: it says how long boxes are held, and ``start_s``/``end_s`` what part is written.
        style: what is drawn.
        limits: as in the scan.
        tick: called for every frame.
        name: draw it under this name in place of its own.

    Redaction hides the faces that were found. Of people who come and go between two samples nothing is known: where
    nobody may be recognised, scan all frames (``Sampling(mode="all")``).

    Returns:
        The path that was written. Frames have the source's presentation times (those of MPEG streams, whose clock
        starts anywhere, begin at 0), are upright, and get a repeated row or column where a side is odd. Sound is
        copied, or converted to AAC where MP4 cannot hold it; sound that cannot be decoded is left out.

    Raises:
        InputError: the video cannot be read (any more), or has no frame.
        OutputError: the copy cannot be written.
    """
    sampling, style, limits = sampling or Sampling(), style or Style(), limits or Limits()
    target = safe_output_path(Path(out_dir), video_output_name(name or source.name), source)
    every = replace(sampling, mode="all", gate="none")
    with (
        VideoReader(Piece(source, 0, 1), every, limits, _FULL_SIZE, tick) as reader,
        written_whole(target) as temporary,
    ):
        frames = iter(reader)
        first = next(frames, None)
        if first is None:
            raise InputError("corrupt", "no frame of the video can be decoded")
        is_sample = _is_sample(source, sampling, limits)
        shown = _shown(_chain(first, frames), by_frame(rows), is_sample, _horizon_s(sampling) if style.redact else None)
        with _Writer(temporary, source, limits, first, sampling) as writer:
            for frame, faces, extra_redactions in shown:
                image = frame.image if frame.image.flags.writeable else frame.image.copy()
                show_faces(image, faces, style, extra_redactions)
                writer.write(image, frame.pts or 0)
    return target


def video_output_name(name: str) -> str:
    """``a/b.mp4`` → ``a/b.mp4``, ``a/b.avi`` → ``a/b.avi.mp4``."""
    return name if name.lower().endswith((".mp4", ".m4v")) else f"{name}.mp4"


def _chain(first: Frame, rest: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from rest


def _is_sample(source: Source, sampling: Sampling, limits: Limits) -> Callable[[Frame], bool]:
    """Tells which frames the scan looked at; with the motion gate on, which it may have looked at."""
    index = packet_index(source, limits)
    if index.ordered:
        keys = np.zeros(len(index.pts), bool)
        keys[index.keys] = True
        taken = chosen(index.times, keys[index.order], index.time_base, index.origin, sampling)
        return lambda frame: frame.ordinal is not None and frame.ordinal < len(taken) and bool(taken[frame.ordinal])
    # Without an index there is no telling which frames are key frames: then those with rows are the samples.
    if sampling.mode == "keyframes":
        return lambda frame: False
    sampler = RunningSampler(index.time_base, index.origin, sampling)
    return lambda frame: sampler.takes(frame.pts or 0, False)


Shown = tuple[Frame, Sequence[Face], Sequence[Box]]


def _horizon_s(sampling: Sampling) -> float:
    """How long before a sample its faces may already be in the image without having been looked for."""
    if sampling.mode == "keyframes":
        return float("inf")
    step = sampling.every_s if sampling.mode == "every" else 0.0
    return 1.5 * max(step, sampling.gate_refresh_s if sampling.gate == "motion" else 0.0) + 0.1


def _shown(
    frames: Iterator[Frame],
    rows: dict[int, list[dict[str, Any]]],
    is_sample: Callable[[Frame], bool],
    horizon_s: float | None,
) -> Iterator[Shown]:
    """Each frame with the faces to draw and, where there is a horizon, the areas to blur besides.

    The ordinals of the samples with faces are known beforehand, so the next faces are too, without reading ahead.
    """
    upcoming = deque(sorted(rows))
    faces: list[Face] = []
    for frame in frames:
        ordinal = frame.ordinal if frame.ordinal is not None else -1
        while upcoming and upcoming[0] <= ordinal:
            upcoming.popleft()
        found = rows.get(ordinal)
        sampled = found is not None or is_sample(frame)
        if sampled:
            faces = [Face.of(row) for row in found or []]
        # On a sample itself the faces are where they were found; between samples they are on their way.
        extra_redactions: list[Box] = []
        if horizon_s is not None and not sampled:
            coming = rows[upcoming[0]] if upcoming else []
            near = bool(coming) and (coming[0]["time_s"] or 0.0) - (frame.time_s or 0.0) <= horizon_s
            extra_redactions = _motion_hulls(faces, [Face.of(row) for row in coming] if near else [])
        yield frame, faces, extra_redactions


def _motion_hulls(before: Sequence[Face], after: Sequence[Face]) -> list[Box]:
    """What faces may cover between two samples: those of the later one, and the hull of each pair that can be one person."""
    boxes = [_ceil_box(face.x1, face.y1, face.x2, face.y2) for face in after]
    for a, b in product(before, after):
        side = max(a.x2 - a.x1, a.y2 - a.y1, b.x2 - b.x1, b.y2 - b.y1)
        far = max(abs(a.x1 + a.x2 - b.x1 - b.x2), abs(a.y1 + a.y2 - b.y1 - b.y2)) / 2
        same = a.track is not None and a.track == b.track
        if same or far <= 3 * side:
            boxes.append(_ceil_box(min(a.x1, b.x1), min(a.y1, b.y1), max(a.x2, b.x2), max(a.y2, b.y2)))
    return boxes


def _ceil_box(x1: float, y1: float, x2: float, y2: float) -> Box:
    return int(x1), int(y1), int(np.ceil(x2)), int(np.ceil(y2))


@dataclass(slots=True)
class _Clock:
    """From the source's time to the copy's: the same, but from 0 on where the source's starts later or before 0."""

    shift_s: Fraction

    def units(self, pts: int, time_base: Fraction) -> int:
        return pts - round(self.shift_s / time_base)


class _Writer:
    """Encodes frames, and muxes the sound up to them; a context manager that completes the file."""

    def __init__(self, path: Path, source: Source, limits: Limits, first: Frame, sampling: Sampling) -> None:
        assert first.time_base is not None
        self._time_base = first.time_base
        self._reformatter = VideoReformatter()
        self._last = -1
        self._sound: _Sound | None = None
        self._source = OpenVideo(source, limits)
        try:
            self._out: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
            start = Fraction(first.pts or 0) * self._time_base
            # A file that begins a moment after 0 does so because its sound begins first.
            free = self._source.format in FREE_CLOCKS or start < 0 or start > 1 or sampling.start_s > 0
            self._clock = _Clock(start if free else Fraction(0))
            self._stream = self._video_stream(first)
            self._sound = _Sound.of(self._source, self._out, self._clock)
        except BaseException:
            self._source.close()
            raise

    def _video_stream(self, first: Frame) -> Any:
        codec = self._source.stream.codec_context
        height, width = first.image.shape[:2]
        self._size = (width + width % 2, height + height % 2)
        rate = self._source.stream.average_rate or Fraction(25)
        stream = self._out.add_stream("libx264", rate=min(Fraction(rate), Fraction(240)))
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        # Without B-frames the decoding times are the presentation times, and nothing has to be shifted.
        stream.codec_context.options = {"crf": _CRF, "preset": "veryfast", "bf": "0"}
        stream.codec_context.time_base = self._time_base
        stream.time_base = self._time_base
        stream.codec_context.thread_count = 1
        aspect = codec.sample_aspect_ratio
        if aspect and aspect > 0:
            turned = (width, height) != (codec.width, codec.height) and (height, width) == (codec.width, codec.height)
            stream.codec_context.sample_aspect_ratio = 1 / Fraction(aspect) if turned else Fraction(aspect)
        # The reader decoded with the matrix that the source names, or with that of BT.601 where it names none; the same
        # matrix and the same name (or none) give the same colours in the same player.
        self._matrix = Colorspace.ITU709 if int(codec.colorspace) == _BT709 else Colorspace.ITU601
        if int(codec.colorspace) == _BT709:
            stream.codec_context.colorspace = _BT709
            stream.codec_context.color_primaries = codec.color_primaries
            stream.codec_context.color_trc = codec.color_trc
        return stream

    def write(self, image: Image, pts: int) -> None:
        """Append a frame of the first one's size; another size (a stream may change it) is scaled to it."""
        width, height = self._size
        if image.shape[1] + image.shape[1] % 2 != width or image.shape[0] + image.shape[0] % 2 != height:
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        below, right = height - image.shape[0], width - image.shape[1]
        if below or right:
            image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame = self._reformatter.reformat(frame, format="yuv420p", dst_colorspace=self._matrix, threads=1)
        # Players want rising time stamps, which a damaged or joined source may not have.
        self._last = max(self._clock.units(pts, self._time_base), self._last + 1)
        frame.pts = self._last
        frame.time_base = self._time_base
        with _as_output_error():
            self._out.mux(self._stream.encode(frame))
            if self._sound is not None:
                self._sound.mux_until(self._last * self._time_base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with _as_output_error():
                    self._out.mux(self._stream.encode(None))
                    if self._sound is not None:
                        self._sound.mux_until((self._last + 1) * self._time_base + Fraction(1, 4))
                        self._sound.finish()
            with _as_output_error():
                self._out.close()
        finally:
            self._source.close()


@contextmanager
def _as_output_error() -> Iterator[None]:
    """FFmpeg's errors while writing, as what they are for a person; those of the file system are translated further out."""
    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, error.strerror) from error
        raise OutputError(f"the annotated video cannot be encoded: {error}") from error


class _Sound:
    """The first audio stream of the source, copied or converted, read only as far as the images have come."""

    def __init__(self, source: OpenVideo, into: Any, stream: Any, clock: _Clock) -> None:
        self._into = into
        self._from = stream
        self._clock = clock
        self._copied = stream.codec_context.codec.canonical_name in _CARRIED_BY_MP4
        self._target = (
            into.add_stream_from_template(stream)
            if self._copied
            else into.add_stream("aac", rate=stream.codec_context.sample_rate)
        )
        self._packets: Iterator[Any] = source.container.demux(stream)
        self._held: Any = None
        self._last_dts: int | None = None
        self._samples = 0

    @classmethod
    def of(cls, source: OpenVideo, into: Any, clock: _Clock) -> _Sound | None:
        """The sound of a source, None where there is none that can be carried over."""
        streams = source.container.streams.audio
        if not streams or streams[0].codec_context is None or not streams[0].codec_context.sample_rate:
            return None
        stream = streams[0]
        stream.discard = Discard.default
        source.stream.discard = Discard.all
        try:
            return cls(source, into, stream, clock)
        except (av.error.FFmpegError, ValueError):
            return None

    def mux_until(self, time_s: Fraction) -> None:
        """Write the packets that begin before a time of the copy."""
        while True:
            packet = self._held or self._next()
            self._held = None
            if packet is None:
                return
            begins = self._clock.units(packet.pts, packet.time_base) * packet.time_base
            if begins >= time_s:
                self._held = packet
                return
            if begins > -1:  # sound long before the first image belongs to a part that is not written
                self._write(packet)

    def _next(self) -> Any:
        """The next packet with a time stamp; a damaged rest of the sound ends it."""
        try:
            for packet in self._packets:
                if packet.size and packet.pts is not None:
                    return packet
        except (av.error.FFmpegError, OSError):
            self._packets = iter(())
        return None

    def _write(self, packet: Any) -> None:
        if not self._copied:
            self._convert(packet)
            return
        shift = self._clock.units(0, packet.time_base)
        dts = (packet.dts if packet.dts is not None else packet.pts) + shift
        if self._last_dts is not None and dts <= self._last_dts:
            return  # the muxer wants rising time stamps
        self._last_dts = dts
        packet.pts, packet.dts = max(packet.pts + shift, dts), dts
        packet.stream = self._target
        self._into.mux(packet)

    def _convert(self, packet: Any) -> None:
        try:
            frames = self._from.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            return
        for frame in frames:
            # The encoder wants time stamps without overlap, in samples.
            rate = frame.sample_rate
            at = round(self._clock.units(frame.pts, frame.time_base) * frame.time_base * rate) if frame.pts else 0
            frame.time_base = Fraction(1, rate)
            frame.pts = max(at, self._samples)
            self._samples = frame.pts + frame.samples
            self._into.mux(self._target.encode(frame))

    def finish(self) -> None:
        """Write what the encoder holds back."""
        if not self._copied:
            self._into.mux(self._target.encode(None))
