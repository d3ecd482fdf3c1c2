"""Videos that are damaged, cut off or odd: read as far as they can be, and every frame that is lost is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import video_makers as make
from video_reading import counts, read

from maskbatch.config import Sampling
from maskbatch.errors import InputError


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mkv", "libx264", {}),
        ("a.ts", "libx264", {}),
        ("a.avi", "mpeg4", {}),
        ("fragments.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_truncated_tail_is_read_to_the_last_good_frame(
    name: str, codec: str, container: dict[str, str], tmp_path: Path
) -> None:
    whole = make.write_video(tmp_path / name, 100, codec=codec, container=container, options={"g": "20"})
    path = make.cut_off(whole, 0.63, tmp_path / f"cut_{name}")
    plain = make.decode_all(path)
    rows, results = read(path)
    assert [row[1] for row in rows] == [pts for pts, _ in plain]
    assert 30 < len(rows) < 80
    assert results[0].status == "partial"
    assert results[0].error in ("truncated", "corrupt")
    assert results[0].frames_read == len(plain)
    assert read(path, unit_seconds=0.5)[0] == rows


def test_recording_that_was_never_finished_is_an_error_that_says_so(tmp_path: Path) -> None:
    whole = make.write_video(tmp_path / "whole.mp4")  # its index is at the end
    with pytest.raises(InputError, match="moov") as caught:
        read(make.cut_off(whole, 0.6, tmp_path / "cut.mp4"))
    assert caught.value.code == "truncated"


def test_missing_index_is_no_loss(tmp_path: Path) -> None:
    avi = make.write_video(tmp_path / "a.avi", codec="mpeg4", options={"g": "20"})
    data = avi.read_bytes()
    (tmp_path / "no_index.avi").write_bytes(data.replace(b"idx1", b"JUNK"))
    live = make.write_video(tmp_path / "live.mkv", container={"live": "1"}, options={"g": "20"})
    for path in (tmp_path / "no_index.avi", live):
        rows, results = read(path)
        assert counts(results) == (60, 0, 0)
        assert read(path, Sampling(every_s=0.3), 0.5)[0] == read(path, Sampling(every_s=0.3))[0]
        assert [row[0] for row in rows] == list(range(60))


def test_resolution_may_change_in_mid_stream(tmp_path: Path) -> None:
    sizes = [(160, 120), (320, 240), (240, 180)]
    path = make.write_resolution_change(tmp_path / "change.ts", sizes)
    rows, results = read(path)
    assert counts(results) == (75, 0, 0)
    assert [row[3][:2] for row in rows] == [(h, w) for w, h in sizes for _ in range(25)]
    assert (results[0].width, results[0].height) == sizes[0]
    assert read(path, unit_seconds=0.9)[0] == rows
    raw = b""
    for i, size in enumerate(sizes):
        raw += make.write_video(tmp_path / f"{i}.h264", 25, size=size).read_bytes()
    (tmp_path / "joined.h264").write_bytes(raw)
    rows, results = read(tmp_path / "joined.h264")
    assert counts(results) == (75, 0, 0)
    assert [row[3][:2] for row in rows] == [(h, w) for w, h in sizes for _ in range(25)]


def test_file_whose_time_jumps_back_is_read_from_beginning_to_end(tmp_path: Path) -> None:
    one = make.write_video(tmp_path / "one.ts", 50, options={"bf": "0"})
    (tmp_path / "twice.ts").write_bytes(one.read_bytes() * 2)
    rows, results = read(tmp_path / "twice.ts", Sampling(every_s=1.0), 0.5)
    assert len(results) == 1
    assert sum(counts(results)) == len(make.decode_all(tmp_path / "twice.ts"))
    numbers = [make.number_in(np.frombuffer(row[5], np.uint8).reshape(row[3])) for row in rows]
    assert numbers[: len(numbers) // 2] == numbers[len(numbers) // 2 :]


def test_broken_packets_are_counted_and_passed_over(tmp_path: Path) -> None:
    whole = make.write_video(
        tmp_path / "a.mp4", codec="libvpx-vp9", options={"g": "10", "deadline": "realtime", "cpu-used": "8"}
    )
    path = make.damage(whole, tmp_path / "broken.mp4", [23, 24])
    rows, results = read(path)
    read_, failed, skipped = counts(results)
    assert (read_ + failed, skipped) == (60, 0)
    assert 2 <= failed <= 7  # the rest of the GOP hangs on them
    assert results[0].status == "partial"
    assert results[0].error == "corrupt"
    sound = read(whole)[0]
    assert rows == [row for row in sound if row[0] in {r[0] for r in rows}]
    cut, cut_results = read(path, unit_seconds=0.5)
    assert cut == rows
    assert counts(cut_results) == counts(results)


def test_eight_failures_in_a_row_end_a_passage_not_the_video(tmp_path: Path) -> None:
    options = {"g": "30", "bf": "0", "x264-params": "scenecut=0"}
    whole = make.write_video(tmp_path / "a.mp4", 90, options=options)
    path = make.damage(whole, tmp_path / "broken.mp4", range(35, 60))
    rows, results = read(path)
    assert sum(counts(results)) == 90
    assert [row[0] for row in rows] == [*range(35), *range(60, 90)]
    assert counts(results) == (65, 25, 0)
    assert "given up" in results[0].message


def test_nothing_decodable_is_an_error_row(tmp_path: Path) -> None:
    whole = make.write_video(tmp_path / "a.mp4", 20, options={"bf": "0"})
    path = make.damage(whole, tmp_path / "broken.mp4", range(20))
    rows, results = read(path)
    assert rows == []
    assert (results[0].status, results[0].error) == ("error", "corrupt")
    assert counts(results) == (0, 20, 0)
