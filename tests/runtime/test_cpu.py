"""How many cores this process may use: affinity and the limits of its container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskbatch.runtime import cpu
from maskbatch.runtime.cpu import cgroup_cpus, usable_cpus


def group(mount: Path, path: str, name: str, content: str) -> None:
    folder = mount / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({"": "max 100000", "a": "150000 100000", "a/b": "max 100000"}, 1.5),
        ({"a": "200000 100000", "a/b": "50000 100000"}, 0.5),
        ({"a/b": "max 100000"}, None),
        ({}, None),
        ({"a/b": "nonsense"}, None),
    ],
)
def test_the_tightest_limit_of_cgroup_2_counts(limits: dict[str, str], cores: float | None, tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    for path, content in limits.items():
        group(tmp_path / "mount", path, "cpu.max", content)
    assert cgroup_cpus(membership, tmp_path / "mount") == cores


def test_inside_a_container_the_own_group_is_the_root(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/\n")
    group(tmp_path / "mount", "", "cpu.max", "300000 100000")
    assert cgroup_cpus(membership, tmp_path / "mount") == 3.0


def test_cgroup_1_is_read_too(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("5:memory:/job\n4:cpu,cpuacct:/job\n")
    group(tmp_path / "mount", "cpu,cpuacct/job", "cpu.cfs_quota_us", "250000")
    group(tmp_path / "mount", "cpu,cpuacct/job", "cpu.cfs_period_us", "100000")
    assert cgroup_cpus(membership, tmp_path / "mount") == 2.5
    group(tmp_path / "mount", "cpu,cpuacct/job", "cpu.cfs_quota_us", "-1")
    assert cgroup_cpus(membership, tmp_path / "mount") is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_the_affinity_of_this_process_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_part_of_a_core_is_one_worker_and_a_limit_above_the_affinity_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    for quota, expected in ((0.25, 1), (2.5, 3), (64.0, 8), (None, 8)):
        monkeypatch.setattr(cpu, "cgroup_cpus", lambda _membership, _mount, quota=quota: quota)
        assert usable_cpus() == expected
