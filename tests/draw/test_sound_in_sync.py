"""The sound of drawn videos: a click stays with its flash to 20 ms, whatever the codec, the clock and the part; or there is no sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from face_rows import NO_ROWS

from maskbatch.config import Sampling
from maskbatch.draw.faces import Style
from maskbatch.draw.videos import annotate_video
from maskbatch.types import Source

RATE, SECONDS, AT = 25, 4, 0.4  # a flash and a click 0.4 s into every second


def write_clip(
    path: Path, sound: str, *, codec: str = "libx264", rate: int = 44100, start: float = 0.0, sound_from: float = 0.0
) -> None:
    """A clip that begins at `start`; its sound begins `sound_from` seconds after that (before it, if negative)."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream(codec, rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if codec == "libx264":
            video.options = {"bf": "0", "preset": "ultrafast"}
        audio: Any = out.add_stream(sound, rate=rate)
        audio.codec_context.layout = "mono"
        for number in range(SECONDS * RATE):
            flash = abs(number / RATE % 1 - AT) < 1e-6
            image = np.full((48, 64, 3), 255 if flash else 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round((start + number / RATE) * 1000), Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        at = np.arange(round((SECONDS - sound_from) * rate)) / rate + sound_from
        clicks = (at % 1 >= AT) & (at % 1 < AT + 0.02)
        wave = np.where(clicks, 20000 * np.sin(2 * np.pi * 1000 * at), 0).astype(np.int16)
        samples = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        samples.sample_rate, samples.time_base = rate, Fraction(1, rate)
        samples.pts = round((start + sound_from) * rate)
        size = audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=audio.format, layout="mono", rate=rate, frame_size=size)
        for piece in [*resampler.resample(samples), *resampler.resample(None)]:
            if piece.samples:
                out.mux(audio.encode(piece))
        out.mux(audio.encode(None))


def events(path: Path) -> tuple[list[float], list[float]]:
    """Times of the flashes and of the clicks, as a player has them (edit lists and encoder delays applied)."""
    with av.open(str(path)) as container:
        flashes = [
            float(frame.pts * frame.time_base)
            for frame in container.decode(container.streams.video[0])
            if frame.to_ndarray(format="gray8").mean() > 150
        ]
    clicks: list[float] = []
    last = -9.0
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            values = frame.to_ndarray()[0].astype(float)
            if frame.format.name.startswith("s"):
                values /= 1 << 15 if frame.format.name.startswith("s16") else 1 << 31
            for index in np.flatnonzero(np.abs(values) > 0.15).tolist():
                at = float(frame.pts * frame.time_base) + index / frame.sample_rate
                if at - last > 0.2:
                    clicks.append(at)
                last = at
    return flashes, clicks


CASES: dict[str, dict[str, Any]] = {
    "aac.mp4": {"sound": "aac"},
    "aac-late-clock.ts": {"sound": "aac", "start": 5.0},
    "aac-begins-early.ts": {"sound": "aac", "start": 5.0, "sound_from": -0.6},
    "aac-begins-early.mkv": {"sound": "aac", "start": 1.0, "sound_from": -0.7},
    "aac.flv": {"sound": "aac", "start": 2.0},
    "mp3.avi": {"sound": "libmp3lame", "codec": "mpeg4"},
    "mp3.mkv": {"sound": "libmp3lame"},
    "mp3-8kHz.mkv": {"sound": "libmp3lame", "rate": 8000},
    "mp2.ts": {"sound": "mp2", "start": 5.0},
    "ac3.mkv": {"sound": "ac3"},
    "eac3.mkv": {"sound": "eac3"},
    "opus.webm": {"sound": "libopus", "rate": 48000, "codec": "libvpx"},
    "flac.mkv": {"sound": "flac"},
    "alac.mp4": {"sound": "alac"},
    "pcm.mkv": {"sound": "pcm_s16le"},
    "pcm-begins-early.mkv": {"sound": "pcm_s16le", "start": 1.0, "sound_from": -0.7},
    "pcm-begins-late.mkv": {"sound": "pcm_s16le", "sound_from": 0.2},
    "mulaw-8kHz.avi": {"sound": "pcm_mulaw", "rate": 8000, "codec": "mpeg4"},
    "adpcm.avi": {"sound": "adpcm_ms", "codec": "mpeg4"},
    "nellymoser.flv": {"sound": "nellymoser", "rate": 8000, "codec": "flv"},
}


PARTS = ("aac.mp4", "mp3.mkv", "opus.webm", "pcm.mkv", "mulaw-8kHz.avi", "aac-begins-early.ts")
"""Of these the part from 1.2 s on is drawn too."""


@pytest.mark.parametrize(("name", "start"), [*((name, 0.0) for name in CASES), *((name, 1.2) for name in PARTS)])
def test_clicks_stay_with_their_flashes(tmp_path: Path, name: str, start: float) -> None:
    write_clip(tmp_path / name, **CASES[name])
    source = Source(str(tmp_path / name), name, "video")
    flashes, clicks = events(annotate_video(source, NO_ROWS, tmp_path / "out", Sampling(start_s=start)))
    assert len(flashes) == (4 if start == 0 else 3)
    for flash in flashes:
        nearest = min(clicks, key=lambda click: abs(click - flash))
        assert abs(nearest - flash) <= 0.02, (flashes, clicks)


def test_muted_videos_have_no_sound(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", "aac")
    source = Source(str(tmp_path / "a.mp4"), "a.mp4", "video")
    for mute, streams in ((False, 1), (True, 0)):
        with av.open(str(annotate_video(source, NO_ROWS, tmp_path / "out", style=Style(mute=mute)))) as container:
            assert len(container.streams.audio) == streams
