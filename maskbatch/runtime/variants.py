"""Which variant of a model suits a device: on a CPU, what is fastest *here*, measured once and remembered.

Variants of one model are of equal quality (`export` refuses others), so speed alone decides, and no list of processor flags says as
much about it as running both. What was measured lies in the cache folder, by processor, ONNX Runtime and checksums, so that a machine
chooses the same until one of them changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskbatch.errors import OutputError
from maskbatch.models.files import ModelFile, cache_root
from maskbatch.runtime.cpu import cpu_flags, cpu_name
from maskbatch.runtime.devices import Device
from maskbatch.storage.atomic import written_whole

MARGIN = 0.97
"""INT8 is taken where it needs less than this share of float32's time: what is as fast stays as it is."""
SECONDS = 0.15
"""How long the variants of one model run, together, once they are loaded."""
_SIDE, _BATCH = 320, 4
_ROUNDS = (3, 20)


@dataclass(frozen=True, slots=True)
class Choice:
    """How the variant of one model was chosen on this machine's CPU.

    Attributes:
        model: name without variant.
        chosen: precision.
        milliseconds: least time of a run by precision, on one thread, at a small input of fixed size.
        processor: on which.
        runtime: of ONNX Runtime, its version.
        sha256: of the files, by precision.
        measured_at: UTC, ISO 8601.
    """

    model: str
    chosen: str
    milliseconds: dict[str, float]
    processor: str
    runtime: str
    sha256: dict[str, str]
    measured_at: str


Measure = Callable[[Mapping[str, ModelFile], Device], dict[str, float]]


def preferred_precisions(device: Device, files: Mapping[str, ModelFile] | None = None) -> tuple[str, ...]:
    """Precisions that run well on a device, best first.

    Args:
        device: from `resolve_device`.
        files: the variants that there are, by precision (`maskbatch.models.variant_files`).

    Returns:
        fp16 first on a GPU. On a CPU the faster of float32 and INT8, as `choose` finds; float32 where there is nothing to choose.

    Raises:
        ModelError: a variant cannot be loaded.
    """
    if device.is_gpu:
        return ("fp16", "fp32")
    choice = choose(files or {}, device)
    return ("int8", "fp32") if choice is not None and choice.chosen == "int8" else ("fp32",)


def choose(files: Mapping[str, ModelFile], device: Device, measure: Measure | None = None) -> Choice | None:
    """The faster of float32 and INT8 on this machine's CPU: as remembered, else measured now (under a second for two models).

    Args:
        files: variants by precision.
        device: a CPU.
        measure: milliseconds of a run by precision; `measure_speeds`, unless a test brings its own.

    Returns:
        None where there is no choice: on a GPU, or where one of the two files is missing.

    Raises:
        ModelError: a variant cannot be loaded.
    """
    wanted = {kind: files[kind] for kind in ("fp32", "int8") if kind in files}
    if device.is_gpu or len(wanted) < 2:
        return None
    facts = _facts(wanted)
    path = _place(facts)
    known = _remembered(path, facts)
    if known is not None:
        return known
    speeds = (measure or measure_speeds)(wanted, device)
    chosen = "int8" if speeds["int8"] < MARGIN * speeds["fp32"] else "fp32"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    choice = Choice(chosen=chosen, milliseconds=speeds, measured_at=now, **facts)
    _remember(path, choice)
    # Another process may have measured at the same time and been first: what lies there is what all go by.
    return _remembered(path, facts) or choice


def measure_speeds(files: Mapping[str, ModelFile], device: Device) -> dict[str, float]:
    """Least milliseconds of a run by precision, the variants in turn, so that all meet the same machine."""
    from maskbatch.runtime.sessions import open_session

    sessions = {kind: open_session(model, device) for kind, model in files.items()}
    rng = np.random.default_rng(0)
    batches: dict[str, Any] = {}
    for kind, session in sessions.items():
        fixed = len(session.input.shape) > 1 and session.input.shape[1] is not None
        shape = [size or default for size, default in zip(session.input.shape, _shape(fixed), strict=False)]
        batches[kind] = rng.integers(0, 256, shape).astype(session.input.dtype)
        session.run(batches[kind])  # the first run allocates
    least = dict.fromkeys(files, float("inf"))
    started = time.perf_counter()
    for done in range(_ROUNDS[1]):
        if done >= _ROUNDS[0] and time.perf_counter() - started > SECONDS:
            break
        for kind, session in sessions.items():
            before = time.perf_counter()
            session.run(batches[kind])
            least[kind] = min(least[kind], 1000 * (time.perf_counter() - before))
    return {kind: round(value, 3) for kind, value in least.items()}


def _shape(fixed_side: bool) -> tuple[int, int, int, int]:
    return (_BATCH if fixed_side else 1, _SIDE, _SIDE, 3)


def _facts(files: Mapping[str, ModelFile]) -> dict[str, Any]:
    """What a choice depends on, and is remembered by."""
    from maskbatch.runtime.onnx import ort

    # Virtual machines often name no more than the maker; what a processor can do tells those apart.
    flags = hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()
    return {
        "model": files["fp32"].name,
        "processor": f"{cpu_name()} ({platform.machine()}, flags {flags[:8]})",
        "runtime": str(ort.__version__),
        "sha256": {kind: model.sha256 for kind, model in files.items()},
    }


def _place(facts: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cache_root() / "variants" / f"{facts['model']}-{digest[:16]}.json"


_unsaved: dict[Path, Choice] = {}
"""Choices of this process that no file could be written for: at least one process does not change its mind."""


def _remembered(path: Path, facts: Mapping[str, Any]) -> Choice | None:
    try:
        choice = Choice(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _unsaved.get(path)
    known = {name: value for name, value in asdict(choice).items() if name in facts}
    return choice if known == dict(facts) and choice.chosen in ("fp32", "int8") else None


def _remember(path: Path, choice: Choice) -> None:
    """Write a choice, unless another process was first; a torn file of an earlier version is replaced."""
    _unsaved[path] = choice
    draft = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OutputError, OSError):  # a cache that cannot be written costs a second per process
        with written_whole(draft) as temporary:
            temporary.write_text(json.dumps(asdict(choice), indent=1), encoding="utf-8")
        try:
            if _remembered_on_disk(path):
                return
            os.link(draft, path)
        except FileExistsError:
            draft.replace(path)  # what lies there cannot be read
        except OSError:  # a file system without hard links
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _remembered_on_disk(path: Path) -> bool:
    try:
        Choice(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return False
    return True
