"""What is not opened, and what a person is told."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import video_makers as make

from maskbatch.config import Limits, Sampling
from maskbatch.errors import InputError
from maskbatch.sources.videos.packets import packet_index
from maskbatch.sources.videos.reader import VideoReader, split_video
from maskbatch.types import Piece, PieceResult, Source


def refuse(path: Path, limits: Limits | None = None) -> InputError:
    source = Source(str(path), path.name, "video")
    with pytest.raises(InputError) as caught:
        split_video(source, Sampling(), 300.0, limits or Limits())
    assert "\n" not in caught.value.message
    return caught.value


def test_text_pictures_sound_and_nothing_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    assert refuse(tmp_path / "text.mp4").code == "not_media"
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    assert refuse(tmp_path / "noise.mp4").code == "not_media"
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert refuse(tmp_path / "empty.mp4").code == "empty"
    assert refuse(tmp_path / "missing.mp4").code == "not_found"
    assert refuse(tmp_path).code == "special_file"
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        for packet in [*stream.encode(frame), *stream.encode()]:
            output.mux(packet)
    assert refuse(tmp_path / "sound.mp4").code == "not_media"


def test_animated_pictures_are_not_opened_as_videos(tmp_path: Path) -> None:
    path = make.write_video(tmp_path / "a.gif", 5, codec="gif", pix_fmt="rgb8")
    error = refuse(path)
    assert error.code == "unsupported"
    assert "GIF" in error.message


def test_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refuse(tmp_path / "pipe.mp4").code == "special_file"


LISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "list.mpd": "<?xml version='1.0'?>\n<MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>\n",
    "bare.mpd": "\n\n<MPD type='static'><BaseURL>{target}</BaseURL></MPD>\n",
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("suffix", ["", ".mp4"])
def test_lists_of_other_files_are_refused_and_reach_nothing(name: str, suffix: str, tmp_path: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.3)
    reached: list[object] = []

    def listen() -> None:
        try:
            reached.append(server.accept())
        except TimeoutError:
            return

    thread = threading.Thread(target=listen)
    thread.start()
    path = tmp_path / f"{name}{suffix}"
    path.write_text(LISTS[name].format(target=f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"))
    error = refuse(path)
    thread.join()
    server.close()
    assert error.code == "unsupported"
    assert reached == []


def test_list_of_a_local_video_is_refused_too(tmp_path: Path) -> None:
    make.write_video(tmp_path / "real.ts", 10)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nreal.ts\n#EXT-X-ENDLIST\n")
    assert refuse(tmp_path / "list.m3u8").code == "unsupported"


@pytest.mark.parametrize("name", ["concat:a.mp4|b.mp4", "http:%2F%2Fx.mp4", "a%03d.mp4", "ünïcode 视频.mp4", "-i.mp4"])
def test_odd_names_are_only_names(name: str, tmp_path: Path) -> None:
    made = make.write_video(tmp_path / "a.mp4", 10)
    path = made.rename(tmp_path / name)
    assert len(packet_index(Source(str(path), name, "video"), Limits())) == 10


def test_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    made = make.write_video(tmp_path / "a.mp4", 10)
    name = os.fsdecode(b"caf\xe9.mp4")
    try:
        path = made.rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system only takes names in UTF-8")
    source = Source(str(path), name, "video")
    with VideoReader(Piece(source), Sampling(mode="all"), Limits(), 64) as reader:
        assert len(list(reader)) == 10


def test_too_many_pixels_are_refused_before_a_frame_is_decoded(tmp_path: Path) -> None:
    path = make.write_video(tmp_path / "large.mp4", 3, size=(640, 480))
    error = refuse(path, Limits(max_pixels=640 * 480 - 1))
    assert error.code == "too_large"
    assert "640×480" in error.message
    packet_index(Source(str(path), "large.mp4", "video"), Limits(max_pixels=640 * 480))


def test_frames_that_grow_beyond_the_limit_in_mid_stream_are_failures(tmp_path: Path) -> None:
    path = make.write_resolution_change(tmp_path / "grows.ts", [(160, 120), (640, 480)], 20)
    source = Source(str(path), path.name, "video")
    result = PieceResult("a", "b")
    with VideoReader(Piece(source), Sampling(mode="all"), Limits(max_pixels=200 * 200), 64) as reader:
        frames = list(reader)
        reader.fill(result)
    assert len(frames) == 20
    assert {(f.width, f.height) for f in frames} == {(160, 120)}
    assert (result.frames_read, result.frames_failed, result.status) == (20, 20, "partial")


def test_creation_time_is_taken_where_it_is_plausible(tmp_path: Path) -> None:
    stamped = make.write_video(tmp_path / "a.mp4", 5, metadata={"creation_time": "2024-03-12T14:00:00Z"})
    unset = make.write_video(tmp_path / "b.mp4", 5, metadata={"creation_time": "1970-01-01T00:00:00Z"})
    assert packet_index(Source(str(stamped), "a", "video"), Limits()).started_at == 1710252000.0
    assert packet_index(Source(str(unset), "b", "video"), Limits()).started_at is None


def test_shared_corpus_of_odd_files_never_breaks_the_reader(shared_dir: Path) -> None:
    seen = 0
    refusals: list[str] = []
    for path in sorted((shared_dir / "data/media_corpus").rglob("*")):
        if path.suffix not in (".mp4", ".3gp", ".avif", ".gif", ".webp", ".bin") or not path.is_file():
            continue
        source = Source(str(path), path.name, "video")
        try:
            for piece in split_video(source, Sampling(every_s=0.5), 2.0, Limits()):
                result = PieceResult("a", "b")
                with VideoReader(piece, Sampling(every_s=0.5), Limits(), 64) as reader:
                    delivered = sum(1 for _ in reader)
                    reader.fill(result)
                assert result.frames_read == delivered
                assert result.frames_skipped >= 0
        except InputError as error:
            refusals.append(error.message)
        seen += 1
    assert seen > 80
    assert all(refusals)
