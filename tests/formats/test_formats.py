"""Results in other formats: everything arrives, nothing can run, and another package can add one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx_maker
import pandas as pd
import pytest
from red_squares import write_archive

import maskbatch
from maskbatch.errors import UsageError
from maskbatch.formats import FORMATS, convert
from maskbatch.tasks.mask import LABELS

PLUGIN = """
from pathlib import Path


class CountFormat:
    name = "count"
    title = "how many faces there are"

    def write(self, job):
        target = Path(job.out) / "count.txt"
        target.write_text(str(sum(len(table) for table in job.result.tables(["label"]))))
        return [target]


COUNT = CountFormat()
"""


@pytest.fixture
def result(tmp_path: Path, red_model: Path) -> Path:
    archive = write_archive(tmp_path / "in")
    (archive / "yard" / "plain.png").rename(archive / "yard" / "=1+1.png")
    (tmp_path / "own.onnx").write_bytes(onnx_maker.share_classifier(LABELS))
    out = tmp_path / "results.parquet"
    maskbatch.scan(
        [archive / "gate", archive / "yard"],
        out,
        detector=f"red:{red_model}",
        classifier=str(tmp_path / "own.onnx"),
        det_size=320,
        executor="inline",
        device="cpu",
        camera="=cmd|' /C calc'!A0",
    )
    return out


def test_csv_holds_every_face_and_no_formula(result: Path, tmp_path: Path) -> None:
    written = convert(str(result), "csv", tmp_path / "out").files
    assert [path.name for path in written] == ["faces.csv", "inputs.csv"]
    faces, expected = pd.read_csv(written[0]), maskbatch.read_results(result)
    assert len(faces) == len(expected) == 7
    assert faces["source"].tolist() == expected["source"].astype(str).tolist()
    assert faces["camera"].unique().tolist() == ["'=cmd|' /C calc'!A0"]
    for column in ("x1", "score", "p_with_mask", "confidence"):
        assert faces[column].to_numpy() == pytest.approx(expected[column].to_numpy())
    assert faces["left_eye_x"].iloc[0] == expected["landmarks"].iloc[0][0]
    assert faces["captured_at"].iloc[0] == "2026-03-01T08:00:00.000000Z"
    assert len(pd.read_csv(written[1])) == 6


def test_jsonl_is_an_object_per_face(result: Path, tmp_path: Path) -> None:
    (path,) = convert(str(result), "jsonl", tmp_path / "out").files
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    expected = maskbatch.read_results(result)
    assert [row["label"] for row in rows] == expected["label"].tolist()
    assert rows[0]["captured_at"] == "2026-03-01T08:00:00Z"
    assert rows[0]["frame"] is None
    assert len(rows[0]["landmarks"]) == 10


def test_another_package_brings_a_format(result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    info = site / "count_format-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "count_format.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: count-format\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[maskbatch.formats]\ncount = count_format:COUNT\nbad = count_format:NONE\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    command = [sys.executable, "-m", "maskbatch", "convert", str(result), "--out", str(tmp_path / "out"), "--to"]
    done = subprocess.run([*command, "count"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "count.txt").read_text() == "7"
    done = subprocess.run([*command, "bad"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the format 'bad' of the package count-format cannot be loaded" in done.stderr
    done = subprocess.run([*command, "xml"], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert (
        "there is no format called 'xml': use csv, jsonl, coco, voc, yolo, labelstudio, cvat, fiftyone, bad, count"
        in done.stderr
    )


def test_what_is_not_a_result_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(UsageError, match="not a result of maskbatch"):
        convert(str(tmp_path / "a.parquet"), "csv", tmp_path / "out")
    with pytest.raises(UsageError, match="no such result"):
        convert(str(tmp_path / "gone.parquet"), "csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert FORMATS.names[:2] == ("csv", "jsonl")
