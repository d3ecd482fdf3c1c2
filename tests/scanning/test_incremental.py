"""An archive that grows and repeats itself: only what is new enough, each content once, and every input still has its row."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx_maker
import pandas as pd
import pyarrow.parquet as pq
import pytest
from red_squares import picture, write_archive, write_video

import maskbatch
from maskbatch.errors import OutputExistsError
from maskbatch.results.schema import INPUTS
from maskbatch.scanning.duplicates import LookAlikes
from maskbatch.scanning.progress import Progress, SilentReporter
from maskbatch.scanning.summary import ScanSummary
from maskbatch.sources.images.dhash import dhash
from maskbatch.tasks.mask import LABELS
from maskbatch.types import PieceResult

DAY = 86400.0


@pytest.fixture
def scan(red_model: Path, tmp_path: Path) -> Any:
    classifier = tmp_path / "shares.onnx"
    classifier.write_bytes(onnx_maker.share_classifier(LABELS))

    def run(paths: Any, out: Path, **options: Any) -> ScanSummary:
        settings = {
            "detector": f"red:{red_model}",
            "classifier": str(classifier),
            "det_size": 320,
            "device": "cpu",
            "executor": "inline",
        }
        return maskbatch.scan(paths, out, **{**settings, **options})

    return run


def inputs_of(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out.with_name(out.name.replace(".parquet", ".inputs.parquet"))).set_index("source")


def faces_of(out: Path, source: str) -> pd.DataFrame:
    table = pq.read_table(out).to_pandas()
    return table[table["source"] == source].drop(columns=["source", "camera", "captured_at"]).reset_index(drop=True)


# --since.


def test_older_inputs_are_left_out_said_and_counted(scan: Any, tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "in", video=False)
    old = time.time() - 30 * DAY
    os.utime(folder / "yard" / "plain.png", (old, old))  # no time in its name: the file's own counts
    summary = scan(folder, tmp_path / "r.parquet", since="2026-03-01T09:00:00Z")
    assert (summary.inputs, summary.older) == (4, 2)  # of the names, the two of 8 o'clock on the first are older
    kept = set(inputs_of(tmp_path / "r.parquet").index)
    assert kept == {
        "gate/2026-03-01_09-30-00.png",
        "yard/2026-03-02_08-00-00.png",
        "yard/broken.png",
        "yard/plain.png",
    }
    assert any("leaves out 2 inputs from before 2026-03-01T09:00:00Z" in note for note in summary.notes)
    described = json.loads((tmp_path / "r.run.json").read_text())
    assert described["since"] == "2026-03-01T09:00:00Z"
    assert described["summary"]["older"] == 2
    assert summary.cameras == {"name": 4}, "those that were left out are not counted"
    summary = scan(folder, tmp_path / "r2.parquet", since="7d")
    assert summary.inputs == 1, "only the broken file is new"
    (folder / "yard" / "broken.png").unlink()
    summary = scan(folder, tmp_path / "r3.parquet", since="7d")
    assert (summary.inputs, summary.older, summary.exit_code) == (0, 5, 0), "nothing new is no failure"


def test_a_limit_counts_what_is_new_enough(scan: Any, tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "in", video=False)
    summary = scan(folder, tmp_path / "r.parquet", since="2026-03-01T09:00:00Z", limit=2)
    assert list(inputs_of(tmp_path / "r.parquet").index) == [
        "gate/2026-03-01_09-30-00.png",
        "yard/2026-03-02_08-00-00.png",
    ]
    assert (summary.inputs, summary.older) == (2, 2)


def test_without_since_the_older_ones_come_back_and_nothing_is_done_twice(scan: Any, tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "in", video=False)
    scan(folder, tmp_path / "r.parquet", since="2026-03-01T09:00:00Z")
    summary = scan(folder, tmp_path / "r.parquet")
    assert (summary.inputs, summary.resumed, summary.pieces) == (6, 4, 2)


# --skip-duplicates.


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """The archive with a copy of a picture, of a clip and of an unreadable file, each in another folder and at another time."""
    folder = write_archive(tmp_path / "in")
    copies = {
        "gate/2026-03-01_08-00-00.png": "zoo/2026-05-05_10-00-00.png",
        "gate_20260301_100000.mkv": "zoo_20260505_120000.mkv",
        "yard/broken.png": "zoo/broken.png",
    }
    for name, copy in copies.items():
        (folder / copy).parent.mkdir(exist_ok=True)
        (folder / copy).write_bytes((folder / name).read_bytes())
    return folder


def test_copies_get_the_rows_of_their_twin_and_say_so(scan: Any, doubled: Path, tmp_path: Path) -> None:
    scan(doubled, tmp_path / "all.parquet")
    summary = scan(doubled, tmp_path / "once.parquet", skip_duplicates=True)
    assert (summary.inputs, summary.duplicates) == (10, 3)
    assert summary.pieces == 7
    assert pq.read_table(tmp_path / "once.parquet").equals(pq.read_table(tmp_path / "all.parquet")), "the same faces"
    found = inputs_of(tmp_path / "once.parquet")
    assert found["duplicate_of"].dropna().to_dict() == {
        "zoo/2026-05-05_10-00-00.png": "gate/2026-03-01_08-00-00.png",
        "zoo_20260505_120000.mkv": "gate_20260301_100000.mkv",
        "zoo/broken.png": "yard/broken.png",
    }
    assert found.loc["zoo/broken.png", "status"] == "error"
    times = pd.read_parquet(tmp_path / "once.parquet").groupby("source", observed=True)["captured_at"].min()
    assert str(times["zoo/2026-05-05_10-00-00.png"]) == "2026-05-05 10:00:00+00:00", "when and where are each one's own"
    assert len(faces_of(tmp_path / "once.parquet", "zoo_20260505_120000.mkv")) == 6


def test_without_the_option_the_inputs_table_is_as_before(scan: Any, doubled: Path, tmp_path: Path) -> None:
    scan(doubled, tmp_path / "r.parquet")
    assert pq.read_schema(tmp_path / "r.inputs.parquet").names == INPUTS.names


def test_the_next_run_does_only_what_is_new(scan: Any, doubled: Path, tmp_path: Path) -> None:
    out, drawn = tmp_path / "r.parquet", tmp_path / "drawn"
    first = scan(doubled, out, skip_duplicates=True, annotate=drawn)
    assert first.drawn == 8, "copies are drawn too"
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*.*")}
    cv2.imwrite(str(doubled / "yard" / "new.png"), picture([(2, 1, "green"), (6, 3, "blue")]))
    (doubled / "zoo" / "copy of new.png").write_bytes((doubled / "yard" / "new.png").read_bytes())
    again = scan(doubled, out, skip_duplicates=True, annotate=drawn)
    assert (again.pieces, again.duplicates, again.drawn) == (1, 4, 10)
    after = {path: path.stat().st_mtime_ns for path in drawn.rglob("*.*")}
    assert {path.name for path in after.keys() - before.keys()} == {"new.png", "copy of new.png"}
    assert before.items() <= after.items(), "what was drawn is not drawn again"
    status = maskbatch.read_status(str(out))
    assert (status.left, status.merged) == (0, True)
    # The first of a pair goes: its copy is now worked on itself.
    (doubled / "gate" / "2026-03-01_08-00-00.png").unlink()
    last = scan(doubled, out, skip_duplicates=True)
    assert (last.pieces, last.duplicates) == (1, 3)
    assert len(faces_of(out, "zoo/2026-05-05_10-00-00.png")) == 3


def test_an_interrupted_scan_with_copies_ends_in_the_same_bytes(scan: Any, doubled: Path, tmp_path: Path) -> None:
    class Impatient(SilentReporter):
        def progress(self, state: Progress) -> None:
            if state.pieces_done == 3:
                raise KeyboardInterrupt

    options: dict[str, Any] = {"skip_duplicates": True, "unit_images": 1}
    scan(doubled, tmp_path / "clean.parquet", **options)
    with pytest.raises(KeyboardInterrupt):
        scan(doubled, tmp_path / "r.parquet", reporter=Impatient(), **options)
    assert not (tmp_path / "r.parquet").exists()
    again = scan(doubled, tmp_path / "r.parquet", **options)
    assert again.resumed == 3
    assert (tmp_path / "r.parquet").read_bytes() == (tmp_path / "clean.parquet").read_bytes()


def test_a_result_without_the_option_is_not_taken_for_one_with_it(scan: Any, doubled: Path, tmp_path: Path) -> None:
    scan(doubled, tmp_path / "r.parquet")
    with pytest.raises(OutputExistsError, match="use --overwrite"):
        scan(doubled, tmp_path / "r.parquet", skip_duplicates=True)


def test_files_of_one_length_that_differ_in_the_middle_are_two(scan: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "a.mkv")
    data = bytearray((folder / "a.mkv").read_bytes() + bytes(100_000))
    (folder / "a.mkv").write_bytes(data)
    data[len(data) - 50_000] = 1  # neither in the first nor in the last bytes
    (folder / "b.mkv").write_bytes(data)
    summary = scan(folder, tmp_path / "r.parquet", skip_duplicates=True)
    assert (summary.inputs, summary.duplicates) == (2, 0)


def test_look_alikes_are_flagged_and_kept(scan: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    scene = picture([(1, 1, "blue"), (5, 1, "green"), (8, 3, "dark")])
    cv2.imwrite(str(folder / "a.png"), scene)
    cv2.imwrite(str(folder / "b.jpg"), scene)
    cv2.imwrite(str(folder / "c.png"), cv2.flip(scene, 1))
    summary = scan(folder, tmp_path / "r.parquet", skip_duplicates=True)
    found = inputs_of(tmp_path / "r.parquet")
    assert found["near_duplicate_of"].dropna().to_dict() == {"b.jpg": "a.png"}
    assert found["duplicate_of"].isna().all()
    assert (summary.pieces, summary.near_duplicates, summary.duplicates) == (3, 1, 0)


def test_look_alikes_by_bands_are_those_by_brute_force() -> None:
    generator = np.random.default_rng(3)
    hashes = [int(x) for x in generator.integers(0, 2**63, 60)]
    for value in hashes[:40]:  # neighbours at 1 to 5 bits
        flips = generator.choice(64, generator.integers(1, 6), replace=False)
        hashes.append(value ^ sum(1 << int(bit) for bit in flips))
    expected: list[str | None] = []
    leaders: list[tuple[str, int]] = []
    for number, value in enumerate(hashes):
        near = [name for name, other in leaders if (other ^ value).bit_count() <= 3]
        expected.append(near[0] if near else None)
        if not near:
            leaders.append((str(number), value))
    look = LookAlikes()
    found = [look.find(PieceResult(str(n), "", dhash=f"{value:016x}")) for n, value in enumerate(hashes)]
    assert found == expected
    assert look.found == sum(name is not None for name in expected) > 15


def test_the_hash_is_of_what_is_seen_not_of_the_file() -> None:
    ramp = np.repeat(np.linspace(0, 255, 90, dtype=np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    assert dhash(ramp) == "f" * 16
    assert dhash(ramp[:, ::-1]) == "0" * 16
    assert dhash(cv2.resize(ramp, (400, 300))) == "f" * 16
