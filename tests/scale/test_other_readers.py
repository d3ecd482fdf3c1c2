"""Our readers beside those of OpenCV, Pillow and FFmpeg."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from shared_data import REPOSITORY


@pytest.mark.slow
def test_what_two_other_readers_read_is_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "readers.py", "--damaged", "96", "--out", tmp_path / "table.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *_, total = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert total.split("|")[1].strip() == "all"
    assert total.split("|")[-2].strip() == "0"
