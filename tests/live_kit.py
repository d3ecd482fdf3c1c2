"""Real servers on loopback for the tests of live streams: RTSP, HLS, and HTTP that answers as a test says."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import red_squares

Image = npt.NDArray[np.uint8]
RATE = 8
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def walking(number: int) -> Image:
    """One red square that walks to the right, on blue and later on green."""
    return red_squares.picture([(1 + number // 8 % 7, 2, "blue" if number < 24 else "green")])


def write_clip(path: Path, frames: int = 32, *, rate: int = RATE, picture: Callable[[int], Image] = walking) -> Path:
    """H.264 without B frames, a key frame every second."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=rate)
        first = picture(0)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": str(rate), "bf": "0", "crf": "12", "preset": "ultrafast"}
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), "bgr24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_hls(clip: Path, folder: Path) -> Path:
    """The clip as segments of a second and a playlist, without coding anew."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "stream.m3u8"
    options = {"hls_time": "1", "hls_list_size": "0", "hls_playlist_type": "vod"}
    with av.open(str(clip)) as source, av.open(str(target), "w", format="hls", options=options) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return target


def transport_stream(clip: Path) -> bytes:
    """The clip as one MPEG transport stream."""
    sink = io.BytesIO()
    with av.open(str(clip)) as source, av.open(sink, "w", format="mpegts") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return sink.getvalue()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_args: Any) -> None:
        """Clients that leave are no news."""


@contextlib.contextmanager
def answering(answer: Answer, port: int = 0) -> Iterator[int]:
    """An HTTP server whose GET and POST are `answer`; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET

        def log_message(self, *_args: Any) -> None:
            pass

    with _running(_Server(("127.0.0.1", port), Handler)) as taken:
        yield taken


@contextlib.contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[int]:
    """An HTTP server of files; its port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: Any) -> None:
            pass

    with _running(_Server(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))) as taken:
        yield taken


@contextlib.contextmanager
def _running(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sending(*parts: bytes | float, kind: str = "video/mp2t") -> Answer:
    """An answer that sends bytes and waits for seconds, in turn, then ends."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.end_headers()
        with contextlib.suppress(OSError):
            for part in parts:
                if isinstance(part, bytes):
                    request.wfile.write(part)
                    request.wfile.flush()
                else:
                    time.sleep(part)

    return answer


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RtspServer:
    """`rtsp-server` of aio-rtsp-toolkit over a folder of clips, in a process of its own."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        program = Path(sys.executable).with_name("rtsp-server")
        command = [str(program), "-d", str(folder), "-H", "127.0.0.1", "-p", str(self.port), "-cp", str(free_port())]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers, 20)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
            return True
        return False

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def wait_for(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Return as soon as the condition holds; fails after the timeout."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"not within {timeout_s:g} s"
        time.sleep(0.02)


def command(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """`maskbatch …` as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "maskbatch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        **options,
    )
