"""Milliseconds of ONNX files side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskbatch_export.detector.evaluate import open_session


@dataclass(frozen=True)
class Timing:
    """One file's milliseconds per image; ``ratio`` is the median of its rounds over the first file's same rounds."""

    name: str
    median: float
    least: float
    ratio: float


def compare(paths: Sequence[Path], size: int = 640, rounds: int = 40) -> list[Timing]:
    """Run each file once per round, in turn, on one thread; uint8 NHWC or float NCHW, as the file wants."""
    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(picture.transpose(0, 3, 1, 2).astype(np.float32))
    sessions = [open_session(path) for path in paths]
    feeds = []
    for session in sessions:
        given = session.get_inputs()[0]
        feeds.append({given.name: planes if given.type == "tensor(float)" else picture})
    times = np.zeros((rounds, len(paths)))
    for turn in range(-3, rounds):
        for i, (session, feed) in enumerate(zip(sessions, feeds, strict=True)):
            begin = time.perf_counter()
            session.run(None, feed)
            if turn >= 0:
                times[turn, i] = (time.perf_counter() - begin) * 1e3
    ratios = np.median(times / times[:, :1], axis=0)
    return [
        Timing(path.name, float(np.median(times[:, i])), float(times[:, i].min()), float(ratios[i]))
        for i, path in enumerate(paths)
    ]
