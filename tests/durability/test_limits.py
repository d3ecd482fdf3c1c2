"""What is refused: bombs, special files, loops, files that name other files, archives. Nothing of it is waited for."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.parquet as pq
import pytest
from durability_kit import CONFIG, face_picture, input_row, input_rows, make_archive, run, write_jpeg

from maskbatch.scanning.run import scan


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises this size, and whose data end at once."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    (folder / "bomb.bmp").write_bytes(
        struct.pack("<2sIHHI IiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    (folder / "bomb.ppm").write_bytes(b"P6\n70000 70000\n255\n")
    before = psutil.Process().memory_info().rss
    run(folder, tmp_path / "results.parquet")
    for row in input_rows(tmp_path / "results.parquet"):
        assert row["status"] == "error"
        assert row["error"] == "too_large", row
        assert "--max-pixels" in row["message"] or "pixels" in row["message"]
    assert psutil.Process().memory_info().rss - before < 300 << 20


def test_special_files_and_loops_are_rows_or_nothing(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = make_archive(tmp_path / "in", face_photo, pictures=2, video_s=0, broken=False)
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "null.jpg").symlink_to("/dev/null")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "linked.jpg").symlink_to(folder / "0" / "p0000.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may be no longer than 108 bytes
        listener.bind("socket.jpg")
        os.chdir(here)
        out = tmp_path / "results.parquet"
        summary = scan([folder], out, CONFIG)
    rows = {row["source"]: row for row in input_rows(out)}
    assert len(rows) == summary.inputs == 10
    for name in ("pipe.jpg", "pipe.mp4", "null.jpg", "zero.mp4", "socket.jpg"):
        assert rows[name]["error"] == "special_file", rows[name]
    assert rows["dangling.jpg"]["error"] == "not_found"
    assert rows["self.jpg"]["status"] == "error"
    assert rows["linked.jpg"]["status"] == "ok"


@pytest.fixture
def callers() -> object:
    """A listener on this machine, and the list of those who called."""
    called: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                called.append(address)
                connection.close()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield port, called
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_files_that_name_other_files_reach_nothing(
    callers: tuple[int, list[object]], face_photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    port, called = callers
    folder = make_archive(tmp_path / "in", face_photo, pictures=0, video_s=1.0, broken=False)
    address = f"http://127.0.0.1:{port}"
    texts = {
        "playlist.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{address}/a.ts\n#EXT-X-ENDLIST\n",
        "local.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{folder}/clip.mp4\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{folder}/clip.mp4'\n",
        "concat.avi": f"ffconcat version 1.0\nfile '{address}/a.avi'\n",
        "dash.mp4": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{address}/</BaseURL></MPD>',
        "session.mkv": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
        "drawing.png": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}/x.png"/></svg>',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    out = tmp_path / "results.parquet"
    run(folder, out)
    assert called == []
    for name in texts:
        assert input_row(out, name)["status"] == "error", name
    assert set(pq.read_table(out)["source"].to_pylist()) <= {"clip.mp4"}
    assert input_row(out, "clip.mp4")["status"] == "ok"


def test_a_name_that_looks_like_an_address_is_a_file(
    callers: tuple[int, list[object]], face_photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    port, called = callers
    folder = make_archive(tmp_path / "in", face_photo, pictures=0, video_s=1.0, broken=False)
    (folder / "clip.mp4").rename(folder / f"http:127.0.0.1:{port}.mp4")
    (folder / "concat:a.mp4").write_bytes((folder / f"http:127.0.0.1:{port}.mp4").read_bytes())
    out = tmp_path / "results.parquet"
    run(folder, out)
    assert [row["status"] for row in input_rows(out)] == ["ok", "ok"]
    assert called == []


def test_archives_are_not_unpacked(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_jpeg(folder / "a.jpg", face_picture(face_photo, 1))
    with zipfile.ZipFile(folder / "more.zip", "w") as packed:
        packed.write(folder / "a.jpg", "inside.jpg")
    (folder / "more.jpg").write_bytes((folder / "more.zip").read_bytes())
    out = tmp_path / "results.parquet"
    summary = scan([folder], out, CONFIG)
    assert (summary.inputs, summary.ignored) == (2, 1)
    assert input_row(out, "more.jpg")["error"] in ("not_media", "unsupported")
    assert input_row(out, "a.jpg")["status"] == "ok"


def test_a_folder_without_permission_is_a_row(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder = make_archive(tmp_path / "in", face_photo, pictures=2, video_s=0, broken=False)
    (folder / "0").chmod(0)
    try:
        scan([folder], tmp_path / "results.parquet", CONFIG)
    finally:
        (folder / "0").chmod(0o700)
    assert [row["error"] for row in input_rows(tmp_path / "results.parquet")] == ["permission", None]


def test_a_pipe_does_not_hold_up_the_command_line(tmp_path: Path) -> None:
    """A FIFO named on its own, which nobody ever writes to."""
    import sys

    os.mkfifo(tmp_path / "pipe.jpg")
    done = subprocess.run(
        [sys.executable, "-m", "maskbatch", "scan", "pipe.jpg", "--device", "cpu"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert input_row(tmp_path / "results.parquet", "pipe.jpg")["error"] == "special_file"
