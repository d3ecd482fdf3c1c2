"""Which variant of a model suits a device."""

from __future__ import annotations

from maskbatch.runtime.cpu import has_fast_int8
from maskbatch.runtime.devices import Device


def preferred_precisions(device: Device) -> tuple[str, ...]:
    """Precisions that run well on a device, fastest first: fp16 on a GPU, int8 on a CPU with VNNI, fp32 everywhere."""
    if device.is_gpu:
        return ("fp16", "fp32")
    return ("int8", "fp32") if has_fast_int8() else ("fp32",)
