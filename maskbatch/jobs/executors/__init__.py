"""Executors by name. They differ in where workers run, and in nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskbatch.registry import Registry

if TYPE_CHECKING:  # the command line starts its workers before it imports anything heavy (`warm_pool`)
    from maskbatch.jobs.executors.base import Executor

EXECUTORS: Registry[type[Executor]] = Registry(
    "executor",
    {
        "inline": "maskbatch.jobs.executors.inline:InlineExecutor",
        "processes": "maskbatch.jobs.executors.processes:ProcessesExecutor",
        "ray": "maskbatch.jobs.executors.ray:RayExecutor",
    },
)
DEFAULT_EXECUTOR = "processes"


def make_executor(name: str) -> Executor:
    """The executor of this name, ``auto`` being the default one; raises UsageError where there is none."""
    return EXECUTORS.load(DEFAULT_EXECUTOR if name == "auto" else name)()
