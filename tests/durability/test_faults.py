"""A fault at every file operation of a run, then the same command again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from durability_kit import (
    FAULTS,
    CountingOps,
    failing,
    installed,
    leftovers,
    make_archive,
    newly_done,
    receipt_times,
    run,
    work_of,
)

from maskbatch.errors import OutputError


def operations(archive: Path, folder: Path) -> list[str]:
    """What a clean run does to files."""
    counting = CountingOps()
    with installed(counting):
        run(archive, folder / "results.parquet")
    return counting.calls


def without_middles(calls: list[str]) -> list[int]:
    """Numbers of the operations (from 1), of several writes in a row only the first and the last."""
    padded = ["", *calls, ""]
    return [at for at in range(1, len(calls) + 1) if set(padded[at - 1 : at + 2]) != {"write"}]


def fail_everywhere(archive: Path, clean: bytes, tmp_path: Path, fault: int, every_write: bool) -> int:
    """Fail at every operation, resume, compare; gives the number of faults."""
    calls = operations(archive, tmp_path / "counting")
    points = list(range(1, len(calls) + 1)) if every_write else without_middles(calls)
    for at in points:
        out = tmp_path / f"{at}" / "results.parquet"
        with installed(CountingOps(at, failing(fault))), pytest.raises(OutputError, match="cannot write"):
            run(archive, out)
        assert not out.exists() or out.read_bytes() == clean, f"half a result after a fault at {at}: {calls[at - 1]}"
        before = receipt_times(out)
        finished = newly_done(out, {})
        with installed(CountingOps()):
            run(archive, out)
        assert out.read_bytes() == clean, f"another result after a fault at {at}: {calls[at - 1]}"
        redone = newly_done(out, before)
        assert not set(redone) & {name for name in finished if name.endswith("jpg")}, (
            "a finished picture was decoded again"
        )
        assert leftovers(tmp_path / f"{at}") == []
        shutil.rmtree(tmp_path / f"{at}")
    print(f"{len(points)} faults")
    return len(points)


def test_a_fault_at_any_file_operation_costs_no_finished_unit(
    face_photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    small = make_archive(tmp_path / "in", face_photo, pictures=3, video_s=2.0, broken=False)
    run(small, tmp_path / "clean.parquet")
    clean = (tmp_path / "clean.parquet").read_bytes()
    assert fail_everywhere(small, clean, tmp_path, FAULTS[0], every_write=False) > 40


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_file_operation_of_a_larger_run(archive: Path, clean: bytes, tmp_path: Path, fault: int) -> None:
    assert fail_everywhere(archive, clean, tmp_path, fault, every_write=True) > 150


def test_an_old_result_stays_whole_until_the_new_one_is(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in", face_photo, pictures=2, video_s=0, broken=False)
    out = tmp_path / "out" / "results.parquet"
    run(archive, out)
    old = out.read_bytes()
    make_archive(archive, face_photo, pictures=3, video_s=0, broken=False)
    shutil.copytree(tmp_path / "out", tmp_path / "new")
    run(archive, tmp_path / "new" / "results.parquet")
    new = (tmp_path / "new" / "results.parquet").read_bytes()
    assert new != old
    shutil.copytree(tmp_path / "out", tmp_path / "counting")
    seen = []
    for at in without_middles(operations(archive, tmp_path / "counting")):
        trial = tmp_path / f"{at}"
        shutil.copytree(tmp_path / "out", trial)
        with installed(CountingOps(at, failing(FAULTS[1]))), pytest.raises(OutputError, match="No space left"):
            run(archive, trial / "results.parquet")
        seen.append((trial / "results.parquet").read_bytes())
        assert leftovers(trial) == []
    assert set(seen) == {old, new}
    assert len(seen) > 20


def test_a_power_loss_cannot_leave_a_receipt_without_its_part(archive: Path, tmp_path: Path) -> None:
    calls = operations(archive, tmp_path)
    parts = [path.stem for path in (work_of(tmp_path / "results.parquet") / "parts").iterdir()]
    assert parts
    for unit in parts:
        part, receipt = calls.index(f"rename {unit}.parquet"), calls.index(f"rename {unit}.json")
        # The bytes are on the disk before they get their name, and the name before the receipt is even begun.
        assert calls[part - 1] == "fsync"
        assert calls[part + 1] == "fsync"
        assert calls[receipt - 1] == "fsync"
        assert part + 1 < calls.index(next(call for call in calls if call.startswith(f"open .{unit}.json")))
