"""Inputs that take their worker down: the culprit alone ends as an error row that names the cause, and the run goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from durability_kit import (
    CONFIG,
    CRASH,
    EAT,
    HANG,
    PROCESSES,
    RAISE,
    ClumsySpec,
    HostileSpec,
    face_picture,
    input_rows,
    make_archive,
    run,
    spec_factory,
    write_jpeg,
)

from maskbatch.config import Execution, ScanConfig


def with_execution(config: ScanConfig, **settings: object) -> ScanConfig:
    execution: Execution = replace(config.execution, **settings)  # type: ignore[arg-type]
    return replace(config, execution=execution)


def hostile_archive(folder: Path, photo: npt.NDArray[np.uint8], marker: bytes, culprits: list[str]) -> None:
    make_archive(folder, photo, pictures=10, video_s=1.0, broken=False)
    for name in culprits:
        write_jpeg(folder / name, face_picture(photo, 3), marker)


@pytest.mark.parametrize(
    ("marker", "settings", "error", "message"),
    [
        (CRASH, {}, "crashed", "SIGSEGV"),
        (HANG, {"timeout_s": 3.0}, "hung", "--timeout"),
        (EAT, {"max_memory_mb": 1000}, "out_of_memory", "--max-memory"),
    ],
)
def test_only_the_culprit_is_lost(
    face_photo: npt.NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    marker: bytes,
    settings: dict[str, object],
    error: str,
    message: str,
) -> None:
    culprits = ["0/culprit.jpg", "0/p0004x.jpg"] if marker == CRASH else ["0/culprit.jpg"]
    hostile_archive(tmp_path / "in", face_photo, marker, culprits)
    out = tmp_path / "results.parquet"
    monkeypatch.setattr("maskbatch.scanning.process.ScanWorkerSpec", spec_factory(HostileSpec))
    started = time.monotonic()
    summary = run(tmp_path / "in", out, with_execution(PROCESSES, unit_images=20, **settings))
    assert time.monotonic() - started < 120
    rows = input_rows(out)
    assert sorted(row["source"] for row in rows if row["status"] != "ok") == culprits
    bad = [row for row in rows if row["status"] != "ok"]
    assert {row["error"] for row in bad} == {error}
    assert all(message in row["message"] for row in bad), bad
    assert summary.exit_code == 3
    assert summary.faces >= 8
    assert any("quarantined" in note for note in summary.notes)
    # The others' rows are those of an archive without the culprits.
    for name in culprits:
        (tmp_path / "in" / name).write_bytes(b"")
    run(tmp_path / "in", tmp_path / "clean.parquet")
    assert out.read_bytes() == (tmp_path / "clean.parquet").read_bytes()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_an_exception_in_a_worker_costs_the_input_that_caused_it(
    face_photo: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours, or of a model's runtime, is not the end of an archive either."""
    hostile_archive(tmp_path / "in", face_photo, RAISE, ["0/culprit.jpg"])
    monkeypatch.setattr("maskbatch.scanning.process.ScanWorkerSpec", spec_factory(ClumsySpec))
    for name, config in (("inline", CONFIG), ("processes", PROCESSES)):
        out = tmp_path / f"{name}.parquet"
        run(tmp_path / "in", out, with_execution(config, unit_images=20))
        (bad,) = [row for row in input_rows(out) if row["status"] != "ok"]
        assert bad["source"] == "0/culprit.jpg"
        assert bad["error"] == "internal"
        assert "unexpected ZeroDivisionError: a defect" in bad["message"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_culprits_do_not_stop_a_run(
    face_photo: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprits = [f"{number % 2}/p{number:04d}x.jpg" for number in range(12)]
    hostile_archive(tmp_path / "in", face_photo, CRASH, culprits)
    out = tmp_path / "results.parquet"
    monkeypatch.setattr("maskbatch.scanning.process.ScanWorkerSpec", spec_factory(HostileSpec))
    run(tmp_path / "in", out, with_execution(PROCESSES, unit_images=64))
    assert sorted(row["source"] for row in input_rows(out) if row["error"] == "crashed") == sorted(culprits)
    assert sum(row["status"] == "ok" for row in input_rows(out)) == 11
