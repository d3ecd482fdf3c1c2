"""What `maskbatch doctor` finds out: is everything here that a scan needs, and does it really start?"""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from maskbatch.config import ModelSettings
from maskbatch.errors import MaskbatchError

State = Literal["ok", "note", "wrong"]

_PACKAGES = ("maskbatch", "numpy", "opencv-python-headless", "av", "simplejpeg", "pyarrow", "pandas")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_OPENCVS = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what, in a word or two.
        state: ``wrong`` makes the exit code 1; a ``note`` is something that works but could be better.
        detail: what was found.
        fix: the exact command or step, where something is to be done.
    """

    name: str
    state: State
    detail: str
    fix: str = ""


def run_checks() -> list[Check]:
    """Look at everything, in the order in which one thing depends on another."""
    checks = [_python(), *_versions()]
    wheels = list(_wheel_conflicts(installed_versions(_RUNTIMES), installed_versions(_OPENCVS)))
    checks += wheels
    try:
        import maskbatch.runtime.onnx  # noqa: F401
    except MaskbatchError as error:
        what, _, fix = str(error).partition(": ")
        return [*checks, Check("runtime", "wrong", what, fix)]
    except Exception as error:  # a broken wheel raises anything
        what = f"ONNX Runtime cannot be imported: {error}"
        return [*checks, Check("runtime", "wrong", what, _install("onnxruntime"))]
    checks += _opencv()
    checks += _processors()
    checks += _providers()
    checks += _models()
    checks += _auto()
    return checks


def as_dict(checks: list[Check]) -> dict[str, object]:
    """For ``--json``."""
    wrong = any(check.state == "wrong" for check in checks)
    return {"ok": not wrong, "checks": [dataclasses.asdict(check) for check in checks]}


def installed_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _wheel_conflicts(runtimes: dict[str, str], opencvs: dict[str, str]) -> Iterator[Check]:
    """Wheels that write the same folder: the one installed last wins, silently."""
    if not runtimes:
        yield Check("ONNX Runtime", "wrong", "none is installed", _install("onnxruntime"))
    elif len(runtimes) > 1:
        yield Check(
            "ONNX Runtime",
            "wrong",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            f"{_uv('uninstall')} {' '.join(runtimes)} && {_install('onnxruntime')}"
            "   (with an NVIDIA GPU: onnxruntime-gpu[cuda,cudnn] instead)",
        )
    else:
        yield Check("ONNX Runtime", "ok", _joined(runtimes))
    if len(opencvs) > 1:
        yield Check(
            "OpenCV",
            "wrong",
            f"{' and '.join(opencvs)} are both installed and overwrite each other",
            f"{_uv('uninstall')} {' '.join(opencvs)} && {_install('opencv-python-headless')}",
        )


def _python() -> Check:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    return Check("Python", "ok", text)


def _versions() -> Iterator[Check]:
    yield Check("packages", "ok", _joined(installed_versions(_PACKAGES)))


def _opencv() -> Iterator[Check]:
    try:
        import cv2
    except Exception as error:  # a missing libGL raises ImportError, a torn installation anything
        fix = f"{_uv('uninstall')} {' '.join(_OPENCVS)}; {_install('opencv-python-headless')}"
        yield Check("OpenCV", "wrong", f"it cannot be imported: {error}", fix)
        return
    if int(cv2.__version__.split(".")[0]) < 5:
        yield Check("OpenCV", "wrong", f"{cv2.__version__} is too old", _install("'opencv-python-headless>=5'"))


def _processors() -> Iterator[Check]:
    from maskbatch.runtime import cpu_name, usable_cpus, visible_gpus
    from maskbatch.runtime.devices import driver_version

    cores = usable_cpus()
    yield Check("CPU", "ok", f"{cpu_name()}, {cores} cores usable by this process")
    gpus = visible_gpus()
    detail = f"{', '.join(gpus)}, driver {driver_version()}" if gpus else "none found by the NVIDIA driver"
    yield Check("GPU", "ok", detail)


def _providers() -> Iterator[Check]:
    from maskbatch.runtime import visible_gpus, why_not
    from maskbatch.runtime.devices import GPU_INSTALL

    reason = why_not("cpu")
    yield Check(
        "provider cpu",
        "wrong" if reason else "ok",
        reason or "starts a session",
        _install("onnxruntime") if reason else "",
    )
    gpu_runtime = "onnxruntime-gpu" in installed_versions(_RUNTIMES)
    for name in ("cuda", "tensorrt"):
        reason = why_not(name)
        if not reason:
            yield Check(f"provider {name}", "ok", "starts a session")
        elif not gpu_runtime:
            # A CPU installation is complete by itself; a GPU that lies idle is worth a word.
            idle = bool(visible_gpus()) and name == "cuda"
            detail = "a GPU is here, but the CPU runtime is installed" if idle else "not in the CPU runtime"
            yield Check(f"provider {name}", "note" if idle else "ok", detail, GPU_INSTALL if idle else "")
        else:
            what, _, fix = reason.partition("; ")
            broken = name == "cuda" and bool(visible_gpus())
            yield Check(f"provider {name}", "wrong" if broken else "note", what, fix)


def _models() -> Iterator[Check]:
    from maskbatch.models import all_entries, entry_path
    from maskbatch.models.registry import check_entry, to_file

    try:
        entries = all_entries()
    except MaskbatchError as error:
        yield Check("models", "wrong", str(error), "reinstall maskbatch")
        return
    for entry in entries:
        if not entry.packaged and not entry_path(entry).exists():
            continue
        problem = check_entry(entry)
        if problem:
            yield Check(f"model {entry.name}", "wrong", problem.partition(": ")[0], to_file(entry).fix)
        else:
            yield Check(f"model {entry.name}", "ok", f"{entry_path(entry)}, SHA-256 {entry.sha256[:12]}…")


def _auto() -> Iterator[Check]:
    """Load what a plain `maskbatch scan` would load, and run it once."""
    import numpy as np

    try:
        from maskbatch.classify.classifier import make_classifier
        from maskbatch.detect import make_detector
        from maskbatch.pipeline.models import variant_choices
        from maskbatch.runtime import resolve_device

        device = resolve_device("auto")
        detector = make_detector(ModelSettings(), device)
        detector.detect([np.zeros((64, 64, 3), np.uint8)])
        classifier = make_classifier(ModelSettings(), device)
        classifier.warm_up()
    except MaskbatchError as error:
        what, _, fix = str(error).rpartition(": ")
        yield Check("--device auto", "wrong", what or str(error), fix)
        return
    for choice in variant_choices(ModelSettings(), device):
        times = ", ".join(f"{kind} {value:.1f} ms" for kind, value in choice.milliseconds.items())
        yield Check(f"variant of {choice.model}", "ok", f"{choice.chosen} ({times}; measured {choice.measured_at})")
    hardware = f" ({device.hardware})" if device.hardware else ""
    yield Check("--device auto", "ok", f"{device.name}{hardware} with {detector.name} and {classifier.name}; both ran")


def _joined(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _uv(action: str) -> str:
    return f"uv pip {action} --python {sys.executable}"


def _install(package: str) -> str:
    return f"{_uv('install')} --reinstall {package}"
