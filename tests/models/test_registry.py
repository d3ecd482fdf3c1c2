"""Names lead to files, variants to the device, and every packaged file is the one that is registered."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from maskbatch.config import ModelSettings
from maskbatch.detect import detector_file, find_detector
from maskbatch.errors import ModelError, UsageError
from maskbatch.models import all_entries, entry_path, find_model, packaged_entries, register, registry, variant_files
from maskbatch.models.files import file_checksum
from maskbatch.models.registry import check_entry, to_file
from maskbatch.pipeline.models import model_identity, pin_models
from maskbatch.runtime import Device, resolve_device

CPU = resolve_device("cpu")
GPU = Device("cuda", "CUDAExecutionProvider")


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package folder with a float32 and an int8 detector (of the same bytes: only the choice is tried)."""
    source = entry_path(next(e for e in packaged_entries() if e.name == "retinaface"))
    for name in ("retinaface.onnx", "retinaface.int8.onnx", "mask_mobilenet_v2.onnx"):
        shutil.copy(source, tmp_path / name)
    sums = tmp_path / "packaged.json"
    sums.write_text(json.dumps(register.current_sums(tmp_path)))
    monkeypatch.setattr(registry, "PACKAGE_FOLDER", tmp_path)
    monkeypatch.setattr(registry, "PACKAGED_CHECKSUMS", sums)
    return tmp_path


def test_every_packaged_file_is_registered_as_it_is() -> None:
    assert register.main(["--check"]) == 0
    assert [check_entry(entry) for entry in packaged_entries()] == [""] * len(packaged_entries())


def test_both_defaults_are_packaged() -> None:
    names = {entry.name for entry in packaged_entries()}
    assert {ModelSettings().detector, ModelSettings().classifier} <= names


def test_no_third_party_weights_are_packaged() -> None:
    assert {entry.family for entry in packaged_entries()} <= {"retinaface", "classifier"}


def test_entries_say_what_a_user_must_know() -> None:
    for entry in all_entries():
        assert len(entry.sha256) == 64
        assert entry.size > 10_000
        assert entry.licence
        assert entry.purpose
        assert entry.packaged or entry.url.startswith("https://")  # type: ignore[union-attr]
        assert entry.restricted == ("non-commercial" in entry.licence)
    assert len({entry.name for entry in all_entries()}) == len(all_entries())


def test_auto_takes_the_first_preferred_variant_that_is_there(variants: Path) -> None:
    assert find_model("retinaface", "detector", ("int8", "fp32")).name == "retinaface.int8"
    assert find_model("retinaface", "detector", ("fp16", "fp32")).name == "retinaface"
    assert find_model("mask_mobilenet_v2", "classifier", ("int8", "fp32")).name == "mask_mobilenet_v2"


def test_named_variant_and_named_precision_are_taken_or_refused(variants: Path) -> None:
    assert find_model("retinaface.int8", "detector", ("fp32",)).path == variants / "retinaface.int8.onnx"
    assert find_model("retinaface", "detector", ("int8",), "fp32").name == "retinaface"
    with pytest.raises(ModelError, match="has no fp16 variant, only fp32, int8"):
        find_model("retinaface", "detector", ("fp32",), "fp16")


def test_pinned_settings_name_the_variant_and_choose_the_same_files(
    variants: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path / "one"))
    monkeypatch.setattr("maskbatch.runtime.variants.measure_speeds", lambda *_: {"fp32": 2.0, "int8": 1.0})
    pinned = pin_models(ModelSettings(), CPU)
    assert (pinned.detector, pinned.classifier) == ("retinaface.int8", "mask_mobilenet_v2")
    identity = model_identity(ModelSettings(), CPU)
    assert list(identity) == ["retinaface.int8", "mask_mobilenet_v2"]
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path / "other machine"))
    monkeypatch.setattr("maskbatch.runtime.variants.measure_speeds", lambda *_: {"fp32": 1.0, "int8": 1.0})
    assert detector_file(ModelSettings(), CPU).name == "retinaface"
    assert model_identity(pinned, CPU) == identity  # a machine where INT8 is no faster runs what the parent chose


def test_what_is_asked_for_is_not_measured(variants: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path / "cache"))
    assert detector_file(ModelSettings(precision="int8"), CPU).name == "retinaface.int8"
    assert detector_file(ModelSettings(detector="retinaface.int8"), CPU).name == "retinaface.int8"
    assert detector_file(ModelSettings(), GPU).name == "retinaface"  # no fp16 here
    assert variant_files("retinaface").keys() == {"fp32", "int8"}
    assert variant_files("retinaface.int8") == variant_files("yunet") == variant_files("none.onnx") == {}
    assert not (tmp_path / "cache").exists()


def test_own_file_is_identified_by_its_sum(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    shutil.copy(find_model("retinaface", "detector").path, path)
    for name in (str(path), f"retinaface:{path}"):
        found = find_detector(name)
        assert (found.name, found.family, found.sha256) == ("mine", "retinaface", file_checksum(path))


@pytest.mark.parametrize("name", ["retinanet", "scrfd:", "yunet:", "", "mask_mobilenet_v2", "retinaface.int4"])
def test_unknown_detector_names_what_there_is(name: str) -> None:
    with pytest.raises((UsageError, ModelError)) as error:
        find_detector(name)
    assert "retinaface" in str(error.value) or "scrfd" in str(error.value)
    assert "\n" not in str(error.value)


def test_model_that_was_not_pulled_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"yunet is not installed: run `maskbatch models pull yunet`"):
        find_detector("yunet")
    with pytest.raises(ModelError, match=r"maskbatch models pull scrfd --accept-license"):
        find_detector("scrfd")


def test_pack_of_insightface_is_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "packs_folder", lambda: tmp_path)
    with pytest.raises(ModelError, match=r"models pull scrfd:antelope --accept-license"):
        find_detector("scrfd:antelope")
    (tmp_path / "antelope").mkdir()
    shutil.copy(find_model("retinaface", "detector").path, tmp_path / "antelope" / "scrfd_10g_bnkps.onnx")
    found = find_detector("scrfd:antelope")
    assert (found.name, found.family) == ("scrfd:antelope", "scrfd")
    # A file that is registered under that name must be that file.
    shutil.copy(found.path, tmp_path / "antelope" / "det_10g.onnx")
    assert find_detector("scrfd:antelope").sha256.startswith("5838f7fe")


def test_sum_follows_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = file_checksum(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert file_checksum(path) != first


def test_damaged_packaged_file_is_noticed(variants: Path) -> None:
    entry = next(e for e in packaged_entries() if e.name == "retinaface")
    (variants / "retinaface.onnx").write_bytes(b"x" * 100)
    assert "is registered: reinstall maskbatch" in check_entry(entry)
    (variants / "retinaface.onnx").unlink()
    assert check_entry(entry) == "not installed: reinstall maskbatch"
    with pytest.raises(ModelError, match="reinstall maskbatch"):
        find_model("retinaface", "detector")
    assert to_file(entry).fix == "reinstall maskbatch"


def test_broken_list_of_sums_is_one_sentence(variants: Path) -> None:
    (variants / "packaged.json").write_text('{"retinaface": {"size": 1}}')
    with pytest.raises(ModelError, match="reinstall maskbatch"):
        packaged_entries()
