"""Session and provider options: pure functions of device, model and shapes, so that they can be read and tested without a GPU."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from maskbatch.models.files import cache_root
from maskbatch.runtime.devices import PROVIDERS, Device
from maskbatch.runtime.onnx import ort

Provider = tuple[str, dict[str, str]]


def session_options(device: Device, threads: int) -> ort.SessionOptions:
    """Options that make a session deterministic, quiet, and a good neighbour of the decoders on the same cores."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Optimised here and never stored: a graph optimised offline carries this machine's layouts.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Spinning threads take the cores from the decoders while they wait.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def provider_options(
    device: Device, model_sum: str = "", shape: tuple[int, ...] = (), input_name: str = ""
) -> list[Provider]:
    """Execution providers for one session, best first.

    Args:
        device: where it runs.
        model_sum: SHA-256 of the model file (TensorRT: part of the engine's key).
        shape: the one shape this session will meet, batch first (TensorRT).
        input_name: the model's input (TensorRT).
    """
    if device.name == "cpu":
        return [(PROVIDERS["cpu"], {})]
    cuda: Provider = (
        PROVIDERS["cuda"],
        {
            "device_id": str(device.index),
            # EXHAUSTIVE would time every algorithm again for each new shape.
            "cudnn_conv_algo_search": "HEURISTIC",
            # Shapes are few and fixed, so nothing is gained by growing in powers of two.
            "arena_extend_strategy": "kSameAsRequested",
            "do_copy_in_default_stream": "1",
        },
    )
    # The CPU provider stays last for shape arithmetic only (a Reshape's sizes); `sessions` checks who got the model.
    last: Provider = (PROVIDERS["cpu"], {})
    if device.name == "cuda":
        return [cuda, last]
    return [(PROVIDERS["tensorrt"], _tensorrt(device, model_sum, shape, input_name)), cuda, last]


def _tensorrt(device: Device, model_sum: str, shape: tuple[int, ...], input_name: str) -> dict[str, str]:
    folder = engine_folder(device, model_sum)
    options = {
        "device_id": str(device.index),
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": "x".join(map(str, shape)) or "any",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    if shape and input_name:
        # One session per bucket with min = opt = max: TensorRT then compiles for exactly that shape and never again.
        profile = f"{input_name}:{'x'.join(map(str, shape))}"
        options |= {f"trt_profile_{kind}_shapes": profile for kind in ("min", "opt", "max")}
    return options


def engine_folder(device: Device, model_sum: str) -> Path:
    """Where engines built for one model on one kind of machine lie.

    An engine is valid for one model, ONNX Runtime, TensorRT, GPU and precision; all five are in the folder's name.
    """
    key = "|".join((model_sum, ort.__version__, tensorrt_version(), device.hardware, "fp16"))
    gpu = re.sub(r"[^a-z0-9]+", "-", device.hardware.lower()).strip("-") or "gpu"
    return cache_root() / "engines" / f"{model_sum[:12]}-{gpu}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def tensorrt_version() -> str:
    """Version of the installed TensorRT package; ``none`` without one."""
    from importlib import metadata

    for name in ("tensorrt-cu13", "tensorrt-cu12", "tensorrt"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"
