"""Videos: cutting them into pieces, and reading the frames of a piece.

What is read does not depend on the cut. The packet index says which frames a file holds and which of them are sampled; a
piece reads those between its two time stamps. Within it the decoder starts afresh at every key frame (of a closed GOP), also
where it could read on, so that a frame has met the same packets before it however the file is cut. Only what a sampled frame
needs is decoded: packets behind the last sampled frame of a GOP are passed over, GOPs without one are jumped over.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from maskbatch.config import Limits, Sampling
from maskbatch.errors import InputError
from maskbatch.sources.containers import OpenVideo
from maskbatch.sources.motion import MotionGate
from maskbatch.sources.packets import MAX_FAILURES, PacketIndex, no_tick, packet_index
from maskbatch.sources.sampling import RunningSampler, bounds, chosen
from maskbatch.types import Frame, Image, Piece, PieceResult, Problem, Source, with_range

MIN_PIECES = 32
MIN_PIECE_S = 10.0
"""A video is cut into so many pieces at least, unless they were shorter than this."""

_READ_ON = {"mov": 48, "matroska": 128, "avi": 48}
_READ_ON_UNINDEXED = 1500
"""Packets that are read rather than jumped over: about the cost of a seek, which is dear without an index."""

_PASSES_OVER_NONREF = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video"})
"""Codecs whose decoders leave out frames that no other refers to without any effect on the others."""


def split_video(
    source: Source, sampling: Sampling, unit_seconds: float, limits: Limits, tick: Callable[[], None] = no_tick
) -> tuple[Piece, ...]:
    """Cut a video at key frames into time ranges of about `unit_seconds`, shorter ones where the video is short.

    The first piece begins at the beginning and the last ends at the end (open bounds), so that together they hold every frame
    once. A short video, one without usable time stamps, and a raw stream are one piece. The cut depends only on the file,
    `unit_seconds` and ``--start``/``--end`` (parts that are not read are not cut).

    Raises:
        InputError: the file is no video that can be read.
    """
    whole = Piece(source, 0, 1)
    index = packet_index(source, limits, tick)
    if not index.ordered or not len(index.times):
        return (whole,)
    start, end = bounds(sampling, index.time_base, index.origin)
    first = max(int(index.times[0]), start if start is not None else int(index.times[0]))
    last = min(int(index.times[-1]) + 1, end if end is not None else int(index.times[-1]) + 1)
    # Short videos are cut finely too, or a single one would keep a single core busy; below some seconds opening the file costs more.
    length_s = float((last - first) * index.time_base)
    step = max(1, round(min(unit_seconds, max(MIN_PIECE_S, length_s / MIN_PIECES)) / index.time_base))
    cuts: list[int] = []
    previous = first
    for at in index.pts[index.keys].tolist():
        # A rest of less than half a unit stays with the piece before it.
        if at - previous >= step and last - at >= step // 2:
            cuts.append(at)
            previous = at
    edges: list[int | None] = [None, *cuts, None]
    return tuple(with_range(whole, i, len(edges) - 1, a, b) for i, (a, b) in enumerate(pairwise(edges)))


@dataclass(frozen=True, slots=True)
class _Run:
    """Packets that one start of the decoder reads: positions `first` (a key frame) to `last`, both included."""

    first: int
    last: int
    leads: bool  # whether leading frames behind the first key frame are decoded too


class VideoReader:
    """The sampled frames of one piece, in order of presentation; a context manager and an iterable of `Frame`.

    The picture of a frame is no larger than the detector needs: its long side is `cover` pixels or that of the original,
    whichever is less. Frames that the motion gate holds back come with ``skip_detection`` set.
    Bounded memory: one small picture per frame, a decoded frame while somebody holds it, and 26 bytes per packet of the file.
    """

    def __init__(
        self, piece: Piece, sampling: Sampling, limits: Limits, cover: int, tick: Callable[[], None] = no_tick
    ) -> None:
        """Nothing is opened yet. `tick` is called every few packets.

        Raises (from ``__enter__``):
            InputError: the file cannot be opened, or is no video.
        """
        self._piece = piece
        self._sampling = sampling
        self._limits = limits
        self._tick = tick
        self._pictures = _Pictures(cover)
        self._video: OpenVideo | None = None
        self._packets: _Packets | None = None
        self._size: tuple[int, int] | None = None
        self._read = 0
        self._failed = 0
        self._total = 0
        self._damaged = 0
        self._produced = 0
        self._gave_up = False
        self._missing_at_end = False

    def __enter__(self) -> Self:
        self._index = packet_index(self._piece.source, self._limits, self._tick)
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
            self._size = (codec.width, codec.height)
        if self._size is not None:
            result.width, result.height = self._size
        result.frames_read = self._read
        result.frames_failed = self._failed
        result.frames_skipped = self._total - self._read - self._failed
        result.duration_s = index.duration_s()
        result.started_at = index.started_at
        result.clock_zero_s = float(index.origin * index.time_base)
        if index.problem is not None:
            result.note(index.problem)
        if self._failed:
            if self._produced == 0 and self._piece.parts == 1:
                result.note(Problem("error", "corrupt", "none of the frames could be decoded"))
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
        self._packets = _Packets(self._video, self._index, self._tick)
        self._lean = _passes_over_nonref(self._video.stream.codec_context)

    def _frame(self, ordinal: int, pts: int, picture: Any) -> Frame:
        turn = _Turn.of(picture)
        width, height = turn.size(picture.width, picture.height)
        pictures = self._pictures
        return Frame(
            image=pictures.small(picture, turn),
            width=width,
            height=height,
            load_full=lambda: pictures.full(picture, turn),
            ordinal=ordinal,
            pts=pts,
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
        for run in _runs(index, wanted):
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

    def _decode(self, run: _Run, wanted: np.ndarray[Any, np.dtype[np.bool_]], broken: set[int]) -> Iterator[Any]:
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
        demux = _patient(self._video)
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


def _passes_over_nonref(codec: Any) -> bool:
    """Whether leaving out frames that no other refers to changes no other frame.

    In H.265 "no other" means: of the same temporal layer, so there must be only one (ISO/IEC 23008-2, table 7-1).
    """
    if codec.name != "hevc":
        return codec.name in _PASSES_OVER_NONREF
    extradata = codec.extradata or b""
    if extradata[:1] == b"\x01" and len(extradata) > 21:  # hvcC (ISO/IEC 14496-15, 8.3.3.1.2): numTemporalLayers
        return (extradata[21] >> 3) & 7 == 1
    at = extradata.find(b"\x00\x00\x01\x40\x01")  # a VPS (ISO/IEC 23008-2, 7.3.2.1): vps_max_sub_layers_minus1
    return at >= 0 and len(extradata) > at + 6 and (extradata[at + 6] >> 1) & 7 == 0


def _runs(index: PacketIndex, wanted: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[_Run]:
    """What to decode for the wanted positions: per GOP from its key frame to the last of them.

    Leading frames need the GOP before too; runs that overlap for that reason are one.
    """
    positions = np.flatnonzero(wanted)
    if not len(positions):
        return
    gops = index.gop[positions]
    starts = np.flatnonzero(np.diff(gops, prepend=gops[0] - 1))
    pending: _Run | None = None
    for begin, stop in pairwise([*starts.tolist(), len(positions)]):
        gop = int(gops[begin])
        key = int(index.keys[gop])
        last = int(positions[stop - 1])
        leads = bool((index.pts[positions[begin:stop]] < index.pts[key]).any())
        first = int(index.keys[gop - 1]) if leads and gop > 0 else key
        if pending is not None and leads and first <= pending.last:
            pending = _Run(pending.first, last, pending.leads)
            continue
        if pending is not None:
            yield pending
        pending = _Run(first, last, leads and gop == 0)
    if pending is not None:
        yield pending


class _Packets:
    """The packets of a video by position: reads on where that is near, seeks where it is not."""

    def __init__(self, video: OpenVideo, index: PacketIndex, tick: Callable[[], None]) -> None:
        self._video = video
        self._index = index
        self._tick = tick
        self._read_on = _READ_ON.get(video.format, _READ_ON_UNINDEXED)
        self._demux = _patient(video)
        self._next = 0
        self._held: tuple[int, Any] | None = None

    def between(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """Positions and packets from `first` to `last`, both included. Packets that the index does not know are left out."""
        if not 0 <= first - self._next <= self._read_on:
            self._seek(first)
        for position, packet in self._numbered():
            if position > last:
                self._held = (position, packet)
                self._next = position
                return
            if position >= first:
                yield position, packet
            if position >= last:
                return

    def _numbered(self) -> Iterator[tuple[int, Any]]:
        if self._held is not None:
            held, self._held = self._held, None
            self._next = held[0] + 1
            yield held
        for packet in self._demux:
            if packet.size == 0 or packet.pts is None:
                continue
            position = self._index.position_of(packet.pts, self._next)
            if position is None:
                continue
            self._next = position + 1
            self._tick()
            yield position, packet

    def _seek(self, first: int) -> None:
        """Bring the demuxer to `first` or a little before it."""
        index = self._index
        stream = self._video.stream
        gop = int(index.gop[first])
        self._held = None
        for back in (0, 1, 2, 8):
            key = int(index.keys[max(0, gop - back)])
            try:
                self._video.container.seek(int(index.pts[key]), stream=stream, backward=True)
            except (av.error.FFmpegError, ValueError):
                continue
            self._demux = _patient(self._video)
            found = next(self._numbered(), None)
            if found is not None and found[0] <= first:
                self._held = found
                self._next = found[0]
                return
        self._video.reopen()
        self._demux = _patient(self._video)
        self._next = 0
        self._held = None


def _patient(video: OpenVideo) -> Iterator[Any]:
    """Packets of the video's stream, going on behind damaged places."""
    failures = 0
    while failures < MAX_FAILURES:
        try:
            for packet in video.container.demux(video.stream):
                failures = 0
                yield packet
            return
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError):
            failures += 1


