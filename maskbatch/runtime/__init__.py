"""The one place that imports ONNX Runtime: devices, session options, loading, running.

Names are loaded on first use: what the processor can do is asked before any model is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskbatch.models.files import cache_root
    from maskbatch.runtime.cpu import cpu_flags, cpu_name, usable_cpus
    from maskbatch.runtime.devices import Device, list_devices, resolve_device, visible_gpus, why_not
    from maskbatch.runtime.sessions import InputSpec, OnnxSession, open_session

__all__ = [
    "Device",
    "InputSpec",
    "OnnxSession",
    "cache_root",
    "cpu_flags",
    "cpu_name",
    "list_devices",
    "open_session",
    "resolve_device",
    "usable_cpus",
    "visible_gpus",
    "why_not",
]

_PLACES = {
    "cache_root": "maskbatch.models.files",
    **dict.fromkeys(("cpu_flags", "cpu_name", "usable_cpus"), "maskbatch.runtime.cpu"),
    **dict.fromkeys(
        ("Device", "list_devices", "resolve_device", "visible_gpus", "why_not"), "maskbatch.runtime.devices"
    ),
    **dict.fromkeys(("InputSpec", "OnnxSession", "open_session"), "maskbatch.runtime.sessions"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'maskbatch.runtime' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value
