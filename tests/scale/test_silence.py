"""Whatever is scanned, nothing that is not ours reaches the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from shared_data import shared_folder

import maskbatch


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("executor", ["processes", "inline"])
def test_a_scan_of_everything_odd_is_silent(tmp_path: Path, executor: str) -> None:
    folders = [shared_folder() / "data" / name for name in ("media_corpus", "field_reports")]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("needs the media corpus and the field reports in ../shared/data")
    if executor == "inline":  # some of the videos are made to crash or to hang their decoder
        folders = [folders[0] / "image-rs", folders[1] / "pictures"]
    out = tmp_path / "results.parquet"
    done = subprocess.run(
        [sys.executable, "-m", "maskbatch", "scan", *folders, "--sniff", "--executor", executor, "--out", out, "-q"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    inputs = maskbatch.read_inputs(out)
    assert len(inputs) > 400
    assert set(inputs["status"]) == {"ok", "partial", "error"}
    assert (inputs["message"].notna() | (inputs["status"] == "ok")).all()
