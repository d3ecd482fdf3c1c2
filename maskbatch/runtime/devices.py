"""Where models run: which execution providers really start a session, and what suits each."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Literal

from maskbatch.config import DeviceName
from maskbatch.errors import DeviceError
from maskbatch.runtime.cpu import usable_cpus
from maskbatch.runtime.onnx import ort

RealDevice = Literal["cpu", "cuda", "tensorrt"]

PROVIDERS: dict[RealDevice, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_TITLES: dict[RealDevice, str] = {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}
GPU_INSTALL = "install the GPU runtime with `uv sync --no-group cpu --extra gpu` (or `pip install 'maskbatch[gpu]'`)"

# y = x + x on four floats: the smallest model that has a kernel on every provider. Made with onnx.helper, IR 8, opset 17.
_PROBE = bytes.fromhex(
    "08083a390a0e0a01780a01781201792203416464120570726f62655a0f0a0178120a0a08080112040a02"
    "0804620f0a0179120a0a08080112040a02080442040a001011"
)


@dataclass(frozen=True, slots=True)
class Device:
    """A processor that models run on. Picklable: it is resolved once, by the parent, and sent to the workers.

    Attributes:
        name: ``cpu``, ``cuda`` or ``tensorrt``.
        provider: ONNX Runtime's name of it.
        index: which GPU (0-based, among the visible ones); 0 on a CPU.
        detector_batch: images per detector call that suit it.
        classifier_batch: faces per classifier call that suit it.
        decode_threads: threads per worker that read and decode ahead.
        prefetch_mb: megabytes of decoded images that wait for it, per worker. On a CPU few enough to stay in the last cache:
            64 MB cost 5 % more time per 1080p image than 8.
        hardware: what it is called, for reports and the key of built engines; empty if unknown.
    """

    name: RealDevice
    provider: str
    index: int = 0
    detector_batch: int = 1
    classifier_batch: int = 8
    decode_threads: int = 1
    prefetch_mb: int = 16
    hardware: str = ""

    @property
    def is_gpu(self) -> bool:
        return self.name != "cpu"


def resolve_device(name: DeviceName, index: int = 0) -> Device:
    """The device to use, proven by a session that runs.

    ``auto`` is the best that starts: a GPU through CUDA where there is one, else the CPU. TensorRT takes minutes to build
    its engines, so it is used only when asked for.

    Raises:
        DeviceError: the device was asked for by name and cannot be had; says why, and what to do.
    """
    if name == "auto":
        return _device("cpu" if why_not("cuda", index) else "cuda", index)
    reason = why_not(name, index)
    if reason:
        raise DeviceError(f"{_TITLES[name]} was asked for but cannot be used: {reason}")
    return _device(name, index)


def list_devices(name: DeviceName) -> tuple[Device, ...]:
    """One device per GPU for a GPU, else the one CPU; the first is what `resolve_device` gives.

    Raises:
        DeviceError: as `resolve_device`.
    """
    first = resolve_device(name)
    if not first.is_gpu:
        return (first,)
    count = max(1, len(visible_gpus()))
    return (first, *(_device(first.name, index) for index in range(1, count)))


@lru_cache(maxsize=8)
def why_not(name: RealDevice, index: int = 0) -> str:
    """Why no session starts on a device; empty if one does. Asked once per process, since the answer takes seconds on a GPU."""
    provider = PROVIDERS[name]
    if name != "cpu" and provider not in ort.get_available_providers():
        return f"the installed {installed_runtime()} was built without it; {GPU_INSTALL}"
    prepare_gpu(name)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    providers: list[tuple[str, dict[str, str]]] = [(provider, {} if name == "cpu" else {"device_id": str(index)})]
    if name == "tensorrt":
        providers.append((PROVIDERS["cuda"], {"device_id": str(index)}))
    if name != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with captured_stderr() as log:
        try:
            with silent_stdout():
                session = ort.InferenceSession(_PROBE, options, providers=providers, enable_fallback=0)
        except Exception as error:  # the kinds are many and not documented
            failure: Exception | None = error
        else:
            failure = None
    if failure is not None:
        return f"{_cause(log, failure)}; {_gpu_fix(name)}"
    got = session.get_providers()
    if got[:1] != [provider]:
        return f"ONNX Runtime started {got[0] if got else 'nothing'} in its place; {_gpu_fix(name)}"
    return ""


@lru_cache(maxsize=4)
def prepare_gpu(name: RealDevice) -> None:
    """Load the CUDA and cuDNN libraries that came as Python packages, before the first session asks for them."""
    if name == "cpu" or not hasattr(ort, "preload_dlls"):
        return
    # It reports on standard output what it did not find; standard output belongs to `--json`.
    with silent_stdout(), contextlib.suppress(Exception):
        ort.preload_dlls()


def silent_stdout() -> contextlib.redirect_stdout[io.StringIO]:
    """Keeps what ONNX Runtime's Python layer prints off standard output."""
    return contextlib.redirect_stdout(io.StringIO())


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Collects the lines that native code writes to standard error: ONNX Runtime gives the true reason only there."""
    lines: list[str] = []
    try:
        saved = os.dup(2)
    except OSError:  # standard error is closed
        yield lines
        return
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            sink.seek(0)
            lines.extend(sink.read().decode("utf-8", "replace").splitlines())


def _cause(log: list[str], error: Exception) -> str:
    """The missing library, where that is why, else what ONNX Runtime says."""
    for line in log:
        missing = re.search(r"error: (\S+): cannot open shared object file", line)
        if missing:
            return f"the library {missing[1]} was not found"
    return one_line(error).rstrip(".")


def installed_runtime() -> str:
    """Name and version of the ONNX Runtime package that is imported, e.g. ``onnxruntime 1.32.0``."""
    for name in ("onnxruntime-gpu", "onnxruntime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            if metadata.version(name) == ort.__version__:
                return f"{name} {ort.__version__}"
    return f"onnxruntime {ort.__version__}"


@lru_cache(maxsize=1)
def visible_gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that a session can use, as the driver lists them and ``CUDA_VISIBLE_DEVICES`` leaves them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, "--query-gpu=index,uuid,name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return select_visible(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def select_visible(listing: str, visible: str | None) -> tuple[str, ...]:
    """Names of the GPUs that CUDA numbers 0, 1, … (``index, uuid, name`` per line in; CUDA stops at the first unknown entry)."""
    names: dict[str, str] = {}
    order: list[str] = []
    for line in listing.splitlines():
        index, _, rest = line.partition(",")
        uuid, _, name = rest.partition(",")
        names[index.strip()] = names[uuid.strip()] = name.strip()
        order.append(index.strip())
    chosen = []
    for entry in order if visible is None else visible.split(","):
        if entry.strip() not in names:
            break
        chosen.append(names[entry.strip()])
    return tuple(chosen)


def driver_version() -> str:
    """Version of the NVIDIA driver; empty without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def one_line(error: BaseException) -> str:
    """An exception of ONNX Runtime as part of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    # "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Failed to load model …" → what comes last.
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    # What went wrong stands at the end, after the names of files and functions.
    return text if len(text) <= 320 else f"{text[:120]} … {text[-190:]}"


def _device(name: RealDevice, index: int) -> Device:
    if name == "cpu":
        return Device("cpu", PROVIDERS["cpu"])
    gpus = visible_gpus()
    return Device(
        name,
        PROVIDERS[name],
        index,
        detector_batch=16,
        classifier_batch=64,
        decode_threads=max(2, usable_cpus() // max(1, len(gpus))),
        prefetch_mb=512,
        hardware=gpus[index] if index < len(gpus) else "",
    )


def _gpu_fix(name: RealDevice) -> str:
    if name == "cpu":
        return "reinstall onnxruntime"
    if not visible_gpus():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and shutil.which("nvidia-smi"):
            return f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU: unset it, or use --device cpu"
        return "no NVIDIA GPU or driver was found (`nvidia-smi` lists none): use --device cpu"
    if name == "tensorrt":
        return "install TensorRT 10 with `uv pip install tensorrt-cu13==10.14.1.48`, or use --device cuda"
    return "install CUDA 13 and cuDNN 9 with `uv pip install 'onnxruntime-gpu[cuda,cudnn]'`, or use --device cpu"
