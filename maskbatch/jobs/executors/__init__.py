"""Executors by name. They differ in where workers run, and in nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskbatch.jobs.executors.base import Executor


def make_executor(name: str) -> Executor:
    """The executor of this name; raises MissingExtraError where its extra is not installed."""
    if name == "inline":
        from maskbatch.jobs.executors.inline import InlineExecutor

        return InlineExecutor()
    if name == "ray":
        from maskbatch.jobs.executors.ray import RayExecutor

        return RayExecutor()
    from maskbatch.jobs.executors.processes import ProcessesExecutor

    return ProcessesExecutor()
