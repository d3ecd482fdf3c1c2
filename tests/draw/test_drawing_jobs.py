"""Drawing runs as jobs: what cannot be drawn costs itself and is named, and what was drawn before a kill is not drawn again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scan_maker import CONFIG, make_tree

import maskbatch
import maskbatch.draw.images
from maskbatch.config import ScanConfig
from maskbatch.draw.worker import DrawWorker, DrawWorkerSpec
from maskbatch.scanning.progress import Progress, SilentReporter
from maskbatch.scanning.summary import ScanSummary

VICTIM = "cam1/2026-03-02_12-00-07.jpg"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, face_photo: npt.NDArray[np.uint8]) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree") / "in", face_photo)


def config_for(executor: str, **execution: Any) -> ScanConfig:
    return replace(CONFIG, execution=replace(CONFIG.execution, executor=executor, **execution))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run_file(out: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(out.with_name("results.run.json").read_text())
    return described


class Recorder(SilentReporter):
    """Remembers the phases, and the states in each."""

    def __init__(self) -> None:
        self.states: dict[str, list[tuple[int, int, int]]] = {}
        self._phase = ""

    def phase(self, name: str) -> None:
        self._phase = name
        self.states[name] = []

    def progress(self, state: Progress) -> None:
        self.states[self._phase].append((state.pieces_done, state.pieces, state.moved))


def test_every_executor_draws_the_same_files(tree: Path, tmp_path: Path) -> None:
    drawn = {}
    for executor in ("inline", "processes"):
        folder = tmp_path / executor
        summary = maskbatch.scan(
            tree, folder / "results.parquet", config_for(executor), annotate=folder / "a", crops=folder / "c"
        )
        assert (summary.drawn, summary.not_drawn) == (13, {})
        drawn[executor] = {**files_below(folder / "a"), **files_below(folder / "c")}
    assert len(drawn["inline"]) > 13
    assert drawn["inline"] == drawn["processes"]


def test_drawing_has_its_own_progress(tree: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    maskbatch.scan(tree, tmp_path / "results.parquet", config_for("inline"), annotate=tmp_path / "a", reporter=recorder)
    states = recorder.states["annotate"]
    assert (states[0][:2], states[-1][:2]) == ((0, 13), (13, 13))
    moved = [moved for _, _, moved in states]
    assert moved == sorted(moved)
    assert moved[-1] >= 30 + 2 * 13, "a sign of life for every frame of the video, and two for every input"


@pytest.mark.parametrize("style", ["text", "jsonl", "bar", "none"])
def test_every_progress_mode_shows_the_drawing(style: str, tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maskbatch", "scan", str(tree), "--out", str(tmp_path / "results.parquet")]
    command += [
        "--det-size",
        "160",
        "--device",
        "cpu",
        "-j",
        "2",
        "--annotate",
        str(tmp_path / "a"),
        "--progress",
        style,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    if style == "text":
        assert any("13/13" in line and "drawing" in line for line in done.stderr.splitlines()), done.stderr
    elif style == "jsonl":
        events = [json.loads(line) for line in done.stderr.splitlines()]
        phases = [event["phase"] for event in events if event["event"] == "phase"]
        assert phases == ["discover", "scan", "merge", "annotate"]
        last = [event for event in events if event["event"] == "progress"][-1]
        assert last["pieces_done"] == 13
        assert last["moved"] > 0
    elif style == "none":
        assert done.stderr == ""


def test_a_repeated_scan_draws_only_what_is_new(tree: Path, tmp_path: Path, face_photo: npt.NDArray[np.uint8]) -> None:
    archive = make_tree(tmp_path / "in", face_photo, pictures=4, video_s=0)
    out, folder = tmp_path / "results.parquet", tmp_path / "a"
    maskbatch.scan(archive, out, config_for("inline"), annotate=folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert len(before) == 4
    cv2.imwrite(str(archive / "cam0" / "new.jpg"), face_photo[:200, :200])
    summary = maskbatch.scan(archive, out, config_for("inline"), annotate=folder)
    assert summary.drawn == 5
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert {path: when for path, when in after.items() if path in before} == before
    assert {path.name for path in after.keys() - before.keys()} == {"new.jpg"}
    # A file that somebody removed is made again; another style or folder makes all of them again.
    (folder / "cam0" / "new.jpg").unlink()
    maskbatch.scan(archive, out, config_for("inline"), annotate=folder)
    assert (folder / "cam0" / "new.jpg").exists()
    maskbatch.scan(archive, out, config_for("inline"), annotate=folder, redact=True)
    assert all(path.stat().st_mtime_ns != when for path, when in after.items())


def test_kill_in_the_middle_of_drawing_then_the_same_command(tree: Path, tmp_path: Path) -> None:
    def command(folder: Path) -> list[str]:
        words = ["scan", tree, "--out", folder / "results.parquet", "--annotate", folder / "a", "--crops", folder / "c"]
        settings = ["--det-size", 160, "--every", "500ms", "--device", "cpu", "-j", 2, "--quiet"]
        return [sys.executable, "-m", "maskbatch", *map(str, words), *map(str, settings)]

    clean, killed = tmp_path / "clean", tmp_path / "killed"
    assert subprocess.run(command(clean), check=False).returncode == 3
    receipts = killed / "results.work" / "draw" / "receipts"
    with subprocess.Popen(command(killed)) as process:
        deadline = time.monotonic() + 120
        while not any(receipts.glob("*.json")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert (killed / "results.parquet").exists(), "it was killed while it drew, when the table was there"
    done_before = {path.name for path in receipts.glob("*.json")}
    assert subprocess.run(command(killed), check=False).returncode == 3
    for folder in ("a", "c"):
        assert files_below(killed / folder) == files_below(clean / folder)
    assert done_before <= {path.name for path in receipts.glob("*.json")}, "what was drawn is not drawn again"
    assert run_file(killed / "results.parquet")["summary"]["not_drawn"] == {}
    assert not list(killed.rglob("*.tmp"))


@dataclass(frozen=True)
class HostileDrawSpec(DrawWorkerSpec):
    """A real drawing worker whose picture decoder does something bad with one picture."""

    deed: str = "hang"

    def open(self) -> DrawWorker:
        decode = maskbatch.draw.images.read_bytes

        def hostile(path: str) -> bytes:
            if path.endswith(VICTIM):
                if self.deed == "die":
                    os.kill(os.getpid(), signal.SIGSEGV)
                if self.deed == "hang":
                    time.sleep(600)
                if self.deed == "fail":
                    raise ZeroDivisionError("a defect")
            return decode(path)

        maskbatch.draw.images.read_bytes = hostile
        return super().open()


@pytest.mark.parametrize(
    ("deed", "message"), [("hang", "no progress"), ("die", "SIGSEGV"), ("fail", "unexpected ZeroDivisionError")]
)
def test_a_picture_that_fails_only_while_drawing_costs_itself(
    deed: str, message: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results.parquet"

    def hostile(config: ScanConfig, task: Any, results: str, **devices: Any) -> DrawWorkerSpec:
        return HostileDrawSpec(config, task, results, deed=deed, **devices)

    with monkeypatch.context() as patch:
        patch.setattr("maskbatch.scanning.draw.DrawWorkerSpec", hostile)
        summary = _scan(tree, out, tmp_path / "a")
    assert list(summary.not_drawn) == [VICTIM]
    assert message in summary.not_drawn[VICTIM]
    assert (summary.drawn, summary.exit_code) == (12, 3)
    assert summary.status == {"ok": 13, "partial": 0, "error": 1}, "the table is not touched by it"
    assert any(VICTIM in note and "could not be drawn" in note for note in summary.notes)
    described = run_file(out)["summary"]
    assert (list(described["not_drawn"]), described["drawn"], described["exit_code"]) == ([VICTIM], 12, 3)
    names = files_below(tmp_path / "a")
    assert len(names) == 12
    assert VICTIM not in names
    # The next run, with a decoder that is well again, draws what is missing and nothing else.
    again = _scan(tree, out, tmp_path / "a")
    assert (again.drawn, again.not_drawn) == (13, {})
    assert len(files_below(tmp_path / "a")) == 13


def _scan(tree: Path, out: Path, folder: Path) -> ScanSummary:
    return maskbatch.scan(tree, out, config_for("processes", timeout_s=3.0), annotate=folder)


def test_a_folder_that_cannot_be_written_is_named_for_every_input(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cam0").write_text("in the way")
    summary = maskbatch.scan(tree, tmp_path / "results.parquet", config_for("inline"), annotate=tmp_path / "a")
    assert summary.exit_code == 3
    assert len(summary.not_drawn) == 6
    assert all(name.startswith("cam0/") for name in summary.not_drawn)
    assert all("cannot write" in message or "cam0" in message for message in summary.not_drawn.values())


def test_a_data_set_is_drawn_too_and_leaves_no_copy_of_the_rows(tree: Path, tmp_path: Path) -> None:
    summary = maskbatch.scan(tree, f"{tmp_path}/set/", config_for("processes"), annotate=tmp_path / "a")
    assert summary.drawn == 13
    clean = maskbatch.scan(tree, tmp_path / "r.parquet", config_for("inline"), annotate=tmp_path / "b")
    assert clean.drawn == 13
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")
    assert not (tmp_path / "set.work" / "rows.parquet").exists()
