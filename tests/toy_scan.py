"""A scan of the synthetic archive with toy models: a result of many faces in a second, the same on any processor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx_maker
import pytest
import toy_detector
from red_squares import write_archive

import maskbatch
from maskbatch.detect.families import DETECTORS
from maskbatch.tasks.mask import LABELS


def toy_scan(folder: Path, out: str = "results.parquet", **settings: Any) -> Path:
    """Scan `write_archive` below a folder.

    Args:
        folder: gets ``in/`` and the models.
        out: of the result, relative to the folder; ends with ``/`` for a data set.
        settings: as for `maskbatch.scan`.

    Returns:
        The result: five images with seven faces (one without any, one broken beside them), and a video with a face in each of its six seconds.
    """
    archive = write_archive(folder / "in")
    (folder / "own.onnx").write_bytes(onnx_maker.share_classifier(LABELS))
    (folder / "site").mkdir()
    with pytest.MonkeyPatch.context() as patch:  # as the fixture `red_model`, for the length of the scan
        model = toy_detector.install(folder / "site")
        patch.syspath_prepend(str(folder / "site"))
        DETECTORS.__dict__.pop("_plugins", None)
        fixed = {"classifier": str(folder / "own.onnx"), "det_size": 320, "executor": "inline", "device": "cpu"}
        maskbatch.scan([archive], f"{folder}/{out}", detector=f"red:{model}", **(fixed | settings))  # type: ignore[arg-type]
        DETECTORS.__dict__.pop("_plugins", None)
    return folder / out


def copy_result(folder: Path, to: Path) -> Path:
    """Copy ``results.parquet`` and the files beside it, for a test that changes them."""
    for path in folder.glob("results.*"):
        if path.is_file():
            shutil.copy(path, to)
    return to / "results.parquet"
