"""Options are pure functions, so those of a GPU can be read where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskbatch.runtime import Device, cache_root
from maskbatch.runtime import options as made

CPU = Device("cpu", "CPUExecutionProvider")
CUDA = Device("cuda", "CUDAExecutionProvider", 1, 16, 64, 4, "NVIDIA H100 80GB")
TENSORRT = Device("tensorrt", "TensorrtExecutionProvider", 0, 16, 64, 4, "NVIDIA H100 80GB")


def test_cpu_sessions_are_single_threaded_and_do_not_spin() -> None:
    options = made.session_options(CPU, 1)
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made.provider_options(CPU) == [("CPUExecutionProvider", {})]


def test_cuda_searches_no_algorithms_and_knows_its_gpu() -> None:
    (name, options), last = made.provider_options(CUDA)
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == "1"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert last[0] == "CPUExecutionProvider"


def test_tensorrt_profile_is_exactly_the_bucket() -> None:
    first, second, _ = made.provider_options(TENSORRT, "ab" * 32, (16, 384, 640, 3), "images")
    assert (first[0], second[0]) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    profiles = {first[1][f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")}
    assert profiles == {"images:16x384x640x3"}
    assert (
        first[1]["trt_fp16_enable"] == first[1]["trt_engine_cache_enable"] == first[1]["trt_timing_cache_enable"] == "1"
    )


def test_engines_are_kept_per_model_gpu_and_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path))
    base = made.engine_folder(TENSORRT, "ab" * 32)
    other_gpu = Device("tensorrt", TENSORRT.provider, hardware="NVIDIA L4")
    folders = {base, made.engine_folder(TENSORRT, "cd" * 32), made.engine_folder(other_gpu, "ab" * 32)}
    monkeypatch.setattr(made, "tensorrt_version", lambda: "10.99")
    folders.add(made.engine_folder(TENSORRT, "ab" * 32))
    monkeypatch.setattr(made.ort, "__version__", "99.0")
    folders.add(made.engine_folder(TENSORRT, "ab" * 32))
    assert len(folders) == 5
    assert all(folder.is_relative_to(tmp_path / "engines") for folder in folders)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("MASKBATCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "maskbatch"
