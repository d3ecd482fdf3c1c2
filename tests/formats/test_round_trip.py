"""A result goes out to the tools that people label with, and their labels come back: the same faces, and what was changed."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from toy_scan import copy_result, toy_scan

import maskbatch
from maskbatch.cli import main
from maskbatch.errors import UsageError
from maskbatch.evaluate.truth import read_truth
from maskbatch.formats import convert
from maskbatch.formats.importing import import_corrections, read_labels
from maskbatch.formats.voc_dataset import import_dataset
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import Correction
from maskbatch.tasks.mask import LABELS

LABEL_FILES = {
    "coco": "annotations/instances_default.json",
    "voc": "",
    "yolo": "data.yaml",
    "labelstudio": "tasks.json",
    "cvat": "",
}
WITH, WITHOUT = LABELS[:2]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_scan(tmp_path_factory.mktemp("scan")).parent


@pytest.fixture
def result(scanned: Path, tmp_path: Path) -> Path:
    """A copy that a test may correct."""
    return copy_result(scanned, tmp_path)


def labels_of(folder: Path, name: str) -> Any:
    return [image for _, image in read_labels([folder / LABEL_FILES[name]])]


@pytest.mark.parametrize("frames", [False, True], ids=["named", "frames"])
@pytest.mark.parametrize("name", LABEL_FILES)
def test_same_faces_come_back(result: Path, tmp_path: Path, name: str, frames: bool) -> None:
    out = tmp_path / "out"
    assert convert(str(result), name, out, frames=frames).not_written == []
    back = labels_of(out, name)
    faces = maskbatch.read_results(result)
    assert sum(len(image.boxes) for image in back) == len(faces) == 13
    done = import_corrections(back, str(result))
    assert (done.images, dict(done.actions), done.unknown) == (11, {}, [])
    assert not (tmp_path / "results.corrections.csv").exists()


@pytest.mark.parametrize("name", LABEL_FILES)
def test_what_people_changed_becomes_corrections_once(result: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    convert(str(result), name, out)
    images = labels_of(out, name)
    changed = next(at for at, image in enumerate(images) if len(image.boxes) == 2)
    first = images[changed]
    other = WITHOUT if first.labels[0] == WITH else WITH
    edited = type(first)(
        first.name,
        (first.boxes[0], _moved(first.boxes[1], first)),
        (other, first.labels[1]),
        first.width,
        first.height,
        first.source,
        first.frame,
    )
    images[changed] = edited
    done = import_corrections(images, str(result), by="ada")
    assert dict(done.actions) == {"label": 1, "not_a_face": 1, "missed": 1}
    faces = maskbatch.read_results(result, corrections=True)
    assert len(faces) == 13
    assert faces["corrected"].sum() == 2
    assert {record.by for record in CorrectionLog(tmp_path / "results.corrections.csv").read()} == {"ada"}
    assert dict(import_corrections(images, str(result)).actions) == {}, "the same labels again change nothing"


def _moved(box: tuple[float, ...], image: Any) -> tuple[float, float, float, float]:
    width = 64 if image.width or max(box) > 2 else 64 / 320
    x1, y1, x2, y2 = box
    return (x1 - width, y1, x2 - width, y2)


def test_corrected_result_is_exported_as_people_decided(result: Path, tmp_path: Path) -> None:
    face = maskbatch.read_results(result).iloc[0]
    box = tuple(float(face[name]) for name in ("x1", "y1", "x2", "y2"))
    log = CorrectionLog(tmp_path / "results.corrections.csv")
    log.append(
        [
            Correction(face["source"], box, "not_a_face"),  # type: ignore[arg-type]
            Correction(face["source"], (200, 100, 260, 160), "missed", WITH),
        ]
    )
    convert(str(result), "coco", tmp_path / "out", corrections=True)
    data = json.loads((tmp_path / "out" / "annotations" / "instances_default.json").read_text())
    images = [image["source"] for image in data["images"]]
    assert len(images) == len(set(images)) + 5, "an image whose face was drawn comes once"
    drawn = [item for item in data["annotations"] if item.get("corrected")]
    assert [item["bbox"] for item in drawn] == [[200, 100, 60, 60]]
    assert "score" not in drawn[0], "no model said anything of it"


def test_coco_is_loaded_and_evaluated_by_pycocotools(result: Path, tmp_path: Path, capsys: Any) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    convert(str(result), "coco", tmp_path / "out")
    truth = coco.COCO(str(tmp_path / "out" / "annotations" / "instances_default.json"))
    found = truth.loadRes(str(tmp_path / "out" / "results.json"))
    judge = COCOeval(truth, found, "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[0] == pytest.approx(1.0)
    assert min(truth.getCatIds() + truth.getImgIds() + truth.getAnnIds()) == 1
    assert len(truth.getImgIds()) == 11, "with the image without faces, without the broken one"
    face = truth.loadAnns([1])[0]
    assert {"score", "mask_confidence", "probabilities", "keypoints"} <= face.keys()
    assert "confidence" not in face


def test_exact_frames_are_written_and_redacted_where_asked(result: Path, tmp_path: Path) -> None:
    convert(str(result), "yolo", tmp_path / "plain", frames=True)
    convert(str(result), "yolo", tmp_path / "blurred", frames=True, redact=True)
    for number in range(6):  # the square walks a cell a second, four frames a second
        name = f"images/gate_20260301_100000.mkv/f{4 * number:07d}.jpg"
        plain = cv2.imread(str(tmp_path / "plain" / name))
        assert plain is not None, name
        x, y = (1 + number) * 32 + 16, 2 * 32 + 16
        assert np.abs(plain[y, x].astype(int) - (0, 0, 255)).max() < 12
        blurred = cv2.imread(str(tmp_path / "blurred" / name))
        assert np.abs(blurred.astype(int) - plain).max() > 60
    copied = tmp_path / "plain" / "images" / "yard" / "plain.png"
    assert cv2.imread(str(copied)) is not None
    labels = tmp_path / "plain" / "labels" / "yard" / "2026-03-02_08-00-00.txt"
    assert labels.read_text() == "", "an image without faces has an empty file"


def test_times_that_labels_lose_are_in_images_csv(result: Path, tmp_path: Path) -> None:
    convert(str(result), "yolo", tmp_path / "out")
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    frames = [row for row in rows if row["media"] == "video"]
    assert [float(row["time_s"]) for row in frames] == [0, 1, 2, 3, 4, 5]
    assert rows[0]["captured_at"] == "2026-03-01T08:00:00Z"
    assert frames[2]["captured_at"] == "2026-03-01T10:00:02Z"


def test_two_images_that_differ_only_in_their_ending_keep_their_labels(
    scanned: Path, tmp_path: Path, red_model: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    one = cv2.imread(str(scanned / "in" / "gate" / "2026-03-01_09-30-00.png"))
    cv2.imwrite(str(folder / "a.png"), one)
    cv2.imwrite(str(folder / "a.bmp"), one[:, ::-1])
    settings = {"detector": f"red:{red_model}", "classifier": str(scanned / "own.onnx"), "det_size": 320}
    maskbatch.scan([folder], tmp_path / "r.parquet", executor="inline", device="cpu", **settings)  # type: ignore[arg-type]
    convert(str(tmp_path / "r.parquet"), "yolo", tmp_path / "out", frames=True)
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 2
    done = import_corrections(labels_of(tmp_path / "out", "yolo"), str(tmp_path / "r.parquet"))
    assert (done.images, dict(done.actions)) == (2, {})


def test_cvat_tracks_follow_people_and_a_changed_track_changes_its_faces(result: Path, tmp_path: Path) -> None:
    convert(str(result), "cvat", tmp_path / "out")
    path = tmp_path / "out" / "videos" / "gate_20260301_100000.mkv.xml"
    text = path.read_text()
    assert text.count('outside="1"') == text.count("<track ")
    path.write_text(re.sub(r'(<track id="0" label=)"\w+"', rf'\1"{WITHOUT}"', text))
    done = import_corrections(labels_of(tmp_path / "out", "cvat"), str(result), dry_run=True)
    assert set(done.actions) <= {"label"}
    assert not (tmp_path / "results.corrections.csv").exists()


def test_label_studio_takes_the_last_annotation_and_leaves_what_nobody_did(result: Path, tmp_path: Path) -> None:
    convert(str(result), "labelstudio", tmp_path / "out", prefix="/data/local-files/?d=")
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert tasks[0]["data"]["image"].startswith("/data/local-files/?d=")
    done = tasks[0]
    boxes = done["predictions"][0]["result"]
    done["annotations"] = [{"result": boxes}, {"result": boxes[:-1]}, {"was_cancelled": True, "result": []}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    (image,) = (image for _, image in read_labels([tmp_path / "export.json"]))
    assert len(image.boxes) == len(boxes) - 1
    counted = import_corrections([image], str(result))
    assert dict(counted.actions) == {"not_a_face": 1}


def test_data_set_from_labels_is_read_by_evaluate(result: Path, tmp_path: Path) -> None:
    convert(str(result), "coco", tmp_path / "out", frames=True)
    done = import_dataset(read_labels([tmp_path / "out" / "annotations" / "instances_default.json"]), tmp_path / "set")
    assert (done.images, done.unknown) == (11, [])
    truths = read_truth(tmp_path / "set")
    assert len(truths) == 11
    assert sum(len(truth.boxes) for truth in truths) == 13


@pytest.mark.parametrize("layout", ["flat", "nested", "standard"])
def test_voc_folders_are_read_as_they_occur(result: Path, tmp_path: Path, layout: str) -> None:
    convert(str(result), "voc", tmp_path / "out", frames=True)
    xml = next((tmp_path / "out" / "Annotations").rglob("*.xml"))
    text = re.sub(r"<maskbatch>.*</maskbatch>|<path>.*</path>", "", xml.read_text())  # as other tools write it
    folder = tmp_path / "own"
    places = {"flat": folder, "nested": folder / "day" / "one", "standard": folder / "Annotations"}
    places[layout].mkdir(parents=True)
    (places[layout] / xml.name).write_text(text)
    (image,) = (image for _, image in read_labels([folder]))
    assert image.name.endswith(re.search(r"<filename>(.*)</filename>", text)[1])  # type: ignore[index]
    assert image.boxes


def test_labels_of_other_spelling_are_named_and_unknown_ones_refused(result: Path, tmp_path: Path) -> None:
    convert(str(result), "coco", tmp_path / "out")
    path = tmp_path / "out" / "annotations" / "instances_default.json"
    path.write_text(path.read_text().replace(f'"name": "{WITH}"', '"name": "class_a"'))
    with pytest.raises(UsageError, match="'class_a' is none of this result"):
        import_corrections(labels_of(tmp_path / "out", "coco"), str(result))
    done = import_corrections(labels_of(tmp_path / "out", "coco"), str(result), names={"class_a": WITH})
    assert dict(done.actions) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{"),
        ("a.json", "{}"),
        ("a.json", '{"images": [{"id": 1}], "annotations": [], "categories": []}'),
        ("a.xml", "<annotation>"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'),
        ("a.xml", "<annotation><object><name>x</name></object></annotation>"),
        ("a.txt", "0 0 0 1 1"),
    ],
)
def test_damaged_labels_are_one_sentence(
    result: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setattr("sys.argv", ["maskbatch", "import", str(tmp_path / name), "--results", str(result)])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    assert name in capsys.readouterr().err


def test_formats_that_need_images_say_so(result: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--frames"):
        convert(str(result), "fiftyone", tmp_path / "out")
    with pytest.raises(UsageError, match="--frames"):
        convert(str(result), "coco", tmp_path / "out", redact=True)
    convert(str(result), "fiftyone", tmp_path / "out", frames=True)
    data = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert data["classes"] == list(LABELS)
    for name, boxes in data["labels"].items():
        assert any((tmp_path / "out" / "data").glob(f"{name}.*")), name
        for box in boxes or []:
            assert {"label", "bounding_box", "confidence", "attributes"} == box.keys()
            assert "mask_confidence" in box["attributes"]


def test_images_that_are_gone_are_counted_and_named(result: Path, tmp_path: Path) -> None:
    described = json.loads((tmp_path / "results.run.json").read_text())
    described["roots"] = {name: str(tmp_path / "elsewhere") for name in described["roots"]}
    (tmp_path / "results.run.json").write_text(json.dumps(described))
    done = convert(str(result), "yolo", tmp_path / "out", frames=True)
    assert len(done.not_written) == 6
    assert "is not where the scan found it" in done.not_written[0]
