"""What `maskbatch watch` reaches on this machine: latency, cameras without drops, stopping, coming back, memory.

    uv run --extra live python benchmarks/live.py --clip CLIP_WITH_FACES.mp4 [--seconds 60] [--only latency,cameras,stop,back,memory]

Every server runs on this machine too and takes its share of the cores: `latency` even encodes the camera's picture in real time. CLIP is
any video with faces; it is coded anew as 720p25 with a key frame a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import live_kit

from maskbatch.config import Sampling
from maskbatch.live.options import AlarmRules, WatchOptions
from maskbatch.live.watch import Watch
from maskbatch.sources.live.cameras import cameras_of

WIDTH, HEIGHT, RATE = 1280, 720, 25
EVERY = ("latency", "cameras", "stop", "back", "memory")


def frames_of(clip: Path, count: int) -> list[Any]:
    """Up to `count` frames as 720p."""
    found = []
    with av.open(str(clip)) as source:
        for frame in source.decode(video=0):
            found.append(frame.reformat(WIDTH, HEIGHT, "yuv420p"))
            if len(found) == count:
                break
    return found


def write_720p(clip: Path, target: Path, seconds: int = 30) -> Path:
    """The clip as 720p25, over and over."""
    frames = frames_of(clip, 250)
    with av.open(str(target), "w") as output:
        stream: Any = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": str(RATE), "bf": "0", "crf": "28"}
        for number in range(seconds * RATE):
            frame = frames[number % len(frames)]
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, RATE), 0
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return target


class Camera:
    """A camera that is coded in real time: an empty scene into which a person comes every few seconds.

    Attributes:
        entered: `time.time()` of each frame with which somebody came.
    """

    def __init__(self, person: Any, empty_s: float = 8.0, there_s: float = 3.0) -> None:
        self._person, self._empty_s, self._there_s = person, empty_s, there_s
        empty = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 96, np.uint8), "bgr24")
        self._empty = empty.reformat(WIDTH, HEIGHT, "yuv420p")
        self.entered: list[float] = []

    def __call__(self, request: Any) -> None:
        """Answer a request for the stream."""
        request.send_response(200)
        request.send_header("Content-Type", "video/mp2t")
        request.end_headers()
        with av.open(
            _Wire(request.wfile), "w", format="mpegts", options={"flush_packets": "1"}, buffer_size=1316
        ) as output:
            stream: Any = output.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(RATE), "bf": "0"}
            began, there = time.monotonic(), False
            for number in range(10**9):
                time.sleep(max(0.0, began + number / RATE - time.monotonic()))
                present = (number / RATE) % (self._empty_s + self._there_s) >= self._empty_s
                if present and not there:
                    self.entered.append(time.time())
                there = present
                frame = self._person if present else self._empty
                frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, RATE), 0
                output.mux(stream.encode(frame))


class _Wire:
    """What FFmpeg writes goes out at once."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._file.flush()
        return len(data)


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[Watch]:
    """The watch while it runs."""
    stop = threading.Event()
    thread = threading.Thread(target=watch.run, args=(stop,))
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()


def latency(clip: Path, seconds: float, folder: Path) -> dict[str, Any]:
    """From the moment a frame with somebody is given to the camera's encoder to the event, at five samples a second."""
    person = frames_of(clip, 20)[-1]
    found: dict[str, Any] = {}
    for sightings in (1, 3):
        camera = Camera(person)
        file = folder / f"events-{sightings}.jsonl"
        with live_kit.answering(camera) as port:
            options = WatchOptions(
                sampling=Sampling(every_s=0.2),
                device="cpu",
                events=str(file),
                rules=AlarmRules(
                    labels=("without_mask", "with_mask", "mask_weared_incorrect"),
                    sightings=sightings,
                    share=0.3,
                    cooldown_s=5.0,
                ),
            )
            with watched(Watch(cameras_of([f"gate=http://127.0.0.1:{port}/"]), options)) as watch:
                told: list[float] = []
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    lines = file.read_text().splitlines() if file.exists() else []
                    told += [time.time()] * (len([x for x in lines if '"no_mask"' in x]) - len(told))
                    time.sleep(0.01)
                dropped = watch.view().cameras[0].dropped
        delays = [min((t - e for t in told if t >= e), default=float("nan")) for e in camera.entered]
        delays = [round(d, 2) for d in delays if d < 5]
        name = f"glass to event, {sightings} sighting{'s' if sightings > 1 else ''} (s)"
        found[name] = {
            "median": statistics.median(delays),
            "worst": max(delays),
            "events": len(delays),
            "dropped": dropped,
        }
    return found


