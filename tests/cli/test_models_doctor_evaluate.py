"""The verbs about models, as a user types them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pytest

from maskbatch.cli import main
from maskbatch.diagnose import doctor
from maskbatch.errors import EXIT_FATAL, EXIT_OK, EXIT_USAGE
from maskbatch.models import entry_path, packaged_entries, registry
from maskbatch.types import Image

VOC = """<annotation><object><name>without_mask</name><bndbox><xmin>180</xmin><ymin>56</ymin><xmax>272</xmax>
<ymax>178</ymax></bndbox></object></annotation>"""


@dataclass(frozen=True)
class Done:
    """What the command left behind."""

    returncode: int
    stdout: str
    stderr: str


class Command(Protocol):
    def __call__(self, *arguments: str, cache: Path | None = None) -> Done: ...


@pytest.fixture
def maskbatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command as its entry point runs it, without the second that a new process takes to import everything."""

    def call(*arguments: str, cache: Path | None = None) -> Done:
        if cache is not None:
            monkeypatch.setenv("MASKBATCH_CACHE", str(cache))
        monkeypatch.setattr("sys.argv", ["maskbatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, shown.out, shown.err)

    return call


def test_list_shows_every_model_and_its_licence(maskbatch: Command, tmp_path: Path) -> None:
    shown = maskbatch("models", "list", cache=tmp_path)
    assert shown.returncode == EXIT_OK
    listed = json.loads(maskbatch("models", "list", "--json", cache=tmp_path).stdout)
    for entry in listed:
        assert entry["name"] in shown.stdout
        assert entry["here"] == entry["packaged"]


def test_verify_checks_what_is_here_and_names_what_is_not(maskbatch: Command, tmp_path: Path) -> None:
    assert maskbatch("models", "verify", cache=tmp_path).returncode == EXIT_OK
    missing = maskbatch("models", "verify", "yunet", cache=tmp_path)
    assert missing.returncode == EXIT_FATAL
    assert "not installed: run `maskbatch models pull yunet`" in missing.stdout
    assert maskbatch("models", "verify", "nix", cache=tmp_path).returncode == EXIT_USAGE
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "yunet_n_dynamic.onnx").write_bytes(b"not yunet")
    damaged = maskbatch("models", "verify", "--json", cache=tmp_path)
    assert damaged.returncode == EXIT_FATAL
    assert [e["name"] for e in json.loads(damaged.stdout) if e["problem"]] == ["yunet"]


def test_restricted_model_is_not_pulled_without_consent(maskbatch: Command, tmp_path: Path) -> None:
    refused = maskbatch("models", "pull", "scrfd", cache=tmp_path)
    assert refused.returncode == EXIT_USAGE
    assert "--accept-license" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(tmp_path.rglob("*.onnx"))


def test_doctor_finds_nothing_wrong_here(maskbatch: Command) -> None:
    done = maskbatch("doctor", "--json")
    report = json.loads(done.stdout)
    wrong = [check for check in report["checks"] if check["state"] == "wrong"]
    assert (done.returncode, wrong, report["ok"]) == (EXIT_OK, [], True)
    assert any(check["name"] == "--device auto" and "both ran" in check["detail"] for check in report["checks"])
    assert "no problems found" in maskbatch("doctor").stdout


def test_doctor_names_clashing_wheels_and_the_command_that_mends_them() -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    opencvs = {"opencv-python": "5.0", "opencv-python-headless": "5.0"}
    found = list(doctor._wheel_conflicts(both, opencvs))
    assert [check.state for check in found] == ["wrong", "wrong"]
    assert all(check.fix.startswith("uv pip uninstall --python ") for check in found)
    assert next(iter(doctor._wheel_conflicts({}, {}))).state == "wrong"
    assert [check.state for check in doctor._wheel_conflicts({"onnxruntime": "1.32.0"}, {})] == ["ok"]


def test_doctor_notices_a_damaged_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for entry in packaged_entries():
        shutil.copy(entry_path(entry), tmp_path)
    shutil.copy(registry.PACKAGED_CHECKSUMS, tmp_path)
    monkeypatch.setattr(registry, "PACKAGE_FOLDER", tmp_path)
    (tmp_path / "retinaface.onnx").write_bytes(b"rubbish")
    wrong = [check for check in doctor.run_checks() if check.state == "wrong"]
    assert {check.name for check in wrong} >= {"model retinaface"}
    assert next(check for check in wrong if check.name == "model retinaface").fix == "reinstall maskbatch"


def test_warmup_runs_every_shape(maskbatch: Command) -> None:
    done = maskbatch("warmup", "--det-size", "128", "--device", "cpu", "--json")
    assert done.returncode == EXIT_OK, done.stderr
    shapes = json.loads(done.stdout)["shapes"]
    detector = next(name for name in shapes if name.startswith("retinaface"))
    assert sorted(shapes[detector]) == ["1×128×128", "1×128×96", "1×96×128"]


@pytest.fixture
def annotated(tmp_path: Path, face_photo: Image) -> Path:
    """Three pictures with one bare face each, the last one too dark to see it."""
    for part in ("annotations", "images"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for index, image in enumerate((face_photo, cv2.flip(cv2.flip(face_photo, 1), 1), np.zeros_like(face_photo))):
        cv2.imwrite(str(tmp_path / "data" / "images" / f"{index}.png"), image)
        (tmp_path / "data" / "annotations" / f"{index}.xml").write_text(VOC)
    return tmp_path / "data"


def test_evaluate_compares_detectors_and_writes_its_report(maskbatch: Command, annotated: Path, tmp_path: Path) -> None:
    retinaface = entry_path(next(e for e in packaged_entries() if e.name == "retinaface"))
    other = tmp_path / "other.onnx"
    shutil.copy(retinaface, other)
    command = ["evaluate", str(annotated), "--detector", "retinaface", "--detector", str(other), "--precision", "fp32"]
    done = maskbatch(
        *command, "--bootstrap", "100", "--false-per-picture", "0", "--json", "--out", str(tmp_path / "report")
    )
    assert done.returncode == EXIT_OK, done.stderr
    report = json.loads(done.stdout)
    assert (report["pictures"], report["faces"]) == (3, 3)
    first, second = report["detectors"]
    assert first["recall"] == {"hits": 2, "total": 3, "rate": pytest.approx(2 / 3)}
    assert first["ap"]["0.5"] == pytest.approx(2 / 3)
    assert first["confusion"][1][3] == 1  # the dark one is missed
    assert {k: v for k, v in first.items() if k not in ("detector", "ms_per_picture_median")} == {
        k: v for k, v in second.items() if k not in ("detector", "ms_per_picture_median")
    }
    assert report["comparisons"][0]["mcnemar_p"] == 1.0
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report
    assert "| retinaface " in (tmp_path / "report" / "report.md").read_text()
    assert [path.name for path in (tmp_path / "report" / "worst" / "retinaface").iterdir()] == ["00_2.jpg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "does not exist"),
        (["DATA", "--detector", "nix"], "no detector is called 'nix'"),
        (["DATA", "--part", "test"], "groups.csv is missing"),
        (["DATA", "--det-size", "100"], "multiple of 32"),
        (["DATA", "--detector", "retinaface", "--detector", "retinaface"], "given twice"),
    ],
)
def test_evaluate_says_what_is_wrong_in_one_sentence(
    maskbatch: Command, annotated: Path, arguments: list[str], message: str
) -> None:
    done = maskbatch("evaluate", *[str(annotated) if a == "DATA" else a for a in arguments])
    assert done.returncode == EXIT_USAGE
    assert message in done.stderr
    assert "Traceback" not in done.stderr
