"""A detector family as another package would bring it: faces are red squares of one size. Its arithmetic is exact on any processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_maker

from maskbatch.detect.base import Array, Candidates, DetectorFamily, LetterboxDetector, Preparation
from maskbatch.detect.letterbox import Bucket
from maskbatch.types import Session

CELL = 32


def read_red(outputs: Sequence[Array], row: int, bucket: Bucket, min_score: float) -> Candidates:
    """A box of 64×64 around every cell that is red enough; the eyes, nose and mouth are where they always are."""
    heat = outputs[0][row, 0]
    rows, columns = np.nonzero(heat >= min_score)
    middle = np.stack([columns, rows], axis=1).astype(np.float32) * CELL + CELL / 2
    points = np.array([[-16, -8], [16, -8], [0, 4], [-12, 16], [12, 16]], np.float32)
    return Candidates(
        np.concatenate([middle - CELL, middle + CELL], axis=1), heat[rows, columns], middle[:, None] + points[None]
    )


def make_red(name: str, session: Session, buckets: tuple[Bucket, ...], min_score: float) -> LetterboxDetector:
    return LetterboxDetector(name, session, read_red, buckets, min_score=min_score, preparation=Preparation("NCHW"))


FAMILY = DetectorFamily("red", lambda outputs: outputs == ("heat",), make_red)


def install(folder: Path) -> Path:
    """Make the family known to every Python that has `folder` on its path, as pip would; the model file to use it with."""
    tests = Path(__file__).parent
    for module in ("toy_detector.py", "onnx_maker.py"):
        (folder / module).write_bytes((tests / module).read_bytes())
    info = folder / "toy_detector-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-detector\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[maskbatch.detectors]\nred = toy_detector:FAMILY\n")
    model = folder / "red.onnx"
    model.write_bytes(onnx_maker.red_detector(CELL))
    return model
