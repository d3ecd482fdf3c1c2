"""What each executor costs on the same work: its start, and per image.

    python benchmarks/executors.py --images 300 --rounds 3

Each figure is a whole `maskbatch scan` in a process of its own, of N and of 2 N images; two points give the fixed cost and the cost
per image. Rounds go through all executors in turn, so that a machine that slows down slows all of them; the median counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

KINDS: dict[str, tuple[str, int]] = {
    "inline": ("inline", 1),
    "processes, 1 worker": ("processes", 1),
    "processes, 2 workers": ("processes", 2),
    "ray, 1 worker": ("ray", 1),
    "ray, 2 workers": ("ray", 2),
}


def make_pictures(folder: Path, count: int) -> None:
    """JPEG images of 960×540 with one face each, all different."""
    from skimage.data import astronaut

    face = cv2.resize(np.ascontiguousarray(astronaut()[:, :, ::-1]), (400, 400), interpolation=cv2.INTER_AREA)
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        picture = np.full((540, 960, 3), random.integers(40, 200, 3), np.uint8)
        x, y = int(random.integers(0, 560)), int(random.integers(0, 140))
        picture[y : y + 400, x : x + 400] = face
        cv2.imwrite(str(folder / f"p{number:06}.jpg"), picture)


def run(folder: Path, executor: str, workers: int) -> tuple[float, bytes]:
    """Seconds of the whole command, and the bytes of the result."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "results.parquet"
        command = [sys.executable, "-m", "maskbatch", "scan", str(folder), "--out", str(out), "--quiet"]
        command += ["--executor", executor, "-j", str(workers), "--device", "cpu", "--min-score", "0.5"]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return took, out.read_bytes()


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=300, help="N; the other point is 2 N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-ray", action="store_true")
    options = parser.parse_args()
    kinds = {name: kind for name, kind in KINDS.items() if not (options.no_ray and kind[0] == "ray")}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as scratch:
        few, many = Path(scratch) / "few", Path(scratch) / "many"
        make_pictures(few, options.pictures)
        make_pictures(many, 2 * options.pictures)
        results: set[bytes] = set()
        for _ in range(options.rounds):
            for name, (executor, workers) in kinds.items():
                short, data = run(few, executor, workers)
                long, _ = run(many, executor, workers)
                times[name].append((short, long))
                results.add(data)
    if len(results) != 1:
        sys.exit("the executors do not agree")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; load ",
        end="",
    )
    print(" ".join(f"{value:.1f}" for value in os.getloadavg()))
    print(
        f"medians of {options.rounds} rounds, {options.pictures} and {2 * options.pictures} pictures of 960×540, results equal\n"
    )
    print("| executor | start and end, s | ms per image | images/s | 2 N images, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, pairs in times.items():
        short = statistics.median(pair[0] for pair in pairs)
        long = statistics.median(pair[1] for pair in pairs)
        each = (long - short) / options.pictures
        print(f"| {name} | {max(0.0, 2 * short - long):.1f} | {each * 1e3:.1f} | {1 / each:.1f} | {long:.1f} |")


if __name__ == "__main__":
    main()
