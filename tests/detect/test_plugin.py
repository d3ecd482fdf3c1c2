"""A detector family that another package brings works like ours, on the command line, in worker processes and in reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx_maker
import pytest
from red_squares import write_archive

import maskbatch
from maskbatch.detect import DETECTORS, find_detector
from maskbatch.errors import ModelError, UsageError
from maskbatch.tasks.mask import LABELS


def test_a_plugin_is_a_family_like_ours(red_model: Path) -> None:
    assert DETECTORS.names == ("retinaface", "yunet", "scrfd", "centerface", "red")
    assert find_detector(f"red:{red_model}").family == "red"
    assert find_detector(str(red_model)).family == "red", "its outputs tell"


def test_a_plugin_scans_in_worker_processes(red_model: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "in")
    (tmp_path / "own.onnx").write_bytes(onnx_maker.share_classifier(LABELS))
    out = tmp_path / "results.parquet"
    words = ["scan", archive, "--out", out, "--detector", f"red:{red_model}", "--classifier", tmp_path / "own.onnx"]
    settings = ["--det-size", 320, "--device", "cpu", "-j", 2, "--quiet"]
    command = [sys.executable, "-m", "maskbatch", *map(str, words), *map(str, settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    faces = maskbatch.read_results(out)
    assert len(faces) == 13
    first = faces.iloc[0]
    assert (first["x1"], first["y1"], first["x2"], first["y2"]) == (16, 16, 80, 80)


def test_without_the_package_the_family_is_unknown(tmp_path: Path) -> None:
    model = tmp_path / "red.onnx"
    model.write_bytes(onnx_maker.red_detector())
    with pytest.raises(UsageError, match=r"or FAMILY:PATH\.onnx with one of retinaface, yunet, scrfd, centerface$"):
        find_detector(f"red:{model}x")
    with pytest.raises(ModelError, match="as no known detector has: name the family"):
        find_detector(str(model))
