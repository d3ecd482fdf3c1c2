"""`pip install maskbatch` without a runtime: every command that needs one says how to install it, in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from red_squares import write_archive, write_voc

BLOCKED = "import sys; sys.modules['onnxruntime'] = None; from maskbatch.cli import main; main()"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    "command", ["scan", "scan --dry-run", "scan --executor inline", "demo", "evaluate", "warmup", "bench"]
)
def test_a_missing_runtime_is_one_sentence(command: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "in", video=False)
    data = write_voc(tmp_path / "voc", {"blue": "a", "green": "b", "dark": "c"})
    first, *more = command.split()
    arguments: dict[str, list[object]] = {
        "scan": [archive, "--out", tmp_path / "r.parquet"],
        "demo": [tmp_path / "demo"],
        "evaluate": [data],
        "warmup": [],
        "bench": [archive],
    }
    done = run(first, *arguments[first], *more)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ONNX Runtime ")
    assert "pip install 'maskbatch[cpu]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_doctor_names_it_among_its_checks() -> None:
    done = run("doctor")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "maskbatch[cpu]" in done.stdout


@pytest.mark.parametrize("command", [["--help"], ["models", "list"], ["scan", "--help"], ["--version"]])
def test_what_needs_no_runtime_works_without_one(command: list[str]) -> None:
    assert run(*command).returncode == 0