@dataclass(frozen=True, slots=True)
class _Turn:
    """The display matrix of a frame: transposed first, then mirrored (ISO/IEC 14496-12, 8.3.2)."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, picture: Any) -> _Turn:
        for data in picture.side_data:
            if data.type.name == "DISPLAYMATRIX":
                matrix = np.frombuffer(bytes(data), "<i4")
                if len(matrix) < 9:
                    break
                a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
                if abs(b) > abs(a):
                    return cls(True, c < 0, b < 0)
                return cls(False, a < 0, d < 0)
        return cls()

    def size(self, width: int, height: int) -> tuple[int, int]:
        return (height, width) if self.transpose else (width, height)

    def apply(self, image: Image) -> Image:
        if self.transpose:
            image = np.asarray(cv2.transpose(image), np.uint8)
        if self.mirror_x or self.mirror_y:
            code = -1 if self.mirror_x and self.mirror_y else int(self.mirror_x)
            image = np.asarray(cv2.flip(image, code), np.uint8)
        return image


class _Pictures:
    """Decoded frames to BGR; one scaler for the small pictures and one for the full ones (a scaler is dear to make)."""

    def __init__(self, cover: int) -> None:
        self._cover = cover
        self._small = VideoReformatter()
        self._full = VideoReformatter()
        self._lock = threading.Lock()  # `load_full` may be called from another thread

    def small(self, picture: Any, turn: _Turn) -> Image:
        width, height = picture.width, picture.height
        long_side = max(width, height)
        if long_side > self._cover:
            width = max(1, round(width * self._cover / long_side))
            height = max(1, round(height * self._cover / long_side))
        return turn.apply(_to_bgr(self._small, picture, width, height))

    def full(self, picture: Any, turn: _Turn) -> Image:
        with self._lock:
            return turn.apply(_to_bgr(self._full, picture, picture.width, picture.height))


def _to_bgr(reformatter: Any, picture: Any, width: int, height: int) -> Image:
    try:
        converted = reformatter.reformat(
            picture, width=width, height=height, format="bgr24", interpolation=Interpolation.BILINEAR, threads=1
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError("unsupported", f"the pixel format {picture.format.name} cannot be converted") from error
    return np.ascontiguousarray(converted.to_ndarray(), np.uint8)
