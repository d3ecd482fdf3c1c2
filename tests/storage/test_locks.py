from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import socket
import time
from pathlib import Path

import pytest

from maskbatch.errors import LockedError, OutputError
from maskbatch.storage import file_lock as locks
from maskbatch.storage.file_lock import STALE_AFTER_S, FileLock, holder_of


def hold(path: Path, ready: object, leave: object) -> None:
    with FileLock(path):
        ready.set()  # type: ignore[attr-defined]
        leave.wait(60)  # type: ignore[attr-defined]


def write(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content))


def test_a_lock_is_held_by_one_and_free_after(tmp_path: Path) -> None:
    path = tmp_path / "work" / "lock"
    assert holder_of(path) is None
    with FileLock(path) as first:
        assert first.note == ""
        with pytest.raises(LockedError, match=f"process {os.getpid()}"), FileLock(path):
            pass
        assert str(os.getpid()) in (holder_of(path) or "")
    assert holder_of(path) is None
    with FileLock(path) as second:
        assert second.note == ""


def test_a_killed_holder_is_noted_and_replaced(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "lock", ready, leave))
    process.start()
    assert ready.wait(60)
    with pytest.raises(LockedError, match=f"process {process.pid}"), FileLock(tmp_path / "lock"):
        pass
    process.kill()
    process.join()
    with FileLock(tmp_path / "lock") as lock:
        assert f"process {process.pid}" in lock.note


def test_another_host_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for heartbeat in (time.time(), time.time() - STALE_AFTER_S + 5, time.time() + 5):
        write(path, host="elsewhere", pid=1, heartbeat=heartbeat)
        with pytest.raises(LockedError, match="elsewhere"), FileLock(path):
            pass
        assert holder_of(path) == "host elsewhere, process 1"
    write(path, host="elsewhere", pid=1, heartbeat=time.time() - STALE_AFTER_S - 1)
    assert holder_of(path) is None
    with FileLock(path) as lock:
        assert "elsewhere" in lock.note


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", '{"heartbeat": "soon"}', '{"heartbeat": null, "host": 3}', '{"pid": "x"}', "\0" * 600],
)
def test_a_damaged_lock_file_is_no_obstacle(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock"
    path.write_text(content)
    assert holder_of(path) is None
    with FileLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_without_kernel_locks_the_heartbeat_and_the_process_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_descriptor: int, _operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    path = tmp_path / "lock"
    with FileLock(path), pytest.raises(LockedError), FileLock(path):
        pass
    write(path, host=socket.gethostname(), pid=2**22 + 1, heartbeat=time.time())  # no such process can be
    with FileLock(path) as lock:
        assert lock.note


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.05)
    path = tmp_path / "lock"
    with FileLock(path):
        first = json.loads(path.read_text())["heartbeat"]
        end = time.monotonic() + 20
        while json.loads(path.read_text())["heartbeat"] == first:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert path.stat().st_size == locks.RECORD_BYTES  # of one length, so that no reader sees two beats mixed


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), FileLock(tmp_path / "file" / "lock"):
        pass


def test_a_disk_that_is_full_at_the_first_beat_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: bytes, _offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OutputError, match="No space left"), FileLock(tmp_path / "lock"):
            pass
    with FileLock(tmp_path / "lock"):
        pass
