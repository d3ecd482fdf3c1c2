"""The examples run as they stand, on small inputs, as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_maker
import pytest
from scan_maker import make_tree

from maskbatch.models import all_entries, entry_path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LABELS = ("cloth_mask", "surgical_mask", "no_mask", "face_shield")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, face_photo: npt.NDArray[np.uint8]) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree") / "photos", face_photo, pictures=8, video_s=2.0)


def run(cwd: Path, program: str, *words: object, path: str = "") -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)])), "MPLBACKEND": "Agg"}
    command = [sys.executable, str(EXAMPLES / program), *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scan_and_pandas(tree: Path, tmp_path: Path) -> None:
    text = run(tmp_path, "scan_and_pandas.py", tree)
    assert "faces in 10 inputs, exit code 3" in text
    assert "without_mask" in text
    assert "cam0/broken.jpg: error," in text


def test_by_hour(tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="the example needs duckdb (group scale)")
    text = run(tmp_path, "by_hour.py", "--synthetic", tmp_path / "week")
    assert "entrance" in text
    assert "share" in text


def test_own_classifier(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(onnx_maker.share_classifier(LABELS))
    text = run(tmp_path, "own_classifier.py", tree, tmp_path / "own.onnx")
    assert f"labels: {', '.join(LABELS)}" in text
    assert "p_face_shield" in text
    assert re.search(r"faces; cloth_mask: \d+%", text)


def test_frontal_detector_is_found_by_its_entry_point(tree: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "frontal_detector-0.1.0.dist-info"
    info.mkdir(parents=True)
    (site / "frontal_detector.py").write_bytes((EXAMPLES / "frontal_detector" / "frontal_detector.py").read_bytes())
    declared = (EXAMPLES / "frontal_detector" / "pyproject.toml").read_text()
    match = re.search(r'^frontal = "(.*)"$', declared, re.MULTILINE)
    assert match is not None
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frontal-detector\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[maskbatch.detectors]\nfrontal = {match[1]}\n")
    model = entry_path(next(entry for entry in all_entries() if entry.name == "retinaface"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [
        sys.executable,
        "-m",
        "maskbatch",
        "scan",
        tree,
        "--out",
        "r.parquet",
        "--detector",
        f"frontal:{model}",
        "--json",
    ]
    done = subprocess.run(
        [*map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert '"faces": 0' not in done.stdout


def test_profiles_are_dropped() -> None:
    sys.path.insert(0, str(EXAMPLES / "frontal_detector"))
    try:
        import frontal_detector
    finally:
        sys.path.pop(0)
    from maskbatch.detect.base import Candidates

    points = np.zeros((2, 5, 2), np.float32)
    points[:, 0], points[:, 1] = (10, 10), (30, 10)
    points[0, 2], points[1, 2] = (20, 18), (33, 18)
    found = frontal_detector.frontal(Candidates(np.zeros((2, 4), np.float32), np.array([0.9, 0.8], np.float32), points))
    assert found.scores.tolist() == pytest.approx([0.9])


def test_resume_and_status(tree: Path, tmp_path: Path) -> None:
    text = run(tmp_path, "resume_and_status.py", tree)
    assert "interrupted" in text
    assert re.search(r"\d+ of 10 inputs done, [1-9]\d* left", text)
    assert re.search(r"continued: [1-9]\d* were done already", text)


def test_the_blocks_of_the_python_document_run(tree: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 8
    (tmp_path / "photos").symlink_to(tree)
    (tmp_path / "blocks.py").write_text("\n".join(blocks))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "blocks.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "det_size (--det-size) must be a multiple of 32, not 100" in done.stdout
    assert "9 drawn, {}" in done.stdout
