"""What we write is what other tools read: their own importers judge it, in environments of their own (they want OpenCV 4)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from toy_scan import toy_scan

import maskbatch
from maskbatch.formats import convert

UV = os.environ.get("UV") or shutil.which("uv")
pytestmark = [
    pytest.mark.skipif(UV is None, reason="needs uv, which makes the judges' environments"),
    pytest.mark.timeout(600),
]

DATUMARO = """
import json, sys, datumaro
found = {}
for name, path in json.loads(sys.argv[1]).items():
    data = datumaro.Dataset.import_from(path, name)
    found[name] = [len(data), sum(len(item.annotations) for item in data)]
print(json.dumps(found))
"""
LABEL_STUDIO = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
folder = sys.argv[1]
interface = LabelInterface(open(f"{folder}/labeling.xml").read())
tasks = json.load(open(f"{folder}/tasks.json"))
predictions = [prediction for task in tasks for prediction in task["predictions"]]
bad = [interface.validate_prediction(p, return_errors=True) for p in predictions if not interface.validate_prediction(p)]
spoilt = dict(predictions[0], result=[dict(predictions[0]["result"][0], from_name="nothing")])
print(json.dumps({"tasks": len(tasks), "bad": bad, "sees_errors": not interface.validate_prediction(spoilt)}))
"""


def judged(package: str, program: str, argument: str) -> dict[str, object]:
    """What a program prints as JSON in a fresh environment with one package."""
    assert UV is not None
    command = [
        UV,
        "run",
        "-q",
        "--no-project",
        "--python",
        "3.11",
        "--with",
        package,
        "python",
        "-c",
        program,
        argument,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_scan(tmp_path_factory.mktemp("result"))


def test_datumaro_reads_every_face(result: Path, tmp_path: Path) -> None:
    formats = {"coco": "coco", "voc": "voc", "yolo": "yolo", "cvat": "cvat"}
    for name in formats:
        convert(str(result), name, tmp_path / name, frames=True)
    found = judged("datumaro", DATUMARO, json.dumps({name: str(tmp_path / name) for name in formats}))
    assert found == {name: [11, len(maskbatch.read_results(result))] for name in formats}


def test_label_studio_accepts_every_prediction(result: Path, tmp_path: Path) -> None:
    convert(str(result), "labelstudio", tmp_path / "out")
    found = judged("label-studio-sdk", LABEL_STUDIO, str(tmp_path / "out"))
    assert found["bad"] == []
    assert found["tasks"]
    assert found["sees_errors"], "the judge accepts anything"
