"""Videos: cutting them into pieces, and reading the frames of a piece.

What is read does not depend on the cut. The packet index says which frames a file holds and which of them are sampled; a
piece reads those between its two time stamps. Within it the decoder starts afresh at every key frame (of a closed GOP), also
where it could read on, so that a frame has met the same packets before it however the file is cut. Only what a sampled frame
needs is decoded: packets behind the last sampled frame of a GOP are skipped, GOPs without one are jumped over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import av
import av.error
import numpy as np

from maskbatch.config import Limits, Sampling
from maskbatch.sources.videos.containers import OpenVideo
from maskbatch.sources.videos.frames import DisplayMatrix, FrameConverter, pixel_aspect
from maskbatch.sources.videos.gops import Packets, Run, patient, runs, skips_nonref
from maskbatch.sources.videos.motion import MotionGate
from maskbatch.sources.videos.packets import MAX_FAILURES, Bools, ignore_tick, packet_index
from maskbatch.sources.videos.sampling import RunningSampler, bounds, chosen
from maskbatch.types import Frame, Piece, PieceResult, Problem, Source, with_range

MIN_PIECES = 64
MIN_PIECE_S = 10.0
"""A video is cut into at least this many pieces, unless they were shorter than this."""


def split_video(
    source: Source, sampling: Sampling, unit_seconds: float, limits: Limits, tick: Callable[[], None] = ignore_tick
) -> tuple[Piece, ...]:
    """Cut a video at key frames into time ranges of about `unit_seconds`, shorter ones where the video is short.

    The first piece begins at the beginning and the last ends at the end (open bounds), so that together they hold every frame
    once. A short video, one without usable time stamps, and a raw stream are one piece. The cut depends only on the file,
    `unit_seconds`, ``--start``/``--end`` (parts that are not read are not cut) and the gate's refresh.

    Raises:
        InputError: the file is not a video that can be read.
    """
    whole = Piece(source, 0, 1)
    index = packet_index(source, limits, tick, sampling.assume_fps)
    if not index.ordered or not len(index.times):
        return (whole,)
    start, end = bounds(sampling, index.time_base, index.origin)
    first = max(int(index.times[0]), start if start is not None else int(index.times[0]))
    last = min(int(index.times[-1]) + 1, end if end is not None else int(index.times[-1]) + 1)
    # Short videos are cut finely too, or a single one would keep a single core busy; below some seconds opening the file costs more.
    length_s = float((last - first) * index.time_base)
    shortest_s = MIN_PIECE_S
    if sampling.gate == "motion":  # a piece reads the rest of the gate's window before it too
        shortest_s = max(shortest_s, 4 * sampling.gate_refresh_s)
    step = max(1, round(min(unit_seconds, max(shortest_s, length_s / MIN_PIECES)) / index.time_base))
    cuts: list[int] = []
    previous = first
    for at in index.pts[index.keys].tolist():
        # A rest of less than half a unit stays with the piece before it.
        if at - previous >= step and last - at >= step // 2:
            cuts.append(at)
            previous = at
    edges: list[int | None] = [None, *cuts, None]
    return tuple(with_range(whole, i, len(edges) - 1, a, b) for i, (a, b) in enumerate(pairwise(edges)))


class VideoReader:
    """The sampled frames of one piece, in order of presentation; a context manager and an iterable of `Frame`.

    The image of a frame is no larger than the detector needs: its long side is `cover` pixels or that of the original,
    whichever is less. Frames that the motion gate holds back come with ``skip_detection`` set.
    Bounded memory: one small image per frame, a decoded frame while somebody holds it, and 26 bytes per packet of the file.
    """

    def __init__(
        self, piece: Piece, sampling: Sampling, limits: Limits, cover: int, tick: Callable[[], None] = ignore_tick
    ) -> None:
        """Nothing is opened yet. `tick` is called every few packets.

        Raises (from ``__enter__``):
            InputError: the file cannot be opened, or is not a video.
        """
        self._piece = piece
        self._sampling = sampling
        self._limits = limits
        self._tick = tick
        self._cover = cover
        self._converter = FrameConverter(cover)
        self._video: OpenVideo | None = None
        self._packets: Packets | None = None
        self._size: tuple[int, int] | None = None
        self._read = 0
        self._failed = 0
        self._total = 0
        self._damaged = 0
        self._produced = 0
        self._gave_up = False
        self._missing_at_end = False

    def __enter__(self) -> Self:
        self._index = packet_index(self._piece.source, self._limits, self._tick, self._sampling.assume_fps)
        self._open()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._video is not None:
            self._video.close()

    def __iter__(self) -> Iterator[Frame]:
        frames = self._ranged() if self._index.ordered else self._sequential()
        sampling = self._sampling
        gate = None
        if sampling.gate == "motion":
            gate = MotionGate(round(Fraction(sampling.gate_refresh_s) / self._index.time_base))
        start = self._piece.start_pts
        for ordinal, pts, picture in frames:
            frame = self._frame(ordinal, pts, picture)
            if gate is not None:
                frame.skip_detection = not gate.lets_through(frame.image, pts)
            if start is not None and pts < start:
                continue  # only for the gate, whose window began in the piece before
            if self._size is None:
                self._size = (frame.width, frame.height)
            self._damaged += bool(picture.is_corrupt)
            self._produced += 1
            self._read += not frame.skip_detection
            yield frame

    def fill(self, result: PieceResult) -> None:
        """Write size, counts, duration, start of recording and problems of the piece that was read into `result`."""
        index = self._index
        if self._size is None and self._video is not None:
            codec = self._video.stream.codec_context
            self._size = self._converter.displayed(codec.width, codec.height)
        if self._size is not None:
            result.width, result.height = self._size
        if not index.ordered and not self._total and not self._failed:
            self._failed = len(index)  # packets, of which nothing came out: there is no key frame to begin at
        # Fields may be packets of their own, two to a frame. Fewer frames than that, and the decoder was silent about some.
        shown = len(index.order)
        silent = not index.ordered and not self._gave_up and 2 * self._total < shown - 1 and self._total > 0
        if silent:
            self._failed += shown - self._total
            self._total = shown
        result.frames_read = self._read
        result.frames_failed = self._failed
        result.frames_skipped = max(self._total, self._failed + self._read) - self._read - self._failed
        if index.lead and self._piece.part == 0:
            result.frames_failed += index.lead
            verb = (
                "frame before the first key frame cannot"
                if index.lead == 1
                else "frames before the first key frame cannot"
            )
            result.note(Problem("ok", None, f"{index.lead} {verb} be decoded"))
        result.duration_s = index.duration_s()
        result.started_at = index.started_at
        if index.problem is not None:
            result.note(index.problem)
        if index.others is not None and self._sampling.video_stream != "all":
            result.note(index.others)
        if silent:
            message = f"the decoder gave {shown - self._failed:,} frames for the {shown:,} of the file"
            result.note(Problem("partial", "corrupt", message))
        if self._failed:
            if self._produced == 0 and self._piece.parts == 1:
                why = "" if len(index.keys) else ": the recording holds no key frame"
                result.note(Problem("error", "corrupt", f"none of the frames could be decoded{why}"))
            else:
                result.note(Problem("partial", "corrupt", "some frames could not be decoded"))
        if self._gave_up:
            message = f"a passage was given up after {MAX_FAILURES} undecodable frames in a row"
            result.note(Problem("partial", "corrupt", message))
        if self._damaged:
            result.note(Problem("partial", "corrupt", "some frames are damaged"))

    def _open(self) -> None:
        if self._video is not None:
            self._video.close()
        self._video = OpenVideo(self._piece.source, self._limits)
        self._converter = FrameConverter(self._cover, pixel_aspect(self._video.stream))
        self._packets = Packets(self._video, self._index, self._tick)
        self._lean = skips_nonref(self._video.stream.codec_context)

    def _frame(self, ordinal: int, pts: int, picture: Any) -> Frame:
        matrix = DisplayMatrix.of(picture)
        width, height = matrix.size(*self._converter.displayed(picture.width, picture.height))
        pictures = self._converter
        return Frame(
            image=pictures.small(picture, matrix),
            width=width,
            height=height,
            load_full=lambda: pictures.full(picture, matrix),
            ordinal=ordinal,
            pts=pts,
            origin=self._index.origin,
            time_base=self._index.time_base,
        )

    # -- files with a sound index ------------------------------------------------------------------------------------

    def _ranged(self) -> Iterator[tuple[int, int, Any]]:
        """Ordinal, time stamp and decoded frame of the sampled frames, from the GOPs that hold them."""
        index, piece = self._index, self._piece
        times = index.times
        low = 0 if piece.start_pts is None else int(np.searchsorted(times, piece.start_pts))
        high = len(times) if piece.stop_pts is None else int(np.searchsorted(times, piece.stop_pts))
        self._total = high - low
        is_key = np.zeros(len(index), bool)
        is_key[index.keys] = True
        taken = chosen(times, is_key[index.order], index.time_base, index.origin, self._sampling)
        warm = low
        if self._sampling.gate == "motion" and low < high:
            gate = MotionGate(round(Fraction(self._sampling.gate_refresh_s) / index.time_base))
            warm = int(np.searchsorted(times, gate.window_start(int(times[low]))))
        taken[:warm] = False
        taken[high:] = False
        wanted = np.zeros(len(index), bool)
        wanted[index.order[taken]] = True
        done = np.zeros(len(times), bool)
        broken: set[int] = set()
        for run in runs(index, wanted):
            for picture in self._decode(run, wanted, broken):
                ordinal = int(np.searchsorted(times, picture.pts)) if picture.pts is not None else len(times)
                if ordinal < len(times) and times[ordinal] == picture.pts and not done[ordinal]:
                    done[ordinal] = True
                    if taken[ordinal]:
                        yield ordinal, int(picture.pts), picture
        lost = taken & ~done
        for position in broken:
            ordinal = int(np.searchsorted(times, index.pts[position]))
            if index.shown[position] and not done[ordinal]:
                lost[ordinal] = True
        self._failed = int(np.count_nonzero(lost[low:high]))

    def _decode(self, run: Run, wanted: Bools, broken: set[int]) -> Iterator[Any]:
        """All frames that come out of one start of the decoder. Positions of undecodable packets go to `broken`."""
        assert self._packets is not None
        assert self._video is not None
        index, codec = self._index, self._video.stream.codec_context
        first_gop = int(index.gop[run.first])
        key_pts = int(index.pts[run.first])
        failures = 0
        skipping = False
        lean = self._lean
        codec.flush_buffers()
        for position, packet in self._packets.between(run.first, run.last):
            if not run.leads and index.gop[position] == first_gop and index.pts[position] < key_pts:
                continue
            skip = lean and not wanted[position]
            if skip != skipping:
                codec.skip_frame = "NONREF" if skip else "DEFAULT"
                skipping = skip
            try:
                frames = codec.decode(packet)
            except (av.error.FFmpegError, ValueError):
                broken.add(position)
                failures += 1
                if failures >= MAX_FAILURES:
                    self._gave_up = True
                    break
                continue
            failures = 0
            yield from frames
        rest: list[Any] = []
        with contextlib.suppress(
            av.error.FFmpegError, ValueError
        ):  # what does not come out is missed by its time stamp
            rest = codec.decode(None)
        yield from rest
        codec.flush_buffers()
        if skipping:
            codec.skip_frame = "DEFAULT"

    # -- files that can only be read from beginning to end -----------------------------------------------------------

    def _sequential(self) -> Iterator[tuple[int, int, Any]]:
        index = self._index
        sampler = RunningSampler(index.time_base, index.origin, self._sampling)
        ordinal = -1
        last = -index.frame_span
        for picture in self._decode_all():
            ordinal += 1
            if index.stamped:
                pts = picture.pts if picture.pts is not None else last + index.frame_span
            else:
                pts = int(index.pts[ordinal]) if ordinal < len(index.pts) else last + index.frame_span
            last = pts
            self._total = ordinal + 1 + self._failed
            if sampler.takes(pts, bool(picture.key_frame)):
                yield ordinal, pts, picture
        self._total = ordinal + 1 + self._failed

    def _decode_all(self) -> Iterator[Any]:
        assert self._video is not None
        codec = self._video.stream.codec_context
        failures = seen = 0
        demux = patient(self._video)
        for packet in demux:
            self._tick()
            if packet.size == 0:
                continue
            seen += 1
            try:
                frames = codec.decode(packet)
            except (av.error.FFmpegError, ValueError):
                self._failed += 1
                failures += 1
                if failures >= MAX_FAILURES:
                    self._gave_up = True
                    self._failed += max(0, len(self._index) - seen)
                    break
                continue
            failures = 0
            yield from frames
        try:
            yield from codec.decode(None)
        except (av.error.FFmpegError, ValueError):
            self._failed += 1
