"""`--precision auto` measures each pair of variants once per machine, remembers it, and says what it found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from red_squares import write_archive

import maskbatch
from maskbatch.config import ModelSettings
from maskbatch.diagnose.doctor import run_checks
from maskbatch.errors import ModelError
from maskbatch.models import ModelFile, variant_files
from maskbatch.pipeline.models import variant_choices
from maskbatch.runtime import Device, resolve_device
from maskbatch.runtime.variants import choose, measure_speeds, preferred_precisions

CPU = resolve_device("cpu")
GPU = Device("cuda", "CUDAExecutionProvider")
FILES = variant_files("retinaface")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Clock:
    """Speeds that are given, and how often they were asked for."""

    def __init__(self, fp32: float, int8: float) -> None:
        self.found, self.asked = {"fp32": fp32, "int8": int8}, 0

    def __call__(self, files: Mapping[str, ModelFile], device: Device) -> dict[str, float]:
        self.asked += 1
        return self.found


@pytest.mark.parametrize(("fp32", "int8", "chosen"), [(2.0, 1.0, "int8"), (1.0, 2.0, "fp32"), (1.0, 0.98, "fp32")])
def test_the_faster_one_is_taken_and_float_where_they_are_equal(fp32: float, int8: float, chosen: str) -> None:
    choice = choose(FILES, CPU, Clock(fp32, int8))
    assert choice is not None
    assert choice.chosen == chosen
    assert preferred_precisions(CPU, FILES)[0] == chosen  # as remembered


def test_a_machine_does_not_change_its_mind(cache: Path) -> None:
    first = choose(FILES, CPU, Clock(2.0, 1.0))
    later = Clock(1.0, 2.0)
    assert choose(FILES, CPU, later) == first
    assert later.asked == 0
    (path,) = (cache / "variants").iterdir()
    path.write_text("{torn")
    assert choose(FILES, CPU, later) == first  # this process still knows
    other = {kind: ModelFile(m.name, m.path, m.sha256[::-1], m.family) for kind, m in FILES.items()}
    changed = choose(other, CPU, later)
    assert changed is not None
    assert (changed.chosen, later.asked) == ("fp32", 1)  # other files are another question


def test_the_first_of_two_processes_decides(cache: Path) -> None:
    class Slow(Clock):
        def __call__(self, files: Mapping[str, ModelFile], device: Device) -> dict[str, float]:
            choose(FILES, CPU, Clock(1.0, 2.0))  # meanwhile another one is done
            return super().__call__(files, device)

    choice = choose(FILES, CPU, Slow(2.0, 1.0))
    assert choice is not None
    assert choice.chosen == "fp32"
    assert len(list((cache / "variants").iterdir())) == 1


@pytest.mark.skipif(
    os.name != "posix" or not Path("/proc/self").exists(), reason="needs a place that nobody can write to"
)
def test_without_a_place_to_remember_a_process_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKBATCH_CACHE", "/proc/self/nowhere")
    clock = Clock(2.0, 1.0)
    assert choose(FILES, CPU, clock) == choose(FILES, CPU, clock)
    assert clock.asked == 1


def test_there_is_no_choice_on_a_gpu_or_with_one_file(cache: Path) -> None:
    assert choose(FILES, GPU, Clock(2.0, 1.0)) is None
    assert preferred_precisions(GPU, FILES) == ("fp16", "fp32")
    assert preferred_precisions(CPU, {"fp32": FILES["fp32"]}) == preferred_precisions(CPU) == ("fp32",)
    assert variant_choices(ModelSettings(precision="fp32"), CPU) == []
    assert not cache.exists()


def test_a_broken_variant_is_an_error_with_its_fix(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    int8 = ModelFile("retinaface.int8", broken, FILES["int8"].sha256, "retinaface", "reinstall maskbatch")
    with pytest.raises(ModelError, match=r"retinaface\.int8: .* is registered: reinstall maskbatch"):
        choose({**FILES, "int8": int8}, CPU)


@pytest.mark.parametrize("name", ["retinaface", "mask_mobilenet_v2"])
def test_both_variants_really_run(name: str) -> None:
    speeds = measure_speeds(variant_files(name), CPU)
    assert speeds.keys() >= {"fp32", "int8"}
    assert all(0 < value < 60_000 for value in speeds.values())


def test_run_json_and_doctor_say_what_was_measured(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "in")
    maskbatch.scan([archive / "gate"], tmp_path / "results.parquet", device="cpu", executor="inline", limit=1)
    told = json.loads((tmp_path / "results.run.json").read_text())
    assert [entry["model"] for entry in told["variants"]] == ["retinaface", "mask_mobilenet_v2"]
    for entry in told["variants"]:
        name = entry["model"] + (".int8" if entry["chosen"] == "int8" else "")
        assert told["summary"]["models"][name] == entry["sha256"][entry["chosen"]]
    checks = {check.name: check.detail for check in run_checks()}
    assert all(f"variant of {entry['model']}" in checks for entry in told["variants"])
    assert "fp32" in checks["variant of retinaface"]
    assert "ms" in checks["variant of retinaface"]
