"""A worker per GPU, each on its own. The devices here are simulated: no GPU runs in these tests."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scan_maker import CONFIG, make_tree

import maskbatch
from maskbatch.config import ScanConfig
from maskbatch.pipeline.worker import ScanWorker, ScanWorkerSpec
from maskbatch.runtime import Device, devices, list_devices
from maskbatch.scanning.discover import resolve_auto

CPU = Device("cpu", "CPUExecutionProvider")


def gpus(count: int) -> tuple[Device, ...]:
    return tuple(
        Device("cuda", "CUDAExecutionProvider", index, decode_threads=2, hardware=f"GPU {index}")
        for index in range(count)
    )


@pytest.mark.parametrize(("asked", "expected"), [(0, 3), (1, 1), (6, 6)])
def test_there_is_a_worker_per_gpu_unless_told_otherwise(asked: int, expected: int) -> None:
    config = ScanConfig().with_options(workers=asked)
    assert resolve_auto(config, gpus(3)).execution.workers == expected


def test_workers_take_the_gpus_in_turn() -> None:
    spec = ScanWorkerSpec(CONFIG, gpus(3))
    assert spec.gpus == 3
    assert [spec.for_worker(number).devices[0].index for number in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert ScanWorkerSpec(CONFIG, (CPU,)).gpus == 0


def test_every_visible_gpu_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "why_not", lambda _name, _index=0: "")
    monkeypatch.setattr(devices, "visible_gpus", lambda: ("GPU a", "GPU b"))
    found = list_devices("cuda")
    assert [(device.index, device.hardware) for device in found] == [(0, "GPU a"), (1, "GPU b")]
    assert list_devices("auto") == found


@dataclass(frozen=True)
class RecordingSpec(ScanWorkerSpec):
    """Notes on which device each worker process was to run, and then works on the CPU."""

    folder: Path = Path()

    def open(self) -> ScanWorker:
        (self.folder / str(os.getpid())).write_text(json.dumps([device.index for device in self.devices]))
        return replace(self, devices=(CPU,))._open_real()

    def _open_real(self) -> ScanWorker:
        return ScanWorkerSpec.open(self)


def test_worker_processes_get_one_gpu_each(
    tmp_path: Path, face_photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "in", face_photo, video_s=0)
    config = replace(CONFIG, execution=replace(CONFIG.execution, executor="processes", workers=0, unit_images=1))
    maskbatch.scan(tree, tmp_path / "clean.parquet", CONFIG)
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.setattr("maskbatch.scanning.discover.list_devices", lambda _name: (CPU,))
    monkeypatch.setattr(
        "maskbatch.scanning.process.ScanWorkerSpec",
        lambda scan_config, _devices: RecordingSpec(scan_config, gpus(2), notes),
    )
    monkeypatch.setattr("maskbatch.scanning.discover.usable_cpus", lambda: 2)
    summary = maskbatch.scan(tree, tmp_path / "results.parquet", config)
    assert summary.workers == 2
    assert sorted(path.read_text() for path in notes.iterdir()) == ["[0]", "[1]"]
    assert (tmp_path / "results.parquet").read_bytes() == (tmp_path / "clean.parquet").read_bytes()
