"""The packet index of a video: which frames a file holds, in what order, and where decoding can start.

One pass of the demuxer (about 3 µs per packet, nothing is decoded) gives the time stamps and key-frame marks of all packets.
From it come the ordinals (rank by presentation time), the sampled frames, the cuts, and the decision to seek or to read on.

Words: a *position* is a packet's place in the file (decoding order); a *GOP* begins at a key frame and ends before the next;
*leading* frames follow a key frame in the file but are shown before it (B frames of an open GOP) and need the GOP before.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Discard, Disposition

from maskbatch.config import Limits
from maskbatch.errors import InputError
from maskbatch.sources.videos.clock import ASSUMED_RATE, counted, out_of_proportion, plausible_rate, read_clock
from maskbatch.sources.videos.containers import FREE_CLOCKS, RAW_STREAMS, OpenVideo, cut_off
from maskbatch.types import Problem, Source, joined

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MAX_FAILURES = 8
"""Failures in a row after which reading on is hopeless."""

_TICK_EVERY = 64
_CACHED = 2


def ignore_tick() -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """All packets of a video stream.

    Attributes:
        pts: presentation time stamp per position.
        gop: number of the GOP per position (-1 before the first key frame).
        shown: whether the packet's frame is part of the presentation (edit lists hide some).
        keys: positions of the key frames.
        order: positions of the shown frames in presentation order; its index is the ordinal.
        times: their time stamps, ascending.
        time_base: seconds per unit of a time stamp.
        frame_span: duration of the last frame in units.
        origin: time stamp of the first frame, from which times count.
        ordered: time stamps are unique and rise from GOP to GOP, so that ranges, seeking and skipping are sound. Otherwise the
            file is decoded from beginning to end.
        stamped: all packets have time stamps, and frames come out in their order.
        lead: packets before the first key frame, and leading frames of its group, of which no frame comes out; they are in no
            ordinal, and are counted.
        problem: what is wrong with the file as a whole (cut off, unreadable from some point on).
        others: which video streams of the file are not this one.
        started_at: POSIX seconds of the recording's start by the container's metadata.
    """

    pts: Int64s
    gop: Int64s
    shown: Bools
    keys: Int64s
    order: Int64s
    times: Int64s
    time_base: Fraction
    frame_span: int
    origin: int
    ordered: bool
    stamped: bool
    lead: int
    problem: Problem | None
    others: Problem | None
    started_at: float | None

    def __len__(self) -> int:
        return len(self.pts)

    def position_of(self, pts: int, hint: int) -> int | None:
        """Position of the packet with this time stamp; `hint` is where it should be."""
        if 0 <= hint < len(self.pts) and self.pts[hint] == pts:
            return hint
        found = np.flatnonzero(self.pts == pts)
        return int(found[0]) if len(found) else None

    def duration_s(self) -> float | None:
        """Seconds from the clock's origin to the end of the last frame."""
        if not len(self.times):
            return None
        return float((int(self.times[-1]) + self.frame_span - self.origin) * self.time_base)


_cache: OrderedDict[tuple[str, str, int | None, float], PacketIndex] = OrderedDict()


def packet_index(
    source: Source, limits: Limits, tick: Callable[[], None] = ignore_tick, assume_fps: float = 0.0
) -> PacketIndex:
    """The index of a video; that of the last files is kept, since a worker often gets several pieces of one file.

    Args:
        source: the video.
        limits: what is refused.
        tick: called now and then.
        assume_fps: frames per second where there are no time stamps to go by; 0 = as the headers say, else 25.

    Raises:
        InputError: the file cannot be opened or holds no frame.
    """
    key = (source.path, source.fingerprint, source.stream, assume_fps)
    index = _cache.get(key)
    if index is None:
        with OpenVideo(source, limits) as video:
            index = _build(video, source, tick, Fraction(assume_fps).limit_denominator(1001) if assume_fps else None)
        _cache[key] = index
        while len(_cache) > _CACHED:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    return index


@dataclass(slots=True)
class OtherStream:
    """A video stream beside the one that is read: its packets, and after how many of ours its first one came."""

    count: int
    behind: int
    last_behind: int


@dataclass(slots=True)
class _Scan:
    pts: list[int | None]
    dts: list[int | None]
    key: list[bool]
    hidden: list[bool]
    last_duration: int
    failed: bool
    size: int
    others: dict[int, OtherStream]


