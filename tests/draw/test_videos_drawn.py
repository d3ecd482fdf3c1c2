from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from face_rows import NO_ROWS, box_row, table

from maskbatch.classify.crops import CROP_CONTEXT
from maskbatch.config import Sampling
from maskbatch.draw.crop_writer import write_crops
from maskbatch.draw.faces import Style
from maskbatch.draw.videos import annotate_video, video_output_name
from maskbatch.errors import InputError
from maskbatch.types import Source

RATE = 10
SIZE = (161, 121)  # odd on purpose
BOX = (40.0, 30.0, 90.0, 90.0)


def picture(index: int) -> np.ndarray:
    """A pattern that moves, mid-grey, so that drawing shows on it."""
    rows, columns = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    wave = 110 + 40 * np.sin((columns + 3 * index) / 6) * np.cos(rows / 5)
    return np.dstack([wave] * 3).astype(np.uint8)


def make_video(
    path: Path, times: list[int], sound: str | None = None, container: str | None = None, codec: str = "mpeg4"
) -> Source:
    """A video with frames at `times` (in 1/1000 s) and, with `sound`, two seconds of a tone in that codec."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=RATE)
        even = (SIZE[0] + SIZE[0] % 2, SIZE[1] + SIZE[1] % 2) if codec == "libx264" else SIZE
        stream.width, stream.height = even
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        tone = out.add_stream(sound, rate=44100) if sound else None
        for index, time in enumerate(times):
            image = cv2.resize(picture(index), even)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if tone is not None:
            wave = (8000 * np.sin(np.arange(2 * 44100) * 2 * np.pi * 440 / 44100)).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            samples.sample_rate, samples.time_base = 44100, Fraction(1, 44100)
            samples.pts = times[0] * 441 // 10
            resampler = av.AudioResampler(format=tone.format, layout="mono", rate=44100)
            for piece in resampler.resample(samples):
                out.mux(tone.encode(piece))
            out.mux(tone.encode(None))
    return Source(str(path), path.name, "video")


def read(path: Path) -> tuple[list[Fraction], list[np.ndarray], list[tuple[str, float]]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times, images = [], []
        for frame in container.decode(stream):
            times.append(frame.pts * frame.time_base)
            images.append(frame.to_ndarray(format="bgr24"))
    with av.open(str(path)) as container:
        sounds = [
            (s.codec_context.name, sum(f.samples for f in container.decode(s)) / s.codec_context.sample_rate)
            for s in container.streams.audio
        ]
    return times, images, sounds


def drawn(image: np.ndarray, index: int) -> bool:
    """Whether the upper line of `BOX` is there (in blue, which the grey source has not)."""
    line = image[26:30, 45:85].astype(int)
    return bool((line.max(axis=2) - line.min(axis=2)).mean() > 20)


def face_row(frame: int, **more: Any) -> dict[str, Any]:
    return box_row(BOX, frame=frame, time_s=frame / RATE, **more)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_video(tmp_path / "clip.mkv", [100 * i for i in range(30)])


def test_boxes_are_held_until_the_next_sample(tmp_path: Path, source: Source) -> None:
    target = annotate_video(source, table(face_row(0)), tmp_path / "out", Sampling(every_s=1.0))
    assert target == tmp_path / "out/clip.mkv.mp4"
    times, images, _ = read(target)
    assert times == [Fraction(i, 10) for i in range(30)]
    assert [drawn(image, i) for i, image in enumerate(images)] == [True] * 10 + [False] * 20


def test_odd_size_is_padded_and_nothing_is_scaled(tmp_path: Path, source: Source) -> None:
    _, images, _ = read(annotate_video(source, NO_ROWS, tmp_path / "out"))
    _, originals, _ = read(Path(source.path))
    assert images[0].shape == (122, 162, 3)
    for mine, original in zip(images, originals, strict=True):
        assert np.abs(mine[:121, :161].astype(int) - original).mean() < 3


def test_uneven_time_stamps_are_kept(tmp_path: Path) -> None:
    times = [0, 33, 67, 500, 501, 1400, 1433]
    source = make_video(tmp_path / "vfr.mkv", times)
    got, _, _ = read(annotate_video(source, table(face_row(0)), tmp_path / "out"))
    assert got == [Fraction(t, 1000) for t in times]


@pytest.mark.parametrize(
    ("sound", "name", "kept"),
    [("aac", "a.mp4", "aac"), ("pcm_s16le", "a.mkv", "aac"), ("libmp3lame", "a.avi", "mp3"), ("ac3", "a.mkv", "ac3")],
)
def test_sound_is_kept(tmp_path: Path, sound: str, name: str, kept: str) -> None:
    source = make_video(tmp_path / name, [100 * i for i in range(20)], sound)
    _, images, sounds = read(annotate_video(source, table(face_row(0)), tmp_path / "out"))
    assert len(images) == 20
    ((codec, seconds),) = sounds
    assert codec.startswith(kept)
    assert seconds == pytest.approx(2.0, abs=0.15)


def test_mpeg_stream_begins_at_zero(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.ts", [5000 + 100 * i for i in range(20)], "aac", codec="libx264")
    times, _, sounds = read(annotate_video(source, NO_ROWS, tmp_path / "out"))
    assert times[0] == 0
    assert float(times[-1]) == pytest.approx(1.9, abs=0.01)
    assert len(sounds) == 1


def test_only_the_scanned_part_is_written(tmp_path: Path, source: Source) -> None:
    times, images, _ = read(
        annotate_video(source, table(face_row(10)), tmp_path / "out", Sampling(start_s=1.0, end_s=2.0))
    )
    assert len(times) == 10
    assert times[0] == 0
    assert drawn(images[0], 10)


def test_redaction_covers_the_way_between_samples(tmp_path: Path, source: Source) -> None:
    away = (100.0, 30.0, 150.0, 90.0)
    rows = table(face_row(0), box_row(away, frame=10, time_s=1.0))
    style = Style(boxes=False, redact=True)
    _, images, _ = read(annotate_video(source, rows, tmp_path / "out", Sampling(every_s=1.0), style))
    _, originals, _ = read(Path(source.path))

    def detail(image: np.ndarray, box: tuple[float, ...]) -> float:
        x1, y1, x2, y2 = map(int, box)
        return float(image[y1:y2, x1:x2].std())

    between = (80.0, 40.0, 110.0, 80.0)
    assert detail(images[5], between) < 0.4 * detail(originals[5], between)
    assert detail(images[0], BOX) < 0.4 * detail(originals[0], BOX)
    assert detail(images[25], between) > 0.8 * detail(originals[25], between)


def test_sampled_faces_are_cropped_from_their_frames(tmp_path: Path, source: Source) -> None:
    rows = table(face_row(10), face_row(20, label="without_mask", face=1))
    assert write_crops(source, rows, tmp_path / "crops", sampling=Sampling(every_s=1.0)) == 2
    crop = cv2.imread(str(tmp_path / "crops/with_mask/clip.mkv_f10_0.jpg"))
    side = round(60 * CROP_CONTEXT)
    assert crop.shape == (side, side, 3)
    assert (tmp_path / "crops/without_mask/clip.mkv_f20_1.jpg").exists()
    # From frame 10, and no other: the pattern moves 3 pixels a frame.
    left, top = round(65 - 30 * CROP_CONTEXT), round(60 - 30 * CROP_CONTEXT)
    near = [picture(index)[top : top + side, left : left + side].astype(int) for index in (9, 10, 11)]
    error = [np.abs(crop.astype(int) - other).mean() for other in near]
    assert error[1] < 8
    assert error[1] < min(error[0], error[2])


def test_video_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    with pytest.raises(InputError):
        annotate_video(Source(str(tmp_path / "a.mp4"), "a.mp4", "video"), NO_ROWS, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert video_output_name("a/b.MP4") == "a/b.MP4"


def test_real_clips_keep_their_times_and_sound(tmp_path: Path, shared_dir: Path) -> None:
    for name in ("cctv_office_short.mp4", "book.mkv"):
        path = shared_dir / "data/videos" / name
        source = Source(str(path), name, "video")
        target = annotate_video(source, table(face_row(0)), tmp_path / "out")
        times, images, sounds = read(target)
        expected, originals, original_sounds = read(path)
        assert times == expected
        assert images[0].shape == originals[0].shape
        assert [codec for codec, _ in sounds] == [codec for codec, _ in original_sounds]
        for (_, mine), (_, theirs) in zip(sounds, original_sounds, strict=True):
            assert mine == pytest.approx(theirs, abs=0.1)
