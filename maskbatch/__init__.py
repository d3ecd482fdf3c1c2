"""Batch inference over archives of images and CCTV video: who wore a face mask, correctly or not, when and where.

::

    import maskbatch

    summary = maskbatch.scan("photos", "results.parquet", workers=2)
    faces = maskbatch.read_results("results.parquet")

Settings are the groups of `ScanConfig`; every error is a `MaskbatchError` (the tree stands in `maskbatch.errors`).
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ONNX Runtime reads it when it is imported: without it, it looks up its maker's collector and writes a device id into the home folder.
# Set here, where every process of ours begins: command line, Python API, workers, Ray's actors, the training package.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from maskbatch.config import (
        CaptureMetadata,
        Execution,
        Limits,
        ModelSettings,
        OutputOptions,
        Sampling,
        ScanConfig,
        ScanOptions,
    )
    from maskbatch.errors import (
        DeviceError,
        InputError,
        InputNotFoundError,
        LockedError,
        MaskbatchError,
        MissingExtraError,
        ModelError,
        OutputError,
        OutputExistsError,
        SettingsChangedError,
        UsageError,
        WorkerError,
    )
    from maskbatch.evaluate.main import EvaluationRequest, evaluate_models
    from maskbatch.evaluate.report import Evaluation, Rules
    from maskbatch.results.reader import ResultReader, read_inputs, read_results, read_tracks
    from maskbatch.results.summary import ResultSummary, summarize
    from maskbatch.scanning.progress import Progress, Reporter, SilentReporter
    from maskbatch.scanning.run import scan
    from maskbatch.scanning.status import WorkStatus, read_status
    from maskbatch.scanning.summary import ScanSummary

_PLACES = {
    "config": (
        "CaptureMetadata",
        "Execution",
        "Limits",
        "ModelSettings",
        "OutputOptions",
        "Sampling",
        "ScanConfig",
        "ScanOptions",
    ),
    "errors": (
        "DeviceError",
        "InputError",
        "InputNotFoundError",
        "LockedError",
        "MaskbatchError",
        "MissingExtraError",
        "ModelError",
        "OutputError",
        "OutputExistsError",
        "SettingsChangedError",
        "UsageError",
        "WorkerError",
    ),
    "evaluate.main": ("EvaluationRequest", "evaluate_models"),
    "evaluate.report": ("Evaluation", "Rules"),
    "results.reader": ("ResultReader", "read_inputs", "read_results", "read_tracks"),
    "results.summary": ("ResultSummary", "summarize"),
    "scanning.progress": ("Progress", "Reporter", "SilentReporter"),
    "scanning.run": ("scan",),
    "scanning.status": ("WorkStatus", "read_status"),
    "scanning.summary": ("ScanSummary",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "CaptureMetadata",
    "DeviceError",
    "Evaluation",
    "EvaluationRequest",
    "Execution",
    "InputError",
    "InputNotFoundError",
    "Limits",
    "LockedError",
    "MaskbatchError",
    "MissingExtraError",
    "ModelError",
    "ModelSettings",
    "OutputError",
    "OutputExistsError",
    "OutputOptions",
    "Progress",
    "Reporter",
    "ResultReader",
    "ResultSummary",
    "Rules",
    "Sampling",
    "ScanConfig",
    "ScanOptions",
    "ScanSummary",
    "SettingsChangedError",
    "SilentReporter",
    "UsageError",
    "WorkStatus",
    "WorkerError",
    "__version__",
    "evaluate_models",
    "read_inputs",
    "read_results",
    "read_status",
    "read_tracks",
    "scan",
    "summarize",
]


def __getattr__(name: str) -> Any:
    """Load on first use, so that `import maskbatch` and `maskbatch --help` stay quick."""
    if name not in _MODULES:
        raise AttributeError(f"module 'maskbatch' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"maskbatch.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