def cameras(clip: Path, seconds: float, folder: Path) -> dict[str, Any]:
    """Four 720p25 cameras over RTSP at a sample a second."""
    (folder / "rtsp").mkdir()
    write_720p(clip, folder / "rtsp" / "clip.mp4", round(seconds) + 30)
    server = live_kit.RtspServer(folder / "rtsp")
    try:
        named = [f"cam{i}=rtsp://127.0.0.1:{server.port}/clip.mp4" for i in range(4)]
        options = WatchOptions(out=f"{folder}/live/", track=True, device="cpu")
        with watched(Watch(cameras_of(named), options)) as watch:
            live_kit.wait_for(lambda: all(c.samples for c in watch.view().cameras), 60)
            process = psutil.Process()
            cpu, began = sum(process.cpu_times()[:2]), time.monotonic()
            time.sleep(seconds)
            view = watch.view()
            used = (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - began)
        return {
            "four cameras at 1 sample/s": {
                "looked at": [c.samples for c in view.cameras],
                "dropped": [c.dropped for c in view.cameras],
                "latency s": [round(c.latency_s, 2) for c in view.cameras],
                "cores used": round(used, 2),
            }
        }
    finally:
        server.close()


def stop(clip: Path, _seconds: float, folder: Path) -> dict[str, Any]:
    """SIGTERM to the command: seconds until it has ended, and whether all rows are there."""
    import pyarrow.parquet as pq

    write_720p(clip, folder / "stop.mp4", 20)
    data = live_kit.transport_stream(folder / "stop.mp4")
    with live_kit.answering(live_kit.sending(*[data] * 20)) as port:
        named = [f"cam{i}=http://127.0.0.1:{port}/" for i in range(2)] + [
            f"down=http://127.0.0.1:{live_kit.free_port()}/"
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "maskbatch", "watch", *named, "--out", f"{folder}/stop/", "--device", "cpu", "-q"]
        )
        live_kit.wait_for((folder / "stop.run.json").exists, 60)
        time.sleep(8)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait()
        took = time.monotonic() - began
    inputs = pq.read_table(folder / "stop.inputs.parquet").to_pylist()
    rows = sum(pq.read_metadata(f).num_rows for f in (folder / "stop").rglob("camera=cam*/**/*.parquet"))
    return {"SIGTERM to end (s)": {"seconds": round(took, 2), "faces": sum(r["faces"] for r in inputs), "rows": rows}}


def back(clip: Path, _seconds: float, folder: Path) -> dict[str, Any]:
    """A server that is killed and started again: seconds until its camera is live."""
    (folder / "back").mkdir()
    write_720p(clip, folder / "back" / "clip.mp4", 60)
    server = live_kit.RtspServer(folder / "back")
    found = []
    try:
        named = [f"gate=rtsp://127.0.0.1:{server.port}/clip.mp4"]
        with watched(Watch(cameras_of(named), WatchOptions(device="cpu"))) as watch:
            for down_s in (1.0, 6.0, 12.0):
                live_kit.wait_for(lambda: watch.view().cameras[0].state == "live", 60)
                server.close()
                live_kit.wait_for(lambda: watch.view().cameras[0].state == "lost", 30)
                time.sleep(down_s)
                server = live_kit.RtspServer(folder / "back", server.port)
                began = time.monotonic()
                live_kit.wait_for(lambda: watch.view().cameras[0].state == "live", 60)
                found.append(round(time.monotonic() - began, 1))
    finally:
        server.close()
    return {"back after 1, 6, 12 s down (s)": found}


def memory(clip: Path, seconds: float, folder: Path) -> dict[str, Any]:
    """Recordings at eight times their speed, over and over: resident memory of the process, by tenths of the time."""
    write_720p(clip, folder / "memory.mp4", 60)
    live_kit.write_hls(folder / "memory.mp4", folder / "hls")
    with live_kit.serving(folder / "hls") as port:
        options = WatchOptions(
            out=f"{folder}/memory/", track=True, device="cpu", speed=8.0, commit_s=5.0, events=os.devnull
        )
        with watched(Watch(cameras_of([f"gate=http://127.0.0.1:{port}/stream.m3u8"]), options)) as watch:
            process, sizes = psutil.Process(), []
            for _ in range(10):
                time.sleep(seconds / 10)
                sizes.append(round(process.memory_info().rss / 1e6))
            camera = watch.view().cameras[0]
    return {
        "memory at 8 x (MB)": {
            "by tenths": sizes, "connections": camera.connects, "looked at": camera.samples, "dropped": camera.dropped
        }
    }  # fmt: skip


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default=",".join(EVERY))
    given = parser.parse_args()
    measures = {"latency": latency, "cameras": cameras, "stop": stop, "back": back, "memory": memory}
    print(
        json.dumps({"cpus": os.cpu_count(), "load": [round(x, 1) for x in os.getloadavg()], "seconds": given.seconds})
    )
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for what, value in measures[name](given.clip, given.seconds, Path(folder)).items():
                print(f"{what}: {json.dumps(value)}", flush=True)


if __name__ == "__main__":
    main()
