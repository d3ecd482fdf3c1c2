"""The same command over changed inputs, other settings over the same work, rotten receipts and parts, and what `status` says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from durability_kit import (
    CONFIG,
    FailingReceipt,
    face_picture,
    input_row,
    inputs_in,
    installed,
    newly_done,
    receipt_times,
    run,
    work_of,
    write_jpeg,
    write_video,
)

from maskbatch.errors import InputNotFoundError, OutputError, OutputExistsError, SettingsChangedError
from maskbatch.scanning.status import read_status

OTHER = replace(CONFIG, models=replace(CONFIG.models, min_score=0.62))


@pytest.fixture
def own(archive: Path, tmp_path: Path) -> Path:
    """A copy of the archive that a test may change; copied times, so that its fingerprints are those of the archive."""
    return Path(shutil.copytree(archive, tmp_path / "in"))


def interrupted(archive: Path, out: Path, config: object = CONFIG) -> None:
    """A run that a full disk ended after some units."""
    with installed(FailingReceipt(6)), pytest.raises(OutputError):
        run(archive, out, config)  # type: ignore[arg-type]
    assert receipt_times(out)
    assert not out.exists()


def test_nothing_is_done_twice(archive: Path, clean: bytes, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    run(archive, out)
    before = receipt_times(out)
    summary = run(archive, out)
    assert receipt_times(out) == before
    assert summary.pieces == 0
    assert summary.resumed == inputs_in(archive)
    assert out.read_bytes() == clean


def test_added_changed_and_removed_inputs_are_the_only_ones_redone(
    own: Path, face_photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    out = tmp_path / "results.parquet"
    run(own, out)
    before = receipt_times(out)
    write_jpeg(own / "new.jpg", face_picture(face_photo, 3))
    write_jpeg(own / "0" / "p0002.jpg", face_picture(face_photo, 7))
    os.utime(own / "0" / "p0002.jpg", ns=(1, 10**18))
    (own / "1" / "p0001.jpg").unlink()
    write_video(own / "clip.mp4", face_photo, 2.0)
    (own / "empty.jpg").unlink()
    write_jpeg(own / "empty.jpg", face_picture(face_photo, 1))
    run(own, out)
    assert newly_done(out, before) == ["0/p0002.jpg", "clip.mp4", "clip.mp4", "empty.jpg", "new.jpg"]
    assert input_row(out, "empty.jpg")["status"] == "ok"
    run(own, tmp_path / "clean.parquet")
    assert out.read_bytes() == (tmp_path / "clean.parquet").read_bytes()


def test_other_settings_over_begun_work_are_refused_with_the_difference(
    archive: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "results.parquet"
    interrupted(archive, out, OTHER)
    before = receipt_times(out)
    with pytest.raises(SettingsChangedError, match=r"detection\.min_score: 0\.62 → 0\.4.*--restart"):
        run(archive, out)
    assert receipt_times(out) == before
    run(archive, out, restart=True)
    assert out.read_bytes() == clean


def test_another_model_over_begun_work_is_refused(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    interrupted(archive, out)
    key = work_of(out) / "key.json"
    text = key.read_text()
    sums = [part for part in text.split('"') if len(part) == 64]
    key.write_text(text.replace(sums[0], "0" * 64))
    with pytest.raises(SettingsChangedError, match=r"models\..*: 0000"):
        run(archive, out)


def test_a_result_of_other_settings_stays_without_overwrite(archive: Path, clean: bytes, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    run(archive, out)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        run(archive, out, OTHER)
    assert out.read_bytes() == clean
    run(archive, out, OTHER, overwrite=True)
    assert out.read_bytes() != clean
    run(archive, out, overwrite=True)
    assert out.read_bytes() == clean


def test_an_interrupted_overwrite_continues_too(archive: Path, clean: bytes, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    run(archive, out, OTHER)
    with installed(FailingReceipt(6)), pytest.raises(OutputError):
        run(archive, out, overwrite=True)
    before = receipt_times(out)
    assert before
    summary = run(archive, out, overwrite=True)
    assert summary.resumed > 0
    assert before.items() <= receipt_times(out).items()
    assert out.read_bytes() == clean


# --- what lies in the work folder is damaged


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_bit, cut_in_half, empty, Path.unlink])
@pytest.mark.parametrize("kind", ["receipts", "parts"])
def test_damaged_work_is_redone(
    kind: str, damage: Callable[[Path], None], archive: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "results.parquet"
    run(archive, out)
    victim = sorted((work_of(out) / kind).iterdir())[0]
    damage(victim)
    run(archive, out)
    assert out.read_bytes() == clean


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"{", b"\xff\xfe"])
def test_a_damaged_key_is_refused_and_restart_mends_it(
    content: bytes, archive: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "results.parquet"
    interrupted(archive, out)
    (work_of(out) / "key.json").write_bytes(content)
    with pytest.raises(OutputError, match="--restart"):
        run(archive, out)
    run(archive, out, restart=True)
    assert out.read_bytes() == clean


# --- status


def test_status_tells_done_failed_and_left(own: Path, face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    with pytest.raises(InputNotFoundError):
        read_status(str(out))
    total = inputs_in(own)
    interrupted(own, out)
    status = read_status(str(out))
    assert status.inputs == total
    assert 0 < status.done < total
    assert status.left == total - status.done
    assert not status.merged
    assert status.running is None
    assert "stopped" in next(iter(status.lines()))
    run(own, out)
    for path in (str(out), str(work_of(out)), f"{work_of(out)}/"):
        status = read_status(path)
        assert (status.done, status.left, status.failed, status.merged) == (total, 0, 3, True)
        assert {name for name, _, _ in status.failures} == {"cut.mp4", "empty.jpg", "letter.png"}
        assert "complete" in next(iter(status.lines()))
    # What was removed or changed since no longer counts.
    (own / "1" / "p0001.jpg").unlink()
    write_jpeg(own / "0" / "p0000.jpg", face_picture(face_photo, 8, side=200))
    with installed(FailingReceipt(1)), pytest.raises(OutputError):
        run(own, out)
    status = read_status(str(out))
    assert (status.inputs, status.done, status.left, status.merged) == (total - 1, total - 2, 1, False)


def test_status_reads_a_folder_without_a_snapshot(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    interrupted(archive, out)
    (work_of(out) / "snapshot.json").write_bytes(b"[]")
    status = read_status(str(out))
    assert status.inputs is None
    assert status.done
    assert list(status.lines())
