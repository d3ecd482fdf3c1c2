"""Annotations are read as they stand, and parts are those that the models were trained by."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch.evaluate.split import fold_of_group, part_of_group
from maskbatch.evaluate.truth import UNKNOWN, label_of, read_truth

VOC = """<annotation><filename>{name}</filename><object><name>{label}</name><difficult>{difficult}</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox></object></annotation>"""


def write_voc(folder: Path, count: int = 3, label: str = "with_mask", difficult: int = 0) -> None:
    for part in ("annotations", "images"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        name = f"{index:03d}.jpg"
        cv2.imwrite(str(folder / "images" / name), np.zeros((40, 40, 3), np.uint8))
        text = VOC.format(name=name, label=label, difficult=difficult)
        (folder / "annotations" / f"{index:03d}.xml").write_text(text)


def test_voc_is_read(tmp_path: Path) -> None:
    write_voc(tmp_path)
    truths = read_truth(tmp_path)
    assert [truth.name for truth in truths] == ["000.jpg", "001.jpg", "002.jpg"]
    assert truths[0].boxes.tolist() == [[1, 2, 11, 22]]
    assert truths[0].labels.tolist() == [0]
    assert not truths[0].ignored.any()
    assert len(read_truth(tmp_path, limit=2)) == 2


def test_voc_may_name_its_folders_as_it_does_itself(tmp_path: Path) -> None:
    write_voc(tmp_path, 2)
    (tmp_path / "annotations").rename(tmp_path / "Annotations")
    (tmp_path / "images").rename(tmp_path / "JPEGImages")
    assert [truth.name for truth in read_truth(tmp_path)] == ["000.jpg", "001.jpg"]


def test_difficult_faces_do_not_count(tmp_path: Path) -> None:
    write_voc(tmp_path, 1, difficult=1)
    assert read_truth(tmp_path)[0].ignored.tolist() == [True]


def test_wider_is_read_with_its_invalid_faces_ignored(tmp_path: Path) -> None:
    table = {"images": {"val/b.jpg": [[1, 2, 3, 4, 0], [5, 6, 7, 8, 1]], "train/a.jpg": []}}
    (tmp_path / "boxes.json").write_text(json.dumps(table))
    for data in (tmp_path, tmp_path / "boxes.json"):
        truths = read_truth(data)
        assert [truth.name for truth in truths] == ["train/a.jpg", "val/b.jpg"]
        assert truths[1].ignored.tolist() == [False, True]
        assert truths[1].labels.tolist() == [UNKNOWN, UNKNOWN]
        assert truths[0].boxes.shape == (0, 4)
    assert [truth.name for truth in read_truth(tmp_path, "val")] == ["val/b.jpg"]


def test_parts_go_by_group_and_cover_everything_once(tmp_path: Path) -> None:
    write_voc(tmp_path, 60)
    rows = [f"{index:03d}.jpg,{index // 2}" for index in range(60)]
    (tmp_path / "groups.csv").write_text("\n".join(["filename,group", *rows]))
    parts = {part: {t.name for t in read_truth(tmp_path, part)} for part in ("train", "val", "test")}  # type: ignore[arg-type]
    assert sorted(name for names in parts.values() for name in names) == [f"{index:03d}.jpg" for index in range(60)]
    for part, names in parts.items():
        assert all(part_of_group(int(name[:3]) // 2) == part for name in names)


def test_part_needs_groups(tmp_path: Path) -> None:
    write_voc(tmp_path)
    with pytest.raises(UsageError, match=r"groups.csv is missing: .* use --part all"):
        read_truth(tmp_path, "test")
    (tmp_path / "groups.csv").write_text("filename,group\n000.jpg,1\n")
    with pytest.raises(UsageError, match=r"does not name 001.jpg"):
        read_truth(tmp_path, "test")
    (tmp_path / "groups.csv").write_text("file,cluster\n000.jpg,1\n")
    with pytest.raises(UsageError, match="has no column 'filename'"):
        read_truth(tmp_path, "test")


def test_split_is_the_one_that_the_models_were_trained_by() -> None:
    """Another split would judge models on what they were trained on: these are pinned."""
    parts = {group: part_of_group(group) for group in range(24)}
    assert [group for group, part in parts.items() if part == "test"] == [1]
    assert [group for group, part in parts.items() if part == "val"] == [5, 11, 13, 16, 22]
    shares = [part_of_group(group) for group in range(4000)]
    assert abs(shares.count("train") / 4000 - 0.70) < 0.03
    assert abs(shares.count("test") / 4000 - 0.15) < 0.03
    assert {fold_of_group(group, 5) for group in range(100)} == set(range(5))


@pytest.mark.parametrize(
    ("spelling", "label"),
    [
        ("with_mask", 0),
        ("With Mask", 0),
        ("without-mask", 1),
        ("mask_weared_incorrect", 2),
        ("no_mask", 1),
        ("dog", UNKNOWN),
    ],
)
def test_labels_are_told_by_their_usual_spellings(spelling: str, label: int) -> None:
    assert label_of(spelling) == label


def test_bad_data_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        read_truth(tmp_path / "nowhere")
    (tmp_path / "notes.md").write_text("no data")
    with pytest.raises(UsageError, match="is not a folder of annotated images"):
        read_truth(tmp_path / "notes.md")
    with pytest.raises(UsageError, match="holds no annotated images"):
        read_truth(tmp_path)
    write_voc(tmp_path, 1)
    (tmp_path / "annotations" / "000.xml").write_text("<annotation><object>")
    with pytest.raises(UsageError, match="not readable as Pascal VOC"):
        read_truth(tmp_path)
    (tmp_path / "annotations" / "000.xml").write_text(
        "<annotation><object><bndbox><xmin>a</xmin></bndbox></object></annotation>"
    )
    with pytest.raises(UsageError, match="not readable as Pascal VOC"):
        read_truth(tmp_path)
    (tmp_path / "annotations" / "000.xml").rename(tmp_path / "annotations" / "lost.xml")
    with pytest.raises(UsageError, match="has no image"):
        read_truth(tmp_path)
    (tmp_path / "boxes.json").write_text("[1, 2]")
    with pytest.raises(UsageError, match="not readable as WIDER"):
        read_truth(tmp_path)
