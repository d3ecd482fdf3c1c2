"""Kernels and scans in turn, so that whatever else the machine does falls on both; medians; the one over the other."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from maskbatch.config import ScanConfig
from maskbatch.diagnose.bench.kernels import STAGES, KernelBench, KernelTimes, spread
from maskbatch.diagnose.bench.runs import ScanRun, run_scan
from maskbatch.runtime import Device
from maskbatch.runtime.cpu import cpu_name
from maskbatch.types import Source


@dataclass(slots=True)
class SpeedComparison:
    """The rounds of one set of inputs."""

    cores: int
    kernels: list[KernelTimes] = field(default_factory=list)
    scans: list[ScanRun] = field(default_factory=list)

    @property
    def kernel_ms(self) -> dict[str, float]:
        """Milliseconds of one core per frame, by stage: medians over the rounds."""
        return {stage: 1e3 * median(times.per_frame[stage] for times in self.kernels) for stage in STAGES}

    @property
    def ceiling(self) -> float:
        """Frames per second of all cores, doing nothing but kernels."""
        total = sum(self.kernel_ms.values())
        return 1e3 * self.cores / total if total else 0.0

    @property
    def frames_per_s(self) -> float:
        return median(scan.frames_per_s for scan in self.scans)

    @property
    def fraction(self) -> float:
        """The scan's speed over the ceiling."""
        return self.frames_per_s / self.ceiling if self.ceiling else 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, rounded to what is meant by it."""
        last = self.scans[-1]
        faces = float(last.summary["faces"])
        video_s = float(last.summary["video_s"])
        wall_s = median(float(scan.summary["wall_s"]) for scan in self.scans)
        firsts = [scan.first_s for scan in self.scans if scan.first_s is not None]
        return {
            "cores": self.cores,
            "workers": int(last.summary["workers"]),
            "inputs": int(last.summary["inputs"]),
            "frames": last.frames,
            "faces": int(faces),
            "rounds": len(self.scans),
            "kernel_ms_per_frame": {stage: round(value, 3) for stage, value in self.kernel_ms.items()},
            "ceiling_frames_per_s": round(self.ceiling, 2),
            "frames_per_s": round(self.frames_per_s, 2),
            "frames_per_s_of_each_round": [round(scan.frames_per_s, 2) for scan in self.scans],
            "ceiling_of_each_round": [round(times.ceiling(self.cores), 2) for times in self.kernels],
            "fraction_of_ceiling": round(self.fraction, 3),
            "kernels_share_of_workers": round(median(float(s.summary["ceiling_fraction"] or 0) for s in self.scans), 3),
            "faces_per_s": round(faces / wall_s, 1),
            "video_hours_per_hour": round(video_s / wall_s, 1) if video_s else None,
            "cpu_s_per_1000_frames": round(1e3 * median(scan.cpu_s for scan in self.scans) / max(1, last.frames), 2),
            "scan_s": round(wall_s, 3),
            "whole_command_s": round(median(scan.whole_s for scan in self.scans), 3),
            "first_result_s": round(median(firsts), 2) if firsts else None,
            "parent_mb": round(max(scan.parent_mb for scan in self.scans)),
            "worker_mb": round(max(scan.worker_mb for scan in self.scans)),
        }


def compare(
    sources: Sequence[Source],
    paths: Sequence[Path | str],
    config: ScanConfig,
    device: Device,
    *,
    options: Sequence[str] = (),
    rounds: int = 3,
    kernel_s: float = 5.0,
    told: Callable[[str], None] = lambda _text: None,
) -> SpeedComparison:
    """Measure one set of inputs.

    Args:
        sources: the inputs, as found.
        paths: the same, as the command line names them.
        config: settings of the kernels; `options` must say the same to the scans.
        device: where the models run.
        options: of `maskbatch scan`.
        rounds: of kernels and scan each.
        kernel_s: seconds of kernels per round.
        told: progress, a line at a time.
    """
    workers = config.execution.workers or os.cpu_count() or 1
    result = SpeedComparison(min(workers, os.cpu_count() or 1))
    bench = KernelBench(config, device)
    mixed = spread(sources, len(sources))
    bench.measure(mixed[:2], 0.0)  # the first pass of a model allocates its memory
    for number in range(rounds):
        times = bench.measure(mixed, kernel_s)
        result.kernels.append(times)
        scan = run_scan(paths, options)
        result.scans.append(scan)
        told(
            f"round {number + 1}: kernels alone {times.ceiling(result.cores):.1f} frames/s on {result.cores} cores, "
            f"scan {scan.frames_per_s:.1f} frames/s"
        )
    return result


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }
