"""From the wanted frames of a video to the packets that must be decoded for them, and how those are fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import av
import av.error
import numpy as np

from maskbatch.sources.videos.containers import OpenVideo
from maskbatch.sources.videos.packets import MAX_FAILURES, Bools, PacketIndex

_READ_ON = {"mov": 48, "matroska": 128, "avi": 48}
_READ_ON_UNINDEXED = 1500
"""Packets that are read rather than jumped over: about the cost of a seek, which is expensive without an index."""

_PASSES_OVER_NONREF = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video"})
"""Codecs whose decoders leave out frames that no other refers to without any effect on the others."""


@dataclass(frozen=True, slots=True)
class Run:
    """Packets that one start of the decoder reads: positions `first` (a key frame) to `last`, both included."""

    first: int
    last: int
    leads: bool  # whether leading frames behind the first key frame are decoded too


def skips_nonref(codec: Any) -> bool:
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


def runs(index: PacketIndex, wanted: Bools) -> Iterator[Run]:
    """What to decode for the wanted positions: per GOP from its key frame to the last of them.

    Leading frames need the GOP before too; runs that overlap for that reason are one.
    """
    positions = np.flatnonzero(wanted)
    if not len(positions):
        return
    gops = index.gop[positions]
    starts = np.flatnonzero(np.diff(gops, prepend=gops[0] - 1))
    pending: Run | None = None
    for begin, stop in pairwise([*starts.tolist(), len(positions)]):
        gop = int(gops[begin])
        key = int(index.keys[gop])
        last = int(positions[stop - 1])
        leads = bool((index.pts[positions[begin:stop]] < index.pts[key]).any())
        first = int(index.keys[gop - 1]) if leads and gop > 0 else key
        if pending is not None and leads and first <= pending.last:
            pending = Run(pending.first, last, pending.leads)
            continue
        if pending is not None:
            yield pending
        pending = Run(first, last, leads and gop == 0)
    if pending is not None:
        yield pending


class Packets:
    """The packets of a video by position: reads on where that is near, seeks where it is not."""

    def __init__(self, video: OpenVideo, index: PacketIndex, tick: Callable[[], None]) -> None:
        self._video = video
        self._index = index
        self._tick = tick
        self._read_on = _READ_ON.get(video.format, _READ_ON_UNINDEXED)
        self._demux = patient(video)
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
            self._demux = patient(self._video)
            found = next(self._numbered(), None)
            if found is not None and found[0] <= first:
                self._held = found
                self._next = found[0]
                return
        self._video.reopen()
        self._demux = patient(self._video)
        self._next = 0
        self._held = None


def patient(video: OpenVideo) -> Iterator[Any]:
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
