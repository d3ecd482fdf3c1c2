"""kill -9 of the parent and of workers, SIGTERM and SIGINT: the same command continues, and the bytes are the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.parquet as pq
import pytest
from durability_kit import (
    COMMAND,
    CONFIG,
    PROCESSES,
    CountingOps,
    MortalSpec,
    SlowSpec,
    command,
    installed,
    leftovers,
    make_archive,
    receipt_times,
    run,
    spec_factory,
    work_of,
)
from test_faults import operations, without_middles

SEED = 20261122


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, face_photo: npt.NDArray[np.uint8]) -> Path:
    """Sixty pictures, a video of six parts, three broken files."""
    return make_archive(tmp_path_factory.mktemp("large") / "in", face_photo, pictures=60, video_s=6.0)


@pytest.fixture(scope="module")
def large_clean(large: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of an undisturbed run over it."""
    out = tmp_path_factory.mktemp("large-clean") / "results.parquet"
    assert run(large, out).faces > 40
    return out.read_bytes()


# --- the parent


def die_and_resume(archive: Path, clean: bytes, tmp_path: Path, points: list[int]) -> None:
    arguments = [str(archive), str(tmp_path), *map(str, points)]
    script = Path(__file__).with_name("die_at.py")
    died = subprocess.run([sys.executable, script, *arguments], check=True, capture_output=True, text=True, timeout=900)
    assert died.stdout.split() == [text for at in points for text in (str(at), str(-signal.SIGKILL))]
    for at in points:
        out = tmp_path / f"{at}" / "results.parquet"
        assert not out.exists() or out.read_bytes() == clean
        before = receipt_times(out)
        with installed(CountingOps()):
            summary = run(archive, out)
        assert out.read_bytes() == clean, f"killed at operation {at}"
        assert before.items() <= receipt_times(out).items(), "a finished unit was done again"
        assert leftovers(tmp_path / f"{at}") == []
        assert any("took over the lock" in note for note in summary.notes)
    print(f"{len(points)} kills of the parent")


