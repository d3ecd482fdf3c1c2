"""Annotated copies of the videos: H.264 in MP4, at the time stamps and in the size of the source, with its sound.

The frames come from the same reader as in the scan, so that a frame's ordinal means the same, broken files included.
Between two samples the boxes of the first are held. What a redaction hides is a matter of its own (`maskbatch.draw.search`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
import cv2
import numpy as np
import pyarrow as pa
from av.video.reformatter import Colorspace, VideoReformatter

from maskbatch.config import Limits, Sampling
from maskbatch.draw.cover import Cover
from maskbatch.draw.faces import Face, Style, show_faces
from maskbatch.draw.images import by_frame
from maskbatch.draw.paths import safe_output_path
from maskbatch.draw.search import cover_of_rows
from maskbatch.draw.sound import Clock, Sound
from maskbatch.errors import InputError, OutputError
from maskbatch.sources.videos.containers import FREE_CLOCKS, OpenVideo
from maskbatch.sources.videos.packets import packet_index
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.sources.videos.sampling import RunningSampler, chosen
from maskbatch.storage.atomic import written_whole
from maskbatch.types import Frame, Image, Piece, Source

_FULL_SIZE = 1 << 20
"""As the reader's `cover`: its small image then is the full one."""

_KEY_FRAMES_S = 10.0
"""Key frames are mostly closer than this."""

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
    cover: Cover | None = None,
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
        cover: with `style.redact`, what to hide, from `search_faces`. Without it only the faces of the rows and the ways between
            them are hidden: of people who come and go between two samples nothing is known then.

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
        if cover is None:
            cover = cover_of_rows(rows, _step_s(sampling), landmarks=style.part == "eyes") if style.redact else None
        hidden = (cover or Cover.nothing()).walk()
        # What the cover does not know is where the last sample's boxes are drawn; between samples nobody need be there any more.
        boxes_only = replace(style, redact=False)
        with _Writer(temporary, source, limits, first, sampling, style.mute) as writer:
            for frame, faces in _shown(_chain(first, frames), by_frame(rows), is_sample):
                image = frame.image if frame.image.flags.writeable else frame.image.copy()
                if style.redact:
                    show_faces(image, (), replace(style, boxes=False), hidden.at(frame.time_s or 0.0))
                show_faces(image, faces, boxes_only)
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
    index = packet_index(source, limits, assume_fps=sampling.assume_fps)
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


def _shown(
    frames: Iterator[Frame], rows: dict[int, list[dict[str, Any]]], is_sample: Callable[[Frame], bool]
) -> Iterator[tuple[Frame, Sequence[Face]]]:
    """Each frame with the faces to draw: those of the last sample."""
    faces: list[Face] = []
    for frame in frames:
        found = rows.get(frame.ordinal if frame.ordinal is not None else -1)
        if found is not None or is_sample(frame):
            faces = [Face.of(row) for row in found or []]
        yield frame, faces


def _step_s(sampling: Sampling) -> float:
    """The time between two samples, as far as the settings tell."""
    if sampling.mode == "keyframes":
        return _KEY_FRAMES_S
    step = sampling.every_s if sampling.mode == "every" else 0.0
    return max(step, sampling.gate_refresh_s if sampling.gate == "motion" else 0.0)


class _Writer:
    """Encodes frames, and muxes the sound up to them; a context manager that completes the file."""

    def __init__(
        self, path: Path, source: Source, limits: Limits, first: Frame, sampling: Sampling, mute: bool
    ) -> None:
        assert first.time_base is not None
        self._time_base = first.time_base
        self._reformatter = VideoReformatter()
        self._last = -1
        self._sound: Sound | None = None
        self._source = OpenVideo(source, limits)
        try:
            self._out: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
            start = Fraction(first.pts or 0) * self._time_base
            # A file that begins a moment after 0 does so because its sound begins first.
            free = self._source.format in FREE_CLOCKS or start < 0 or start > 1 or sampling.start_s > 0
            self._clock = Clock(start if free else Fraction(0))
            self._stream = self._video_stream(first)
            self._sound = None if mute else Sound.of(self._source, self._out, self._clock)
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
