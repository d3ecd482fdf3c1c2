"""The one place that imports ONNX Runtime: devices, session options, loading, running."""

from __future__ import annotations

from maskbatch.models.files import cache_root
from maskbatch.runtime.cpu import cpu_flags, cpu_name, has_fast_int8
from maskbatch.runtime.devices import Device, list_devices, resolve_device, visible_gpus, why_not
from maskbatch.runtime.sessions import InputSpec, OnnxSession, open_session, output_names

__all__ = [
    "Device",
    "InputSpec",
    "OnnxSession",
    "cache_root",
    "cpu_flags",
    "cpu_name",
    "has_fast_int8",
    "list_devices",
    "open_session",
    "output_names",
    "resolve_device",
    "visible_gpus",
    "why_not",
]
