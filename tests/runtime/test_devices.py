"""A device is what was asked for, or an error that says why and what to do."""

from __future__ import annotations

import sys

import onnxruntime
import pytest

from maskbatch.errors import DeviceError
from maskbatch.runtime import list_devices, resolve_device, why_not
from maskbatch.runtime.devices import captured_stderr, one_line, select_visible

HAS_CUDA_RUNTIME = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
LISTING = "0, GPU-aaa, NVIDIA H100\n1, GPU-bbb, NVIDIA L4\n"


def test_cpu_is_always_there() -> None:
    device = resolve_device("cpu")
    assert (device.name, device.provider, device.is_gpu) == ("cpu", "CPUExecutionProvider", False)
    assert device.detector_batch == 1
    assert device.classifier_batch == 8
    assert list_devices("cpu") == (device,)


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
@pytest.mark.skipif(HAS_CUDA_RUNTIME, reason="the GPU runtime is installed: CUDA may really be had")
def test_gpu_that_was_asked_for_and_is_not_there_stops_with_the_fix(name: str) -> None:
    with pytest.raises(DeviceError, match=r"was asked for but cannot be used: .*--extra gpu") as error:
        resolve_device(name)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_auto_is_the_best_that_starts() -> None:
    expected = "cpu" if why_not("cuda") else "cuda"
    assert resolve_device("auto").name == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ("NVIDIA H100", "NVIDIA L4")),
        ("1", ("NVIDIA L4",)),
        ("1,0", ("NVIDIA L4", "NVIDIA H100")),
        ("GPU-bbb", ("NVIDIA L4",)),
        ("0,7,1", ("NVIDIA H100",)),
        ("", ()),
        ("-1", ()),
    ],
)
def test_visible_gpus_are_numbered_as_cuda_numbers_them(visible: str | None, expected: tuple[str, ...]) -> None:
    assert select_visible(LISTING, visible) == expected


def test_native_standard_error_is_collected_and_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr() as lines:
        sys.stderr.flush()
        import os

        os.write(2, b"from native code\n")
    os.write(2, b"afterwards\n")
    assert lines == ["from native code"]
    assert capfd.readouterr().err == "afterwards\n"


def test_messages_of_onnxruntime_become_part_of_a_sentence() -> None:
    error = RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model\n failed: Protobuf parsing failed.")
    assert one_line(error) == "Load model failed: Protobuf parsing failed."