def _scan(video: OpenVideo, tick: Callable[[], None]) -> _Scan:
    scan = _Scan([], [], [], [], 0, False, 0, {})
    looked_at = [video.stream]
    if len(video.videos) > 1:  # their packets are counted
        looked_at = list(video.videos)
        for stream in looked_at:
            stream.discard = Discard.default
    codec = video.stream.codec_context
    h264 = codec.name == "h264"
    extradata = codec.extradata or b""
    nal_length = (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 6 else 0  # avcC
    failures = 0
    while failures < MAX_FAILURES:
        try:
            for packet in video.container.demux(*looked_at):
                if packet.size == 0:  # the flush packet at the end, and AVI's place holders for dropped frames
                    continue
                if packet.stream_index != video.stream.index:
                    at = len(scan.pts)
                    other = scan.others.setdefault(packet.stream_index, OtherStream(0, at, at))
                    other.count += 1
                    other.last_behind = at
                    continue
                if not scan.pts and packet.has_sidedata("encryption_info"):
                    raise InputError("unsupported", "the video is encrypted")
                scan.pts.append(packet.pts)
                scan.size += packet.size
                scan.dts.append(packet.dts)
                scan.key.append(packet.is_keyframe and (not h264 or starts_decoding(bytes(packet), nal_length)))
                scan.hidden.append(packet.is_discard)
                scan.last_duration = packet.duration or scan.last_duration
                failures = 0
                if len(scan.pts) % _TICK_EVERY == 0:
                    tick()
            break
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, av.error.EOFError):
                break
            failures += 1
            scan.failed = True
    return scan


def starts_decoding(packet: bytes, nal_length: int) -> bool:
    """Whether an H.264 packet that is marked as a key frame is one: its first slice is an I slice.

    Streams with periodic intra refresh have no I frames behind the first; FFmpeg marks the recovery points, from which a
    image only builds up. (ISO/IEC 14496-10, 7.3.1 NAL unit, 7.3.3 slice header.)

    Args:
        packet: one access unit.
        nal_length: bytes of the length in front of each NAL unit; 0 where start codes part them.
    """
    at = 0
    while True:
        if nal_length:
            at += nal_length
            if at >= len(packet):
                return True  # no slice found: believe the container
            end = at + int.from_bytes(packet[at - nal_length : at], "big")
        else:
            at = packet.find(b"\x00\x00\x01", at) + 3
            if at < 3 or at >= len(packet):
                return True
            end = at
        kind = packet[at] & 31
        if kind == 5:
            return True
        if kind == 1:
            bits = int.from_bytes(packet[at + 1 : at + 13].ljust(12, b"\x00"), "big")
            _, left = _exp_golomb(bits, 96)
            slice_type, _ = _exp_golomb(bits, left)
            return slice_type % 5 in (2, 4)
        at = end


def _exp_golomb(bits: int, left: int) -> tuple[int, int]:
    """An unsigned Exp-Golomb number in the lowest `left` bits of `bits`, and how many bits are left behind it (clause 9.1)."""
    zeros = left - (bits & ((1 << left) - 1)).bit_length()
    rest = left - 2 * zeros - 1
    if rest < 0:
        return 0, 0
    return ((bits >> rest) & ((1 << zeros + 1) - 1)) - 1, rest


def _build(video: OpenVideo, source: Source, tick: Callable[[], None], given: Fraction | None) -> PacketIndex:
    stream = video.stream
    scan = _scan(video, tick)
    count = len(scan.pts)
    problem = _whole_file_problem(video, source, scan)
    if count == 0:
        if problem is not None:
            raise InputError("truncated", f"no frame could be read: {problem.message}")
        raise InputError("corrupt", "the video holds no frames")
    time_base = Fraction(stream.time_base or Fraction(1, 1_000_000))
    rate = plausible_rate(stream.guessed_rate, stream.average_rate)
    span = scan.last_duration or max(1, round(1 / ((rate or ASSUMED_RATE) * time_base)))
    if video.format in RAW_STREAMS:
        rate = given or rate
        span = max(1, round(1 / ((rate or ASSUMED_RATE) * time_base))) if given else span
        clock = counted(count, time_base, rate, "a raw stream without time stamps")
    else:
        clock = read_clock(scan.pts, scan.dts, time_base, rate, mpeg=video.format in FREE_CLOCKS, given=given)
    stamped, pts = clock.by_stamp, clock.pts
    if video.format == "avi" and stream.codec_context.has_b_frames and scan.pts == sorted(p or 0 for p in scan.pts):
        stamped = False  # AVI counts packets; with B frames that is not the order in which they are shown
    key = np.array(scan.key, bool)
    shown = ~np.array(scan.hidden, bool)
    presented = int(np.count_nonzero(shown))
    keys = np.flatnonzero(key)
    gop = np.cumsum(key).astype(np.int64) - 1
    ordered = stamped and _is_ordered(pts, gop, keys)
    if ordered:
        shown &= gop >= 0  # frames before the first key frame cannot be decoded
        shown &= ~_undecodable_lead(video, pts, gop, keys)
    positions = np.flatnonzero(shown)
    lead = presented - len(positions)
    order = positions[np.argsort(pts[positions], kind="stable")]
    times = pts[order]
    origin = int(times[0]) if len(times) else 0
    problem = joined([problem, clock.problem, out_of_proportion(times, span, time_base, scan.size)])
    return PacketIndex(
        pts,
        gop,
        shown,
        keys,
        order,
        times,
        time_base,
        span,
        origin,
        ordered,
        stamped,
        lead,
        problem,
        _other_streams(video, scan),
        _creation_time(video),
    )


