"""Archives, faults and hostile workers for the durability tests. Spawned workers import this module too."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

import maskbatch.pipeline.decode
from maskbatch.config import Execution, ModelSettings, Sampling, ScanConfig
from maskbatch.jobs.executors.base import Worker
from maskbatch.jobs.ledger import Ledger
from maskbatch.pipeline.worker import ScanWorkerSpec
from maskbatch.scanning.run import scan
from maskbatch.scanning.summary import ScanSummary
from maskbatch.storage import atomic
from maskbatch.storage.atomic import FileOps
from maskbatch.storage.local import LocalStore
from maskbatch.types import Frame, ProgressCallback, Split, UnitRows, WorkUnit

Image = npt.NDArray[np.uint8]

CONFIG = ScanConfig(
    models=ModelSettings(det_size=160, min_score=0.4),
    sampling=Sampling(mode="all"),
    execution=Execution(
        device="cpu", executor="inline", workers=1, unit_images=3, unit_seconds=1.0, decode_threads=1, timeout_s=60.0
    ),
)
"""Small pictures, small units, no processes: everything happens, and quickly."""

PROCESSES = replace(CONFIG, execution=replace(CONFIG.execution, executor="processes", workers=2))
"""The same settings of the rows, with two spawned workers."""

COMMAND = replace(CONFIG, execution=replace(CONFIG.execution, unit_seconds=Execution().unit_seconds))
"""The settings of a command line with the options `OPTIONS`, but inline."""

OPTIONS = (*("--det-size", "160", "--min-score", "0.4", "--all", "--device", "cpu", "--workers", "2"),)


def command(archive: Path, out: Path, *options: str) -> list[str]:
    """The real command line."""
    return [sys.executable, "-m", "maskbatch", "scan", str(archive), "--out", str(out), *OPTIONS, *options]


# --- archives


def write_jpeg(path: Path, image: Image, marker: bytes = b"") -> None:
    """A JPEG file; `marker` is put behind its end, where no decoder looks."""
    ok, data = cv2.imencode(".jpg", image)
    assert ok
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes() + marker)


def face_picture(photo: Image, number: int, side: int = 160) -> Image:
    """The head of the portrait at one of some sizes and places on a grey ground, `side` pixels wide and 3/4 as high."""
    height = side * 3 // 4
    head = photo[20:260, 120:360]
    scale = (0.7 + 0.07 * (number % 5)) * height / head.shape[0]
    face = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = np.full((height, side, 3), 60 + 17 * (number % 9), np.uint8)
    left = (number * 13) % (side - face.shape[1])
    picture[: face.shape[0], left : left + face.shape[1]] = face if number % 2 else face[:, ::-1]
    return picture


def write_video(path: Path, photo: Image, seconds: float, rate: int = 10) -> None:
    """An H.264 video of the portrait that wanders, a key frame each second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": str(rate), "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(round(seconds * rate)):
            picture = face_picture(photo, 5 * (number // rate))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(picture, number, axis=1)), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_archive(folder: Path, photo: Image, *, pictures: int = 6, video_s: float = 3.0, broken: bool = True) -> Path:
    """A folder with face pictures, a video (none if `video_s` is 0), and three files that cannot be read."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        write_jpeg(folder / f"{number % 2}" / f"p{number:04d}.jpg", face_picture(photo, number))
    if video_s:
        write_video(folder / "clip.mp4", photo, video_s)
    if broken:
        (folder / "empty.jpg").write_bytes(b"")
        (folder / "letter.png").write_text("this is no picture")
        (folder / "cut.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    return folder


def inputs_in(folder: Path) -> int:
    """Files below a folder; all of them are inputs in these tests."""
    return sum(len(files) for _, _, files in os.walk(folder))


# --- runs and their results


def run(archive: Path, out: Path, config: ScanConfig = CONFIG, **options: Any) -> ScanSummary:
    """Scan, and check that every input is accounted for."""
    summary = scan([archive], out, config, **options)
    rows = input_rows(out)
    assert len(rows) == summary.inputs == inputs_in(archive)
    assert len({row["source"] for row in rows}) == len(rows)
    assert all(row["status"] == "ok" or (row["error"] and row["message"]) for row in rows)
    return summary


def input_rows(out: Path) -> list[dict[str, Any]]:
    """The inputs table that belongs to a result."""
    rows: list[dict[str, Any]] = pq.read_table(out.with_name(f"{out.stem}.inputs.parquet")).to_pylist()
    return rows


def input_row(out: Path, source: str) -> dict[str, Any]:
    """One row of it."""
    (row,) = [row for row in input_rows(out) if row["source"] == source]
    return row


def work_of(out: Path) -> Path:
    """The work folder of a result."""
    return out.with_name(f"{out.stem}.work")


def done_inputs(out: Path) -> set[str]:
    """Names of the inputs of which some receipt that holds says anything."""
    return {name for name, _ in Ledger(LocalStore(work_of(out))).done()}


def receipt_times(out: Path) -> dict[str, int]:
    """When each receipt was written."""
    folder = work_of(out) / "receipts"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.json")} if folder.is_dir() else {}


def newly_done(out: Path, before: dict[str, int]) -> list[str]:
    """The inputs whose receipts were written since `before` (one entry per piece)."""
    ledger = Ledger(LocalStore(work_of(out)))
    new = {name.removesuffix(".json") for name, at in receipt_times(out).items() if before.get(name) != at}
    return sorted(result.name for receipt in ledger.receipts() if receipt.unit in new for result in receipt.results)


def leftovers(folder: Path) -> list[str]:
    """Temporary files below a folder."""
    return sorted(path.name for path in folder.rglob("*.tmp"))


# --- faults

FAULTS = (errno.EIO, errno.ENOSPC)


class CountingOps(FileOps):
    """Counts file operations and does something at the nth (from 1); `at=0` only counts."""

    def __init__(self, at: int = 0, action: Callable[[], None] = lambda: None) -> None:
        self.at = at
        self.action = action
        self.calls: list[str] = []

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.at:
            self.action()

    def open(self, path: Path) -> IO[bytes]:
        self._step(f"open {path.name}")
        return super().open(path)

    def write(self, file: IO[bytes], data: bytes) -> None:
        half = len(data) // 2 if len(self.calls) + 1 == self.at else 0
        if half:
            super().write(file, data[:half])  # what a full disk or a kill leaves
            file.flush()
        self._step("write")
        super().write(file, data[half:])

    def fsync(self, fileno: int) -> None:
        self._step("fsync")  # its place is what counts; waiting for a disk thousands of times would prove nothing more

    def rename(self, old: Path, new: Path) -> None:
        self._step(f"rename {new.name}")
        super().rename(old, new)


def failing(number: int) -> Callable[[], None]:
    """An action that raises this error number once."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


class FailingReceipt(FileOps):
    """The disk is full at the nth receipt (from 1)."""

    def __init__(self, number: int) -> None:
        self.left = number

    def rename(self, old: Path, new: Path) -> None:
        if new.parent.name == "receipts":
            self.left -= 1
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().rename(old, new)


def kill_myself() -> None:
    """An action: what a power loss or the kernel's memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def installed(ops: FileOps) -> Iterator[FileOps]:
    """`ops` in place of the default ones in this process."""
    before, atomic.default_ops = atomic.default_ops, ops
    try:
        yield ops
    finally:
        atomic.default_ops = before


# --- workers that misbehave

CRASH, HANG, EAT, RAISE = b"CRASH", b"HANG!", b"EAT!!", b"RAISE"
MARKERS = (CRASH, HANG, EAT, RAISE)


@dataclass(frozen=True)
class HostileSpec(ScanWorkerSpec):
    """A real worker whose picture decoder crashes, hangs, eats memory or raises on files that end in a marker."""

    def open(self) -> Worker:  # type: ignore[override]
        maskbatch.pipeline.decode.decode_image = _hostile_decoder(maskbatch.pipeline.decode.decode_image)
        return super().open()


def _hostile_decoder(decode: Callable[..., Frame]) -> Callable[..., Frame]:
    def hostile(data: bytes, **settings: Any) -> Frame:
        if data.endswith(CRASH):
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(30)
        elif data.endswith(HANG):
            time.sleep(600)
        elif data.endswith(EAT):
            eaten = np.ones(1300 << 20, np.uint8)
            time.sleep(600)
            assert eaten[0]
        return decode(data, **settings)

    return hostile


@dataclass(frozen=True)
class ClumsySpec(ScanWorkerSpec):
    """A worker that raises (as a defect of ours would) when the first picture of a unit has a marker."""

    def open(self) -> Worker:  # type: ignore[override]
        return _ClumsyWorker(super().open())


class _ClumsyWorker:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, unit: WorkUnit, report: ProgressCallback) -> UnitRows | Split:
        if any(Path(piece.source.path).read_bytes().endswith(RAISE) for piece in unit.pieces):
            raise ZeroDivisionError("a defect")
        return self._worker.run(unit, report)

    def close(self) -> None:
        self._worker.close()


@dataclass(frozen=True)
class SlowSpec(ScanWorkerSpec):
    """A worker that takes its time over every unit, so that kills at random times hit it at work."""

    def open(self) -> Worker:  # type: ignore[override]
        return _SlowWorker(super().open())


class _SlowWorker:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, unit: WorkUnit, report: ProgressCallback) -> UnitRows | Split:
        for _ in unit.pieces:
            time.sleep(0.02)
            report("tick", 0)
        return self._worker.run(unit, report)

    def close(self) -> None:
        self._worker.close()


@dataclass(frozen=True)
class MortalSpec(ScanWorkerSpec):
    """A worker that kills itself at its nth file operation, once per `marker` file."""

    at: int = 1
    marker: Path = Path("killed")

    def open(self) -> Worker:  # type: ignore[override]
        atomic.default_ops = CountingOps(self.at, self._die_once)
        return super().open()

    def _die_once(self) -> None:
        if not self.marker.exists():
            self.marker.touch()
            kill_myself()


def spec_factory(kind: type[ScanWorkerSpec], **extra: Any) -> Callable[..., ScanWorkerSpec]:
    """What to put in place of `maskbatch.scanning.process.ScanWorkerSpec`, so that a scan uses these workers."""
    return lambda config, devices: kind(config, devices, **extra)
