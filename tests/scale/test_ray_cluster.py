"""Several Ray nodes for real, on one machine: each is a raylet with processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scan_maker
from scan_maker import CONFIG, make_tree, ray_or_skip, wait_for_ray

import maskbatch.scanning.process
from maskbatch.config import ScanConfig
from maskbatch.errors import UsageError
from maskbatch.jobs.executors.ray_cluster import import_ray
from maskbatch.pipeline.worker import ScanWorker, ScanWorkerSpec
from maskbatch.scanning.run import scan

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@dataclass(frozen=True, slots=True)
class SlowSpec(ScanWorkerSpec):
    """A real worker that takes its time over each unit, so that a node can be killed in the middle."""

    def open(self) -> ScanWorker:
        worker = ScanWorkerSpec.open(self)
        run = worker.run

        def run_slowly(unit: Any, report: Any) -> Any:
            time.sleep(1.0)
            return run(unit, report)

        worker.run = run_slowly  # type: ignore[method-assign]
        return worker


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with one CPU each; the second can be removed."""
    ray = ray_or_skip()
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    running.second = running.add_node(num_cpus=1)
    running.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", running.address)
    import test_ray_cluster

    for module in (scan_maker, test_ray_cluster):
        ray.cloudpickle.register_pickle_by_value(module)  # the nodes do not have the tests on their path
    ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
    wait_for_ray(ray, 2)
    ray.shutdown()
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.fixture
def tree(tmp_path: Path, face_photo: npt.NDArray[np.uint8]) -> Path:
    return make_tree(tmp_path / "in", face_photo, pictures=12, video_s=2.0)


def _config() -> ScanConfig:
    return replace(CONFIG, execution=replace(CONFIG.execution, executor="ray", workers=0, unit_images=1))


def test_a_node_killed_during_the_scan_changes_nothing(
    cluster: Any, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(tree, tmp_path / "clean.parquet", CONFIG)
    monkeypatch.setattr(maskbatch.scanning.process, "ScanWorkerSpec", SlowSpec)
    receipts = tmp_path / "results.work" / "receipts"

    def kill() -> None:
        while len(list(receipts.glob("*.json"))) < 3:
            time.sleep(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = scan(tree, tmp_path / "results.parquet", _config())
    killer.join()
    assert summary.workers == 2
    assert any("is gone" in note or "was lost" in note for note in summary.notes), summary.notes
    assert (tmp_path / "results.parquet").read_bytes() == (tmp_path / "clean.parquet").read_bytes()


def test_an_output_that_a_node_does_not_see_is_refused(
    cluster: Any, tree: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("out")
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("needs the right to make a mount namespace (root)")
    cluster.remove_node(cluster.second)
    # A node for which the output folder is another, empty disk.
    start = f"{sys.executable} -m ray.scripts.scripts start --address={cluster.address} --num-cpus=1 --block"
    blind = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {out} && exec {start}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        assert _joined(cluster, 2)
        with pytest.raises(UsageError, match=r"does not see the output .*results\.work; put it on a file system"):
            scan(tree, out / "results.parquet", _config())
        assert not (out / "results.parquet").exists()
    finally:
        os.killpg(blind.pid, signal.SIGTERM)
        blind.wait(60)


def _joined(cluster: Any, count: int) -> bool:
    """Whether so many nodes are alive, within two minutes."""
    ray = import_ray()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if sum(node["Alive"] for node in ray.nodes()) == count:
            break
        time.sleep(0.5)
    alive = sum(node["Alive"] for node in ray.nodes())
    ray.shutdown()
    return alive == count
