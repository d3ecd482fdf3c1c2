"""The one import of ONNX Runtime; where it is not installed, an error that says how to install it."""

from __future__ import annotations

import contextlib
from typing import Any

from maskbatch.errors import MissingExtraError

INSTALL = (
    "install it with `pip install 'maskbatch[cpu]'`, or `pip install 'maskbatch[gpu]'` for NVIDIA GPUs "
    "(in a clone, `uv sync` does it)"
)


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
        what = "ONNX Runtime is not installed" if missing else f"ONNX Runtime cannot be loaded ({error})"
        raise MissingExtraError(f"{what}: {INSTALL}") from error
    if not hasattr(onnxruntime, "InferenceSession"):  # what is left of a package that was uninstalled
        raise MissingExtraError(f"ONNX Runtime is not installed: {INSTALL}")
    with contextlib.suppress(Exception):  # a program may have imported it before us
        onnxruntime.disable_telemetry_events()
    return onnxruntime


ort = _import()