def _is_ordered(pts: Int64s, gop: Int64s, keys: Int64s) -> bool:
    """Whether every GOP lies between the key frames around it, but for leading frames, which lie in the GOP before."""
    if not len(keys) or len(np.unique(pts)) != len(pts):
        return False
    at_keys = pts[keys]
    if np.any(np.diff(at_keys) <= 0):
        return False
    inside = gop >= 0
    number, value = gop[inside], pts[inside]
    before = np.concatenate(([np.iinfo(np.int64).min], at_keys[:-1]))
    after = np.concatenate((at_keys[1:], [np.iinfo(np.int64).max]))
    return bool(np.all(value > before[number]) and np.all(value < after[number]))


def _undecodable_lead(video: OpenVideo, pts: Int64s, gop: Int64s, keys: Int64s) -> Bools:
    """Leading frames of the first GOP that do not come out, since the GOP that they need is not in the file.

    Recordings cut out of a stream begin so. Whether such frames can be decoded only the decoder knows.
    """
    lead: Bools = (gop == 0) & (pts < pts[keys[0]])
    if not lead.any():
        return lead
    last = int(np.flatnonzero(lead)[-1])
    codec = video.stream.codec_context
    out: set[int | None] = set()
    video.container.seek(0)
    hint = 0
    for packet in video.container.demux(video.stream):
        if packet.size == 0 or hint > last + 1:
            break
        hint += 1
        try:
            out.update(frame.pts for frame in codec.decode(packet))
        except av.error.FFmpegError:
            continue
    with contextlib.suppress(av.error.FFmpegError):
        out.update(frame.pts for frame in codec.decode(None))
    for position in np.flatnonzero(lead):
        if int(pts[position]) in out:
            lead[position] = False
    return lead


def _whole_file_problem(video: OpenVideo, source: Source, scan: _Scan) -> Problem | None:
    try:
        missing = cut_off(source.path, video.format)
    except OSError:
        missing = None
    if missing:
        return Problem("partial", "truncated", missing)
    if scan.failed:
        return Problem("partial", "corrupt", "the container is damaged; what could be read was read")
    return None


def _other_streams(video: OpenVideo, scan: _Scan) -> Problem | None:
    """Names the video streams of the file that are not read.

    Streams that never overlap are one recording whose identifier changed, so that a part of it is missing: the file is partial then.
    """
    told, goes_on = [], False
    for number, stream in enumerate(video.videos):
        if stream is video.stream:
            continue
        other = scan.others.get(stream.index, OtherStream(0, 0, 0))
        codec = stream.codec_context
        facts = [codec.name, f"{codec.width}×{codec.height}" if codec.width else ""] if codec is not None else []
        facts.append("1 frame" if other.count == 1 else f"{other.count:,} frames")
        facts.append("marked as the default" if stream.disposition & Disposition.default else "")
        told.append(f"{number} ({', '.join(filter(None, facts))})")
        goes_on |= bool(other.count and scan.pts) and (other.last_behind == 0 or other.behind == len(scan.pts))
    if not told:
        return None
    which = f"video stream {video.number} of {len(video.videos)} was looked at, not {' and '.join(told)}"
    if goes_on:
        message = f"{which}; they follow each other, so a part of the recording is missing (--video-stream all)"
        return Problem("partial", "unsupported", message)
    return Problem("ok", None, f"{which} (--video-stream all)")


def _creation_time(video: OpenVideo) -> float | None:
    from maskbatch.sources.capture_metadata import plausible_iso

    for metadata in (video.container.metadata, video.stream.metadata):
        for name in ("com.apple.quicktime.creationdate", "creation_time", "date"):
            value = metadata.get(name)
            if value:
                found = plausible_iso(str(value))
                if found is not None:
                    return found
    return None
