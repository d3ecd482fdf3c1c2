"""Small archives, quick settings and workers that misbehave once, for tests of executors. Spawned workers import this module."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from maskbatch.config import Execution, ModelSettings, Sampling, ScanConfig
from maskbatch.errors import MissingExtraError
from maskbatch.jobs.executors.ray_cluster import import_ray
from maskbatch.pipeline.worker import ScanWorker, ScanWorkerSpec
from maskbatch.types import ProgressCallback, Split, UnitRows, WorkUnit

CONFIG = ScanConfig(
    models=ModelSettings(det_size=160),
    sampling=Sampling(every_s=0.5),
    execution=Execution(device="cpu", executor="inline", workers=2, unit_images=3, unit_seconds=1.0, decode_threads=1),
)

Deed = Literal["die", "hang", "fail"]


def ray_or_skip() -> Any:
    """Ray, imported as the executor does it (Ray reads its settings then); skips the test where it is not installed."""
    try:
        return import_ray()
    except MissingExtraError:
        pytest.skip("needs the extra ray")


def wait_for_ray(ray: Any, cpus: int, timeout_s: float = 600.0) -> None:
    """Return when so many workers of a cluster have started and can import what a scan needs.

    On a busy machine the first worker process of a fresh Ray took up to 100 s here (ten busy loops on two cores), longer than the
    time-outs that the tests are about. It is waited for once, before them.
    """

    def load() -> int:
        import os

        import maskbatch.pipeline.worker  # noqa: F401

        return os.getpid()

    deadline = time.monotonic() + timeout_s
    task = ray.remote(num_cpus=1)(load)
    ray.get([task.remote() for _ in range(cpus)], timeout=max(1.0, deadline - time.monotonic()))


def make_tree(folder: Path, photo: npt.NDArray[np.uint8], pictures: int = 12, video_s: float = 3.0) -> Path:
    """Pictures of two cameras, each face at another place and size, a video of several parts, and a file that is no picture."""
    photo = np.ascontiguousarray(photo[20:260, 110:350])  # head and shoulders
    for number in range(pictures):
        height = 80 + 5 * number
        face = cv2.resize(photo, (height, height), interpolation=cv2.INTER_AREA)
        picture = np.full((150, 200, 3), 40 + 15 * number, np.uint8)
        picture[:height, 5 * number : 5 * number + height] = face
        path = folder / f"cam{number % 2}" / f"2026-03-0{1 + number % 3}_12-00-{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture)
    if video_s:
        _write_video(folder / "clip.mp4", photo, video_s)
    (folder / "cam0" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


def _write_video(path: Path, photo: npt.NDArray[np.uint8], seconds: float, rate: int = 10) -> None:
    face = cv2.resize(photo, (120, 120), interpolation=cv2.INTER_AREA)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": str(rate), "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        for number in range(round(seconds * rate)):
            picture = np.full((128, 192, 3), 90, np.uint8)
            picture[:120, number : number + 120] = face
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())


@dataclass(frozen=True, slots=True)
class FaultySpec(ScanWorkerSpec):
    """A real worker that does something bad when it gets a certain input: once, or each time if `mark` is empty.

    Attributes:
        name: of the input.
        deed: ``die`` (SIGKILL to itself), ``hang`` (holding the interpreter, so that no other thread runs), ``fail`` (an exception).
        mark: a file that says that it has been done.
    """

    name: str = ""
    deed: Deed = "die"
    mark: str = ""

    def open(self) -> ScanWorker:
        return FaultyWorker(ScanWorkerSpec.open(self), self)  # type: ignore[return-value]


class FaultyWorker:
    """See `FaultySpec`."""

    def __init__(self, worker: ScanWorker, spec: FaultySpec) -> None:
        self._worker = worker
        self._spec = spec

    def run(self, unit: WorkUnit, report: ProgressCallback) -> UnitRows | Split:
        index = next((i for i, piece in enumerate(unit.pieces) if piece.source.name == self._spec.name), None)
        if index is not None and self._is_due():
            report("begin", index)
            self._misbehave()
        return self._worker.run(unit, report)

    def close(self) -> None:
        self._worker.close()

    def _is_due(self) -> bool:
        if not self._spec.mark:
            return True
        try:
            Path(self._spec.mark).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _misbehave(self) -> None:
        if self._spec.deed == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._spec.deed == "hang":
            ctypes.PyDLL(None).sleep(600)  # a PyDLL call keeps the interpreter lock
        else:
            raise RuntimeError("a library went wrong")
