"""The first thing that a person does: scan a folder, look at the table, make mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import maskbatch
from maskbatch.cli.scan import with_redacted_part
from maskbatch.results.schema import INPUTS, RESULTS


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The real command line in a process of its own."""
    command = [sys.executable, "-m", "maskbatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=240)


def write_video(path: Path, picture: np.ndarray, frames: int = 50, rate: int = 25) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        small = cv2.resize(picture, (320, 320), interpolation=cv2.INTER_AREA)
        for ordinal in range(frames):
            shifted = np.roll(small, 2 * ordinal, axis=1)
            frame = av.VideoFrame.from_ndarray(shifted, format="bgr24")
            frame.pts = ordinal
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, face_photo: np.ndarray) -> Path:
    """A small archive as people have them: good, odd and broken files, in folders."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "entrance").mkdir()
    cv2.imwrite(str(folder / "entrance" / "a.jpg"), face_photo)
    cv2.imwrite(str(folder / "entrance" / "b.png"), cv2.flip(face_photo, 1))
    cv2.imwrite(str(folder / "größe 😷.jpg"), face_photo)
    cv2.imwrite(str(folder / "wall.jpg"), np.full((240, 320, 3), 127, np.uint8))
    data = (folder / "entrance" / "a.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) * 2 // 3])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "letter.jpg").write_text("not a picture")
    (folder / "notes.txt").write_text("no input")
    write_video(folder / "cam01_20240312_140000.mp4", face_photo)
    return folder


@pytest.fixture(scope="module")
def scanned(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    out = tmp_path_factory.mktemp("out") / "results.parquet"
    return run("scan", archive, "--out", out, "--json"), out


def test_scan_finishes_and_says_that_some_inputs_failed(scanned: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = scanned
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert summary["inputs"] == 8
    assert summary["ignored"] == 1
    assert summary["status"] == {"ok": 5, "partial": 1, "error": 2}
    assert summary["provider"] == "CPUExecutionProvider"
    assert 0 < summary["ceiling_fraction"] <= 1.2
    assert "Traceback" not in done.stderr


def test_table_has_the_columns_of_the_contract(scanned: tuple[Any, Path]) -> None:
    _, out = scanned
    assert pq.read_schema(out).names == RESULTS.names
    frame = pd.read_parquet(out)
    described = json.loads(pq.read_schema(out).metadata[b"maskbatch"])
    assert described["schema_version"] == "1"
    assert all(len(checksum) == 64 for checksum in described["models"].values())
    assert isinstance(frame["label"].dtype, pd.CategoricalDtype)
    assert (frame["confidence"] > 1 / 3 - 1e-6).all()
    total = frame[["p_with_mask", "p_without_mask", "p_mask_weared_incorrect"]].sum(axis=1)
    np.testing.assert_allclose(total, 1, atol=1e-4)


def test_the_face_is_found_in_every_good_input(scanned: tuple[Any, Path]) -> None:
    _, out = scanned
    frame = maskbatch.read_results(out)
    found = set(frame["source"].astype(str))
    assert {"entrance/a.jpg", "entrance/b.png", "größe 😷.jpg", "cam01_20240312_140000.mp4"} <= found
    best = frame[frame["source"] == "entrance/a.jpg"].iloc[0]
    assert best["score"] > 0.5
    assert best["label"] == "without_mask"
    mirrored = frame[frame["source"] == "entrance/b.png"].iloc[0]
    assert abs((512 - mirrored["x2"]) - best["x1"]) < 12, "the mirrored face is where the mirror puts it"


def test_every_input_is_accounted_for_with_a_message(scanned: tuple[Any, Path]) -> None:
    _, out = scanned
    inputs = pd.read_parquet(out.with_name("results.inputs.parquet")).set_index("source")
    assert pq.read_schema(out.with_name("results.inputs.parquet")).names == INPUTS.names
    assert len(inputs) == 8
    assert inputs.loc["empty.jpg", "error"] == "empty"
    assert inputs.loc["letter.jpg", "error"] == "not_media"
    assert inputs.loc["cut.jpg", "status"] == "partial"
    assert inputs.loc["cut.jpg", "error"] == "truncated"
    assert inputs.loc["wall.jpg", "status"] == "ok"
    assert inputs.loc["wall.jpg", "faces"] == 0
    assert inputs[inputs["status"] != "ok"]["message"].str.len().gt(10).all()


def test_video_is_sampled_once_a_second_and_knows_its_clock(scanned: tuple[Any, Path]) -> None:
    _, out = scanned
    frame = maskbatch.read_results(out)
    video = frame[frame["media"] == "video"]
    assert sorted(set(video["frame"])) == [0, 25]
    assert sorted(set(video["time_s"])) == [0.0, 1.0]
    assert str(video["captured_at"].min()) == "2024-03-12 14:00:00+00:00"
    assert set(video["camera"].astype(str)) == {"cam01"}
    inputs = pd.read_parquet(out.with_name("results.inputs.parquet")).set_index("source")
    row = inputs.loc["cam01_20240312_140000.mp4"]
    assert (row["frames_read"], row["frames_skipped"], row["frames_failed"]) == (2, 48, 0)


def test_same_command_again_does_nothing_and_other_settings_are_refused(
    archive: Path, scanned: tuple[Any, Path]
) -> None:
    _, out = scanned
    before = out.read_bytes()
    again = run("scan", archive, "--out", out)
    assert again.returncode == 3
    assert "nothing new" in again.stdout
    assert out.read_bytes() == before
    other = run("scan", archive, "--out", out, "--min-score", "0.9")
    assert other.returncode == 2
    assert "--overwrite" in other.stderr
    assert out.read_bytes() == before


def test_one_worker_gives_the_same_bytes_as_two(archive: Path, scanned: tuple[Any, Path], tmp_path: Path) -> None:
    _, out = scanned
    summary = maskbatch.scan(archive, tmp_path / "r.parquet", executor="inline", workers=1, unit_images=2)
    assert summary.exit_code == 3
    assert (tmp_path / "r.parquet").read_bytes() == out.read_bytes()


def test_dry_run_writes_nothing(archive: Path, tmp_path: Path) -> None:
    done = run("scan", archive, "--out", tmp_path / "r.parquet", "--dry-run")
    assert done.returncode == 0
    assert "8 inputs (7 images, 1 video); 1 other files ignored (1 .txt)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_scan_of_nothing_writes_valid_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("scan", tmp_path / "empty", "--out", tmp_path / "r.parquet")
    assert done.returncode == 3, "nothing to scan is no success"
    assert "nothing to scan" in done.stdout
    assert len(maskbatch.read_results(tmp_path / "r.parquet")) == 0
    assert pq.read_schema(tmp_path / "r.parquet").names == RESULTS.names


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["missing-folder"], 2, "missing-folder"),
        (["."], 2, ".parquet"),
        ([".", "--det-size", "650"], 2, "multiple of 32"),
        ([".", "--every", "soon"], 2, "--every"),
        ([".", "--every", "1s", "--all"], 2, "exclude"),
        ([".", "--redact"], 2, "--annotate"),
        ([".", "--device", "cuda"], 1, "CUDA"),
        ([".", "--detector", "no-such-detector"], 2, "no-such-detector"),
        ([".", "--classifier", "broken.onnx"], 1, "broken.onnx"),
    ],
)
def test_mistakes_end_in_one_sentence_and_leave_nothing_behind(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07 not a model")
    out = "results.txt" if says == ".parquet" else "r.parquet"
    done = run("scan", *arguments, "--out", out, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert [path.name for path in tmp_path.iterdir()] == ["broken.onnx"]


@pytest.mark.skipif(
    os.geteuid() != 0 and not os.access("/proc", os.R_OK), reason="needs a place that cannot be written"
)
def test_unwritable_output_stops_at_once(archive: Path) -> None:
    done = run("scan", archive, "--out", "/proc/no/results.parquet")
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr


def test_paths_from_a_list_and_from_standard_input(archive: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{archive / 'entrance' / 'a.jpg'}\n{archive / 'wall.jpg'}\n")
    summary = maskbatch.scan(f"@{listed}", tmp_path / "r.parquet", executor="inline", workers=1)
    assert summary.inputs == 2
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "maskbatch",
            "scan",
            "-",
            "--out",
            str(tmp_path / "s.parquet"),
            "--json",
            "--executor",
            "inline",
        ],
        input=f"{archive / 'wall.jpg'}\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inputs"] == 1


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["in", "--redact", "-o", "x"], ["in", "--redact", "-o", "x"]),
        (["--redact", "eyes", "in"], ["--redact", "--redact-part", "eyes", "in"]),
        (["in", "--redact=faces"], ["in", "--redact", "--redact-part", "faces"]),
        (["--redact", "./eyes"], ["--redact", "./eyes"]),
        (["eyes", "--redact", "--", "eyes"], ["eyes", "--redact", "--", "eyes"]),
    ],
)
def test_redact_takes_a_value_or_none(typed: list[str], read: list[str]) -> None:
    assert with_redacted_part(typed) == read


def test_the_part_that_is_redacted_is_checked(tmp_path: Path) -> None:
    done = run("scan", ".", "--annotate", "a", "--redact=noses", cwd=tmp_path)
    assert done.returncode == 2
    assert "noses" in done.stderr
    done = run("scan", ".", "--annotate", "a", "--redact", "eyes", "--show-config", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line.startswith("redact")}
    assert shown == {"redact": "true", "redact-part": "eyes", "redact-every": "–", "redact-size": "1280"}
