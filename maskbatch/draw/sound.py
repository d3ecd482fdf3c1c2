"""The sound of a drawn video: copied where MP4 can hold it, else converted to AAC, and in sync with the images either way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Discard

from maskbatch.sources.videos.containers import OpenVideo

_CARRIED_BY_MP4 = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_TOLERANCE_S = Fraction(1, 200)
"""Time stamps may be off by this much (Matroska rounds to milliseconds) without a sample being added or left out."""

_LONGEST_SILENCE_S = 600
"""A longer gap in the sound is not filled: its time stamps are taken to be wrong, and the sound ends there."""


def _is_carried(codec: Any) -> bool:
    """Whether MP4 can hold the sound as it is; the muxer refuses MPEG-2.5's low sampling rates."""
    name = codec.codec.canonical_name
    return name in _CARRIED_BY_MP4 and not (name == "mp3" and codec.sample_rate < 16_000)


@dataclass(slots=True)
class Clock:
    """From the source's time to the copy's: the same, but from 0 on where the source's starts later or before 0."""

    shift_s: Fraction

    def units(self, pts: int, time_base: Fraction) -> int:
        """A time stamp of the source in the copy, in the same units."""
        return pts - round(self.shift_s / time_base)


class Sound:
    """The first audio stream of the source, read only as far as the images have come."""

    def __init__(self, source: OpenVideo, into: Any, stream: Any, clock: Clock) -> None:
        self._into = into
        self._from = stream
        self._clock = clock
        self._copied = _is_carried(stream.codec_context)
        self._target = (
            into.add_stream_from_template(stream)
            if self._copied
            else into.add_stream("aac", rate=stream.codec_context.sample_rate)
        )
        self._packets: Iterator[Any] = source.container.demux(stream)
        self._held: Any = None
        self._last_dts: int | None = None
        self._resampler: Any = None
        self._samples = 0

    @classmethod
    def of(cls, source: OpenVideo, into: Any, clock: Clock) -> Sound | None:
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
            ends = begins + (packet.duration or 0) * packet.time_base
            if begins > -1 or ends > 0:  # sound long before the first image belongs to a part that is not written
                self._write(packet)

    def finish(self) -> None:
        """Write what the encoder holds back."""
        if not self._copied:
            self._into.mux(self._target.encode(None))

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
            if frame.pts is None:
                continue
            rate = self._target.codec_context.sample_rate
            at = round(self._clock.units(frame.pts, frame.time_base) * frame.time_base * rate)
            for samples in self._resample(frame, rate):
                self._append(samples, at, rate)
                at += samples.shape[1]

    def _resample(self, frame: Any, rate: int) -> list[Any]:
        """Planes of float samples as the encoder wants them: channels × samples."""
        if self._resampler is None:
            self._resampler = av.AudioResampler(format="fltp", layout=self._target.codec_context.layout, rate=rate)
        frame.pts = None
        return [piece.to_ndarray() for piece in self._resampler.resample(frame)]

    def _append(self, samples: Any, at: int, rate: int) -> None:
        """Encode samples that belong at sample `at` of the copy: what is missing before them is silence, what overlaps is left out.

        Sound that begins before the first image is cut there, so that it does not push the rest back.
        """
        off = at - self._samples
        if off > _LONGEST_SILENCE_S * rate:
            self._packets = iter(())
            return
        if off > _TOLERANCE_S * rate:
            while off > 0:
                piece = min(off, rate)
                self._encode(np.zeros((samples.shape[0], piece), samples.dtype), rate)
                off -= piece
        elif off < 0 and (self._samples == 0 or -off > _TOLERANCE_S * rate):
            samples = samples[:, -off:]
        if samples.shape[1]:
            self._encode(samples, rate)

    def _encode(self, samples: Any, rate: int) -> None:
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=self._target.codec_context.layout.name
        )
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), self._samples
        self._samples += samples.shape[1]
        self._into.mux(self._target.encode(frame))