def test_parent_killed_at_named_points(archive: Path, clean: bytes, tmp_path: Path) -> None:
    calls = operations(archive, tmp_path / "counting")
    numbered = list(enumerate(calls, 1))
    first_part = next(
        at for at, call in numbered if call.startswith("rename") and len(call) > 30 and ".parquet" in call
    )
    first_receipt = next(
        at for at, call in numbered if call.startswith("rename") and len(call) > 30 and ".json" in call
    )
    inputs = calls.index("rename results.inputs.parquet") + 1
    results = calls.index("rename results.parquet") + 1
    points = [
        2,  # in the middle of key.json
        first_part - 2,  # in the middle of a part
        first_part,  # the part is written and has no name
        first_part + 1,  # it has its name, and the folder does not know it for sure
        first_receipt - 2,  # in the middle of a receipt
        first_receipt,  # the part is there, its receipt is not
        first_receipt + 1,
        inputs - 10,  # in the middle of the results
        inputs,
        results,  # the inputs table is new, the results are not there
        results + 1,
        len(calls),  # all is written but the last word
    ]
    die_and_resume(archive, clean, tmp_path, points)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_parent_killed_at_every_point(archive: Path, clean: bytes, tmp_path: Path) -> None:
    points = without_middles(operations(archive, tmp_path / "counting"))
    assert len(points) > 80
    die_and_resume(archive, clean, tmp_path, points)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_parent_killed_at_random_times(large: Path, large_clean: bytes, tmp_path: Path) -> None:
    """The real command with two workers, killed again and again at seeded random times until it gets through."""
    times = random.Random(SEED)
    kills = 0
    for trial in range(6):
        out = tmp_path / f"{trial}" / "results.parquet"
        for patience in range(100):
            process = subprocess.Popen(
                command(large, out), start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            try:
                # Later and later, so that it gets through in the end, whatever a start takes on this machine.
                _, stderr = process.communicate(timeout=times.uniform(0.5, 1.5 + patience))
            except subprocess.TimeoutExpired:
                workers = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                process.communicate()
                kills += 1
                _, alive = psutil.wait_procs(workers, timeout=10)
                assert not alive, "a worker outlived its killed parent"
                assert not out.exists() or out.read_bytes() == large_clean
            else:
                assert process.returncode == 3, stderr
                break
        assert out.read_bytes() == large_clean
        assert leftovers(tmp_path) == []
    print(f"{kills} kills of the parent")
    assert kills >= 12


# --- workers


@pytest.mark.parametrize("at", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(7, marks=pytest.mark.slow), 9])
def test_worker_killed_at_a_file_operation(
    at: int, archive: Path, clean: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a part, before its rename, in the middle of a receipt, before its rename."""
    factory = spec_factory(MortalSpec, at=at, marker=tmp_path / "killed")
    monkeypatch.setattr("maskbatch.scanning.process.ScanWorkerSpec", factory)
    out = tmp_path / "results.parquet"
    summary = run(archive, out, PROCESSES)
    assert (tmp_path / "killed").exists()
    assert any("worker was lost" in note for note in summary.notes)
    assert out.read_bytes() == clean


def workers_of_this_process() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        try:
            if any("spawn_main" in part for part in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def kill_workers_at_random(stop: threading.Event, wanted: int, killed: list[int], out: Path) -> None:
    """SIGKILL a random worker, each time some work has been done since the last."""
    times = random.Random(SEED)
    while len(killed) < wanted and not stop.is_set():
        done = len(receipt_times(out))
        stop.wait(times.uniform(0.02, 0.6))
        while not stop.is_set() and len(receipt_times(out)) == done:
            stop.wait(0.01)
        workers = workers_of_this_process()
        if workers:
            victim = times.choice(workers)
            victim.kill()
            killed.append(victim.pid)


def run_with_kills(
    archive: Path, out: Path, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], list[str]]:
    monkeypatch.setattr("maskbatch.scanning.process.ScanWorkerSpec", spec_factory(SlowSpec))
    stop, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_workers_at_random, args=(stop, wanted, killed, out))
    killer.start()
    try:
        summary = run(archive, out, PROCESSES)
    finally:
        stop.set()
        killer.join()
    return killed, summary.notes


def test_workers_killed_at_random_times(
    large: Path, large_clean: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results.parquet"
    killed, _ = run_with_kills(large, out, 4, monkeypatch)
    assert len(killed) >= 2
    assert out.read_bytes() == large_clean


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_workers_killed_at_random_times(
    face_photo: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_archive(tmp_path / "in", face_photo, pictures=900, video_s=30.0)
    run(archive, tmp_path / "clean.parquet")
    clean = (tmp_path / "clean.parquet").read_bytes()
    total = 0
    for trial in range(20):
        out = tmp_path / f"{trial}" / "results.parquet"
        killed, _ = run_with_kills(archive, out, 60 - total, monkeypatch)
        total += len(killed)
        assert out.read_bytes() == clean
        if total >= 60:
            break
    print(f"{total} kills of workers in {trial + 1} runs")
    assert total >= 50


# --- signals


def send_to_group(process: subprocess.Popen[str], number: int) -> None:
    """As a terminal does for Ctrl-C, and a service manager for a stop."""
    os.killpg(process.pid, number)


def send_to_parent(process: subprocess.Popen[str], number: int) -> None:
    """As `kill PID` does."""
    process.send_signal(number)


def wait_until(ready: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "send", "early"),
    [
        (signal.SIGINT, send_to_group, False),
        (signal.SIGINT, send_to_group, True),
        (signal.SIGTERM, send_to_parent, False),
        pytest.param(signal.SIGTERM, send_to_group, True, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_cleanly(
    large: Path,
    large_clean: bytes,
    tmp_path: Path,
    number: int,
    send: Callable[[subprocess.Popen[str], int], None],
    early: bool,
) -> None:
    """`early`: while the workers still load their libraries."""
    out = tmp_path / "results.parquet"
    process = subprocess.Popen(
        command(large, out), start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    parent = psutil.Process(process.pid)
    wait_until((lambda: len(parent.children()) >= 2) if early else (lambda: bool(receipt_times(out))))
    family = parent.children(recursive=True)
    send(process, number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    lines = [line for line in stderr.splitlines() if " · " not in line]  # all but progress
    assert lines == ["interrupted; the same command continues where it stopped"]
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, "orphans"
    assert not out.exists()
    assert leftovers(tmp_path) == []
    before = receipt_times(out)
    assert early or before
    run(large, out, COMMAND)
    assert out.read_bytes() == large_clean
    assert before.items() <= receipt_times(out).items(), "a finished unit was done again"


def test_workers_end_with_a_killed_parent(large: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    process = subprocess.Popen(
        command(large, out), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: bool(receipt_times(out)))
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_a_straggler_of_a_killed_run_changes_nothing(archive: Path, clean: bytes, tmp_path: Path) -> None:
    """A worker that outlives its parent for a moment may leave a receipt in a folder that other settings have taken over."""
    out = tmp_path / "results.parquet"
    other = replace(CONFIG, models=replace(CONFIG.models, min_score=0.62))
    run(archive, out, other)
    assert pq.read_metadata(out).num_rows > 0
    stale = {path: path.read_bytes() for kind in ("parts", "receipts") for path in (work_of(out) / kind).iterdir()}
    assert stale
    run(archive, out, CONFIG, overwrite=True)
    for path, data in stale.items():
        path.write_bytes(data)
    run(archive, out, CONFIG)
    assert out.read_bytes() == clean
