"""What this machine's processor can do, as far as it decides which variant of a model is fastest."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


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


def has_fast_int8() -> bool:
    """Whether INT8 graphs run faster than float32 here: VNNI on x86, the dot-product instructions on Arm.

    Without them ONNX Runtime's U8S8 kernels are no faster than float, and may saturate.
    """
    return bool(_VNNI & cpu_flags()) or "asimddp" in cpu_flags()


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
