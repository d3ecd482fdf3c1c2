"""What this machine's processor can do, and how much of it we may use. ONNX Runtime is not needed here."""

from __future__ import annotations

import math
import os
import platform
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the first core as Linux names them; empty where ``/proc/cpuinfo`` is missing."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's name, for reports."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Cores that this process may use: the CPU affinity, and the limit of its container (cgroup) where there is one."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        allowed = os.cpu_count() or 1
    quota = cgroup_cpus(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def cgroup_cpus(membership: Path, mount: Path) -> float | None:
    """The tightest CPU limit of the control groups that this process is in, in cores; None where there is none.

    Args:
        membership: ``/proc/self/cgroup``.
        mount: where the control groups are mounted, ``/sys/fs/cgroup``.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (``cpu.max``) and scheduler/sched-bwc.rst (``cpu.cfs_quota_us``).
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        group = Path(path.lstrip("/"))
        if number == "0" and not controllers:
            # A limit of any group above counts too; inside a container the own group is mounted as the root.
            limits += [_quota_v2(mount / folder / "cpu.max") for folder in (group, *group.parents)]
        elif "cpu" in controllers.split(","):
            base = mount / "cpu" if (mount / "cpu").is_dir() else mount / controllers
            limits += [_quota_v1(base / folder) for folder in (group, *group.parents)]
    return min((limit for limit in limits if limit is not None), default=None)


def _quota_v2(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
