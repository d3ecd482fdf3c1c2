"""Are people counted once? `python benchmarks/walkers.py`: synthetic passers-by with known truth, at several sampling rates.

A camera sees five metres of a path. People walk through it both ways, at .5 to 2 m/s, some stop, paths cross; a detector misses some sightings, trembles, and is
unsure now and then. Printed is the count of tracks over that of people who were seen at all, and how often a track changes the person.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from maskbatch.results.tracks import track_video

WIDTH, HEIGHT = 1280, 720
FACE_M = 0.16
MISSED = 0.05
TREMBLE = 0.04
"""Of a face's side."""


@dataclass(frozen=True)
class Walkers:
    """Who walks by.

    Attributes:
        people: how many are in the picture at a time, on average.
        speeds: metres a second, from … to.
        seconds: length of the recording.
        stops: share of people who stand still for a while on the way.
    """

    people: float
    speeds: tuple[float, float] = (0.5, 2.0)
    seconds: float = 300.0
    stops: float = 0.15


def make(walkers: Walkers, fps: float, seed: int) -> tuple[pa.Table, np.ndarray]:
    """Rows as the tracker takes them, and the person of each."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, float, float, float, float, float, int]] = []
    clock = -30.0
    person = 0
    while clock < walkers.seconds:
        side = float(np.exp(rng.uniform(np.log(24), np.log(60))))
        metre = side / FACE_M
        speed = rng.uniform(*walkers.speeds) * metre
        stay = (WIDTH + side) / speed
        mean_stay = 6.0
        clock += rng.exponential(mean_stay / walkers.people)
        right = rng.random() < 0.5
        y0, y1 = rng.uniform(60, HEIGHT - 160, 2) if rng.random() < 0.3 else [rng.uniform(60, HEIGHT - 160)] * 2
        pause_at, pause = (
            (rng.uniform(0.2, 0.8) * stay, rng.uniform(2, 8)) if rng.random() < walkers.stops else (stay, 0.0)
        )
        bob = rng.uniform(0, 2 * np.pi)
        for number in range(int(np.ceil(clock * fps)), int((clock + stay + pause) * fps) + 1):
            t = number / fps
            walked = t - clock
            walked = walked if walked < pause_at else max(pause_at, walked - pause)
            share = walked / stay
            x = -side + share * (WIDTH + side)
            x = x if right else WIDTH - side - x
            y = y0 + (y1 - y0) * share + 0.1 * side * np.sin(bob + 6 * t)
            if not 0 <= t < walkers.seconds or x < -0.3 * side or x > WIDTH - 0.7 * side or rng.random() < MISSED:
                continue
            moved = rng.normal(0, TREMBLE * side, 4)
            score = float(np.clip(rng.normal(0.8, 0.12), 0.41, 0.99))
            rows.append((t, x + moved[0], y + moved[1], x + side + moved[2], y + 1.2 * side + moved[3], score, person))
        person += 1
    rows.sort(key=lambda row: (row[0], -row[5]))
    columns = list(zip(*rows, strict=True))
    frames = np.unique(columns[0], return_inverse=True)[1]
    names = ("time_s", "x1", "y1", "x2", "y2", "score")
    table = pa.table({"frame": pa.array(frames), **{name: pa.array(columns[at]) for at, name in enumerate(names)}})
    return table, np.array(columns[6])


def measure(walkers: Walkers, fps: float, seeds: int) -> dict[str, Any]:
    ratios, switches, sightings = [], 0, 0
    for seed in range(seeds):
        table, truth = make(walkers, fps, seed)
        found = np.array([-1 if value is None else value for value in track_video(table).to_pylist()])
        counted = np.unique(found[found >= 0])
        ratios.append(len(counted) / len(np.unique(truth)))
        for track in counted:
            people = truth[found == track]
            switches += int((np.diff(people) != 0).sum())
            sightings += len(people)
    return {
        "people_at_a_time": walkers.people,
        "fps": fps,
        "count_over_truth": round(float(np.mean(ratios)), 3),
        "worst": round(float(max(ratios, key=lambda ratio: abs(ratio - 1))), 3),
        "changes_per_100_sightings": round(100 * switches / max(1, sightings), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fps", type=float, nargs="+", default=[1.0, 2.0, 3.0, 5.0, 10.0])
    given = parser.parse_args()
    for people in (1.0, 3.0, 10.0):
        for fps in given.fps:
            print(json.dumps(measure(Walkers(people), fps, given.seeds)), flush=True)
    for speed in (0.8, 2.0):
        for fps in given.fps:
            found = measure(Walkers(1.0, (speed, speed), stops=0.0), fps, given.seeds)
            print(json.dumps({"speed": speed, **found}), flush=True)


if __name__ == "__main__":
    main()
