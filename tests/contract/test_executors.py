"""Every executor, through the same scans: the same bytes, also when a worker dies, hangs or fails on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
import pytest
import scan_maker
from scan_maker import CONFIG, Deed, FaultySpec, make_tree, ray_or_skip, wait_for_ray

import maskbatch.scanning.process
from maskbatch.config import ScanConfig
from maskbatch.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, UsageError, WorkerError
from maskbatch.jobs.executors import ray as ray_executor
from maskbatch.jobs.executors.ray_cluster import ResourceRequest, connect, request_resources
from maskbatch.scanning.progress import Progress, SilentReporter
from maskbatch.scanning.run import scan
from maskbatch.scanning.summary import ScanSummary

pytestmark = pytest.mark.timeout(900)  # Ray takes its time to start on a busy machine

with_processes = pytest.param("processes", id="processes")
with_ray = pytest.param("ray", id="ray", marks=pytest.mark.ray)
EXECUTORS = [pytest.param("inline", id="inline"), with_processes, with_ray]
VICTIM = "cam1/2026-03-02_12-00-07.jpg"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, face_photo: npt.NDArray[np.uint8]) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree") / "in", face_photo)


@pytest.fixture(scope="module")
def clean(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of an undisturbed run in one process."""
    out = tmp_path_factory.mktemp("clean") / "results.parquet"
    summary = scan(tree, out, CONFIG)
    assert summary.faces >= 10
    assert summary.status == {"ok": 13, "partial": 0, "error": 1}
    return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One Ray on this machine for all tests of the module, with two CPUs."""
    ray = ray_or_skip()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
    wait_for_ray(ray, 2)
    ray.cloudpickle.register_pickle_by_value(scan_maker)  # its workers do not have the tests on their path
    yield ray
    ray.shutdown()


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return str(request.param)


def _config(executor: str, timeout_s: float = 60.0) -> ScanConfig:
    name = executor
    return replace(CONFIG, execution=replace(CONFIG.execution, executor=name, timeout_s=timeout_s))


def _scan_faulty(
    monkeypatch: pytest.MonkeyPatch,
    tree: Path,
    out: Path,
    executor: str,
    deed: Deed,
    *,
    once: bool,
    timeout_s: float = 60,
) -> ScanSummary:
    mark = str(out.with_name("done-once")) if once else ""
    with monkeypatch.context() as patch:
        patch.setattr(
            maskbatch.scanning.process,
            "ScanWorkerSpec",
            lambda config, devices: FaultySpec(config, devices, VICTIM, deed, mark),
        )
        return scan(tree, out, _config(executor, timeout_s))


def _same(out: Path, clean: Path) -> bool:
    return out.read_bytes() == clean.read_bytes()


@pytest.mark.parametrize("executor", EXECUTORS, indirect=True)
def test_results_are_equal_byte_by_byte(tree: Path, clean: Path, tmp_path: Path, executor: str) -> None:
    out = tmp_path / "results.parquet"
    summary = scan(tree, out, _config(executor))
    assert _same(out, clean)
    assert (summary.exit_code, summary.workers) == (EXIT_SOME_FAILED, 1 if executor == "inline" else 2)
    inputs, expected = (
        pd.read_parquet(path.with_name("results.inputs.parquet")).drop(columns=["decode_s", "detect_s", "classify_s"])
        for path in (out, clean)
    )
    pd.testing.assert_frame_equal(inputs, expected)


@pytest.mark.parametrize("executor", EXECUTORS, indirect=True)
def test_drawn_files_are_equal_too(
    tree: Path, tmp_path: Path, executor: str, monkeypatch: pytest.MonkeyPatch, drawn_clean: dict[str, bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {"annotate": Path("annotated"), "crops": Path("crops")}  # relative: workers may run elsewhere
    summary = scan(tree, "results.parquet", _config(executor), **folders)
    assert (summary.drawn, summary.not_drawn) == (13, {})
    assert _files(tmp_path, folders) == drawn_clean


@pytest.fixture(scope="module")
def drawn_clean(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("drawn")
    folders = {"annotate": folder / "annotated", "crops": folder / "crops"}
    scan(tree, folder / "results.parquet", CONFIG, **folders)
    return _files(folder, folders)


def _files(base: Path, folders: dict[str, Path]) -> dict[str, bytes]:
    found = [path for folder in folders.values() for path in sorted((base / folder).rglob("*")) if path.is_file()]
    return {str(path.relative_to(base)): path.read_bytes() for path in found}


@pytest.mark.parametrize("executor", [with_processes, with_ray], indirect=True)
@pytest.mark.parametrize("deed", ["die", "hang", "fail"])
def test_a_worker_lost_in_the_middle_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tree: Path, clean: Path, tmp_path: Path, executor: str, deed: Deed
) -> None:
    out = tmp_path / "results.parquet"
    timeout_s = 4.0 if deed == "hang" else 60.0
    summary = _scan_faulty(monkeypatch, tree, out, executor, deed, once=True, timeout_s=timeout_s)
    assert (tmp_path / "done-once").exists()
    assert any("a worker was lost" in note for note in summary.notes), summary.notes
    assert _same(out, clean)


@pytest.mark.parametrize("executor", [with_processes, with_ray], indirect=True)
def test_an_input_that_kills_its_worker_each_time_is_set_aside(
    monkeypatch: pytest.MonkeyPatch, tree: Path, clean: Path, tmp_path: Path, executor: str
) -> None:
    out = tmp_path / "results.parquet"
    summary = _scan_faulty(monkeypatch, tree, out, executor, "die", once=False)
    assert summary.status == {"ok": 12, "partial": 0, "error": 2}
    inputs = pd.read_parquet(tmp_path / "results.inputs.parquet").set_index("source")
    assert inputs.loc[VICTIM, "error"] == "crashed"
    rows, expected = pd.read_parquet(out), pd.read_parquet(clean)
    expected = expected[expected["source"] != VICTIM].reset_index(drop=True)
    columns = ["source", "frame", "face", "x1", "y1", "x2", "y2", "score", "confidence"]
    pd.testing.assert_frame_equal(rows[columns].astype({"source": str}), expected[columns].astype({"source": str}))


@pytest.mark.parametrize("executor", [with_processes, with_ray], indirect=True)
def test_an_interrupted_run_stops_its_workers_and_continues(
    tree: Path, clean: Path, tmp_path: Path, executor: str
) -> None:
    class Impatient(SilentReporter):
        def progress(self, state: Progress) -> None:
            if state.pieces_done:
                raise KeyboardInterrupt

    out = tmp_path / "results.parquet"
    with pytest.raises(KeyboardInterrupt):
        scan(tree, out, _config(executor), reporter=Impatient())
    deadline = time.monotonic() + 10
    while _busy_workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _busy_workers() == []
    assert not out.exists()
    summary = scan(tree, out, _config(executor))
    assert summary.resumed > 0
    assert _same(out, clean)


def _busy_workers() -> list[str]:
    """Worker processes below this one, of any executor."""
    titles = []
    for process in psutil.Process().children(recursive=True):
        try:
            titles.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return [title for title in titles if "ScanActor" in title or ("spawn_main" in title and "tracker" not in title)]


# --- Ray only


@pytest.mark.ray
def test_a_cluster_without_free_cpus_is_diagnosed(cluster: Any, tree: Path, tmp_path: Path, monkeypatch: Any) -> None:
    class Hog:
        def ping(self) -> None: ...

    hog = cluster.remote(Hog).options(num_cpus=2).remote()
    cluster.get(hog.ping.remote())
    monkeypatch.setattr(ray_executor, "START_TIMEOUT_S", 3.0)
    with pytest.raises(WorkerError, match=r"no worker has been alive for 3 s.*2 CPUs.*0 and 0 are free.*0.8333 CPU"):
        scan(tree, tmp_path / "results.parquet", _config("ray"))
    cluster.kill(hog)


@pytest.mark.ray
def test_the_command_line_starts_and_stops_its_own_ray(tree: Path, clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    command = [sys.executable, "-m", "maskbatch", "scan", str(tree), "--out", str(out), "--executor", "ray", "--quiet"]
    command += ["--det-size", "160", "--every", "500ms", "--device", "cpu", "-j", "2"]
    receipts = tmp_path / "results.work" / "receipts"
    with subprocess.Popen(command, process_group=0) as process:
        while process.poll() is None and not any(receipts.glob("*.json")):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        assert process.wait(60) in (EXIT_INTERRUPTED, EXIT_SOME_FAILED)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert subprocess.run(command, check=False).returncode == EXIT_SOME_FAILED
    assert pd.read_parquet(out).equals(pd.read_parquet(clean))


def test_an_address_without_a_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ray_or_skip()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(WorkerError, match=r"no Ray cluster can be reached at 127.0.0.1:1: Connection refused"):
        connect("127.0.0.1:1")


def test_a_client_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ray_or_skip()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UsageError, match="ray job submit"):
        connect("ray://head:10001")


@pytest.mark.parametrize(
    ("nodes", "workers", "on_gpu", "expected"),
    [
        ([{"CPU": 2.0}], 0, False, ResourceRequest(2, 0.8333, 0.0)),
        ([{"CPU": 16.0}, {"CPU": 16.0}], 0, False, ResourceRequest(32, 0.9705, 0.0)),
        ([{"CPU": 2.0}], 4, False, ResourceRequest(4, 0.475, 0.0)),
        ([{"CPU": 1.0}], 1, False, ResourceRequest(1, 0.75, 0.0)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}], 0, True, ResourceRequest(2, 0.9444, 1.0)),
        ([{"CPU": 8.0, "GPU": 1.0}], 2, True, ResourceRequest(2, 0.9444, 0.5)),
    ],
)
def test_actors_leave_some_cpu_to_ray(
    nodes: list[dict[str, float]], workers: int, on_gpu: bool, expected: ResourceRequest
) -> None:
    found = request_resources(nodes, workers, on_gpu)
    assert found == expected
    assert found.actors * found.cpus < sum(node["CPU"] for node in nodes)


def test_gpus_that_are_not_there_are_missed() -> None:
    with pytest.raises(WorkerError, match="offers none"):
        request_resources([{"CPU": 8.0}], 0, on_gpu=True)
