"""Nothing leaves the machine: no name is looked up during a scan, and a fresh home folder holds nothing but ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from quiet_network import NOT_ALLOWED
from red_squares import write_archive

PROGRAM = Path(__file__).with_name("quiet_network.py")


def run_quietly(tmp_path: Path, *command: str) -> tuple[list[str], list[str], subprocess.CompletedProcess[str]]:
    """The names that a command looked up, the files in its fresh home folder, and how it ended."""
    home, notes = tmp_path / "home", tmp_path / "looked-up"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(notes), *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == NOT_ALLOWED:
        pytest.skip("this system does not allow network namespaces")
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return notes.read_text().splitlines(), files, done


def test_the_watch_sees_a_look_up(tmp_path: Path) -> None:
    code = "import socket\ntry: socket.getaddrinfo('collector.example', 443)\nexcept OSError: pass"
    names, _, done = run_quietly(tmp_path, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "collector.example" in names


def assert_ours(files: list[str]) -> None:
    """What `--precision auto` measured, and nothing else."""
    assert all(name.startswith(".cache/maskbatch/variants/") and name.endswith(".json") for name in files), files


@pytest.mark.parametrize("executor", ["processes", "inline"])
def test_a_scan_looks_nothing_up_and_leaves_only_the_choice_of_variants_at_home(executor: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "in")
    words = ["scan", str(archive), "--out", str(tmp_path / "results.parquet"), "--annotate", str(tmp_path / "a")]
    settings = ["--device", "cpu", "-j", "2", "--executor", executor, "--quiet"]
    names, files, done = run_quietly(tmp_path, sys.executable, "-m", "maskbatch", *words, *settings)
    assert done.returncode == 3, done.stderr
    assert names == []
    assert_ours(files)
    assert done.stderr == ""


def test_python_users_are_as_private(tmp_path: Path) -> None:
    code = (
        "import maskbatch\nfrom maskbatch.detect import make_detector\nfrom maskbatch.runtime import resolve_device\n"
        "make_detector(maskbatch.ModelSettings(), resolve_device('cpu')).warm_up()"
    )
    names, files, done = run_quietly(tmp_path, sys.executable, "-c", code)
    assert (done.returncode, names) == (0, []), done.stderr
    assert_ours(files)
