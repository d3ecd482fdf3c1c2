"""One writer per output, and a disk that is really full."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from durability_kit import COMMAND, command, leftovers, receipt_times, run, work_of

from maskbatch.errors import LockedError
from maskbatch.scanning.status import read_status
from maskbatch.storage.file_lock import STALE_AFTER_S, FileLock


def test_a_second_run_on_one_output_is_refused(archive: Path, clean: bytes, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    with FileLock(work_of(out) / "lock"):
        second = subprocess.run(command(archive, out), capture_output=True, text=True, check=False, timeout=120)
        assert second.returncode == 1
        lines = second.stderr.splitlines()
        assert len(lines) == 1, second.stderr
        assert f"another run is writing this output (host {socket.gethostname()}, process {os.getpid()})" in lines[0]
        (work_of(out) / "key.json").write_text("{}")
        assert read_status(str(out)).running
        (work_of(out) / "key.json").unlink()
    assert read_status_running(out) is None
    run(archive, out)
    assert out.read_bytes() == clean


def read_status_running(out: Path) -> str | None:
    from maskbatch.storage.file_lock import holder_of

    return holder_of(work_of(out) / "lock")


def write_lock(out: Path, host: str, heartbeat: float) -> None:
    work_of(out).mkdir()
    content = {"host": host, "pid": 4242, "heartbeat": heartbeat}
    (work_of(out) / "lock").write_text(json.dumps(content))


def test_a_stale_lock_is_taken_over_with_a_note(archive: Path, clean: bytes, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    write_lock(out, socket.gethostname(), time.time())
    summary = run(archive, out)
    assert [note for note in summary.notes if "took over the lock" in note and "4242" in note]
    assert out.read_bytes() == clean


def test_a_heartbeat_from_another_host_is_respected_until_it_is_old(
    archive: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "results.parquet"
    write_lock(out, "elsewhere", time.time() - 5)
    with pytest.raises(LockedError, match=r"host elsewhere, process 4242, heard of \d+ s ago"):
        run(archive, out)
    write_again = {"host": "elsewhere", "pid": 4242, "heartbeat": time.time() - STALE_AFTER_S - 1}
    (work_of(out) / "lock").write_text(json.dumps(write_again))
    summary = run(archive, out)
    assert any("elsewhere" in note for note in summary.notes)
    assert out.read_bytes() == clean


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root to mount a small tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("kept_full", [4, 30])
def test_a_full_disk_ends_the_run_with_one_sentence(
    archive: Path, clean: bytes, small_disk: Path, kept_full: int
) -> None:
    """With little and with some room left: the run stops in different places, and goes on where it stopped."""
    out = small_disk / "results.parquet"
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(4096))
                file.flush()
        except OSError:
            pass
        os.truncate(ballast, max(0, ballast.stat().st_size - kept_full * 1024))
    full = subprocess.run(command(archive, out), capture_output=True, text=True, check=False, timeout=120)
    assert full.returncode == 1
    lines = [line for line in full.stderr.splitlines() if " · " not in line]
    assert len(lines) == 1, full.stderr
    assert lines[0].startswith("error: cannot write")
    assert "No space left on device" in lines[0]
    assert not out.exists()
    assert leftovers(small_disk) == []
    before = receipt_times(out)
    ballast.unlink()
    run(archive, out, COMMAND)
    assert out.read_bytes() == clean
    assert before.items() <= receipt_times(out).items()
