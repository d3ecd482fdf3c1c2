from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from classifier_data import BOX, annotation, draw_face, write_set
from maskbatch_export.classifier.data import (
    CORRECTION_COLUMNS,
    correct_labels,
    cut_patches,
    jitter_boxes,
    label_of,
    read_tables,
)
from maskbatch_export.classifier.metrics import p_text
from maskbatch_export.classifier.stats import uniformity_test, write_stats
from maskbatch_export.duplicates import group_near_duplicates
from maskbatch_export.split import part_of_group

from maskbatch.classify.crops import crop_faces
from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch.tasks.mask import LABELS


def test_every_problem_is_listed_and_nothing_vanishes(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "faces", 1)
    notes = folder / "annotations"
    rng = np.random.default_rng(1)
    picture = draw_face("with_mask", rng)
    for name, text in {
        "outside": annotation("outside.png", (96, 104), [("with_mask", (-5, 10, 200, 90))]),
        "empty": annotation("empty.png", (96, 104), [("with_mask", (30, 30, 30, 60)), ("no-mask", BOX)]),
        "strange": annotation("strange.png", (96, 104), [("hat", BOX)]),
        "lied": annotation("lied.png", (10, 10), [("Incorrect Mask", BOX)]),
        "numberless": annotation("numberless.png", (96, 104), [("mask", ("a", 1, 2, 3))]),  # type: ignore[list-item]
        "broken": "<annotation>",
        "nopicture": annotation("nopicture.png", (96, 104), [("mask", BOX)]),
        "garbage": annotation("garbage.png", (96, 104), [("mask", BOX)]),
    }.items():
        (notes / f"{name}.xml").write_text(text)
        if name == "garbage":
            (folder / "images" / "garbage.png").write_bytes(b"no picture")
        elif name != "nopicture":
            cv2.imwrite(str(folder / "images" / f"{name}.png"), picture)
    cv2.imwrite(str(folder / "images" / "unnoted.png"), picture)
    table = read_tables([folder])
    kinds = dict(zip(table.problems["problem"], table.problems["kept"], strict=True))
    assert kinds == {
        "out_of_frame": True,
        "empty_box": False,
        "unknown_label": False,
        "size_differs": True,
        "unreadable_box": False,
        "unreadable_annotation": False,
        "no_picture": False,
        "unreadable_picture": False,
        "no_annotation": False,
    }
    faces = table.faces.set_index("filename")
    assert faces.loc["outside.png", ["xmin", "ymin", "xmax", "ymax"]].tolist() == [0, 10, 96, 90]
    assert faces.loc["empty.png", "label"] == "without_mask"
    assert faces.loc["lied.png", "label"] == "mask_weared_incorrect"
    assert len(faces) == 9 + 3


def test_spellings_of_other_sets_are_mapped() -> None:
    assert label_of("Without Mask") == "without_mask"
    assert label_of("mask_worn_incorrectly") == "mask_weared_incorrect"
    assert label_of("MASK") == "with_mask"
    assert label_of("helmet") is None


def test_missing_folders_and_twice_the_same_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="annotations"):
        read_tables([tmp_path])
    with pytest.raises(UsageError, match="same name"):
        read_tables([tmp_path / "a" / "set", tmp_path / "b" / "set"])


def test_near_copies_share_a_group_across_sizes_compression_and_mirroring(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    originals = [
        cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
        for _ in range(3)
    ]
    paths = []
    for index, picture in enumerate(originals):
        smaller = cv2.resize(picture, (200, 150), interpolation=cv2.INTER_AREA)
        for name, version in (("a.png", picture), ("b.jpg", smaller), ("c.png", picture[:, ::-1])):
            paths.append(tmp_path / f"{index}{name}")
            cv2.imwrite(str(paths[-1]), version)
    groups = group_near_duplicates(paths)
    assert [len(set(groups[i * 3 : i * 3 + 3])) for i in range(3)] == [1, 1, 1]
    assert len(set(groups)) == 3


def test_sets_without_groups_are_grouped_together(tmp_path: Path) -> None:
    first, second = write_set(tmp_path / "one", 1), write_set(tmp_path / "two", 1, seed=1)
    copied = next((first / "images").glob("with_mask*"))
    (second / "images" / "copy.png").write_bytes(copied.read_bytes())
    (second / "annotations" / "copy.xml").write_text(annotation("copy.png", (96, 104), [("mask", BOX)]))
    (second / "groups.csv").unlink()
    faces = read_tables([first, second]).faces.set_index("filename")
    assert faces.loc["copy.png", "group"] == faces.loc[copied.name, "group"]


def test_no_group_is_in_two_parts(tmp_path: Path) -> None:
    faces = read_tables([write_set(tmp_path / "one", 3), write_set(tmp_path / "two", 3, seed=1)]).faces
    part = faces["group"].map(part_of_group)
    assert part.groupby(faces["group"]).nunique().max() == 1
    assert set(part) == {"train", "val", "test"}


def test_training_crops_are_the_scans_crops(tmp_path: Path) -> None:
    faces = read_tables([write_set(tmp_path / "one", 1)]).faces
    patches = cut_patches(faces)
    row = faces.iloc[0]
    picture = cv2.imread(row["path"])
    assert picture is not None
    wanted = crop_faces(picture, faces.loc[[0], ["xmin", "ymin", "xmax", "ymax"]].to_numpy(np.float32), 64, 1.4)
    difference = np.abs(patches.crops(1.4, 64)[0].astype(int) - wanted[0])
    assert difference.max() <= 2
    assert LABELS[patches.labels[0]] == row["label"]


def test_jitter_moves_boxes_a_little_and_repeats_with_the_seed() -> None:
    boxes = np.tile(np.array([[100, 100, 200, 240]], np.float32), (500, 1))
    moved = jitter_boxes(boxes, np.random.default_rng(0), 1.0)
    assert np.array_equal(moved, jitter_boxes(boxes, np.random.default_rng(0), 1.0))
    assert 3 < moved[:, 0].std() < 15
    assert abs(moved.mean(0) - boxes[0]).max() < 2


def test_statistics_report_shows_classes_copies_and_problems(tmp_path: Path) -> None:
    data = read_tables([write_set(tmp_path / "one", 2)])
    summary = write_stats(data, tmp_path / "report" / "data")
    assert summary["faces"] == dict.fromkeys(LABELS, 6)
    assert summary["p_value"] == pytest.approx(1)
    page = (tmp_path / "report" / "data.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "Chi-square" in (tmp_path / "report" / "data.md").read_text()


def test_uniformity_is_rejected_for_the_counts_of_the_public_set() -> None:
    statistic, log_p = uniformity_test({"with_mask": 3232, "without_mask": 717, "mask_weared_incorrect": 123})
    assert statistic > 4000
    assert p_text(log_p) == f"10^{math.floor(log_p / math.log(10))}"
    assert log_p < -700, "too small for a float, and still no 0"


def corrections(path: Path, *rows: tuple[object, ...]) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in (CORRECTION_COLUMNS, *rows)) + "\n")
    return path


def test_wrong_labels_are_mended_or_left_out_and_the_rest_stays(tmp_path: Path) -> None:
    faces = read_tables([write_set(tmp_path / "one", 2)]).faces
    first, second = faces.iloc[0], faces.iloc[1]
    listed = corrections(
        tmp_path / "c.csv",
        ("one", first["filename"], *BOX, first["label"], "without_mask"),
        ("one", second["filename"], *(f"{value:.2f}" for value in BOX), second["label"], ""),
    )
    before = faces.copy()
    mended, count = correct_labels(faces, listed)
    assert count == 2
    assert first["label"] != "without_mask"
    assert mended.iloc[0]["label"] == "without_mask"
    assert second["filename"] not in set(mended["filename"])
    assert mended.iloc[1:].equals(faces.iloc[2:])
    assert faces.equals(before), "the table that was given is not changed"


def test_a_correction_is_for_one_box_in_one_file_of_one_set(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "one", 1)
    objects = [("mask", BOX), ("mask", (2.0, 2.0, 30.0, 40.0))]
    cv2.imwrite(str(folder / "images" / "pair.png"), draw_face("with_mask", np.random.default_rng(0)))
    (folder / "annotations" / "pair.xml").write_text(annotation("pair.png", (96, 104), objects))
    faces = read_tables([folder]).faces
    right = ("one", "pair.png", 2.0, 2.0, 30.0, 40.0, "with_mask", "without_mask")
    mended, count = correct_labels(faces, corrections(tmp_path / "c.csv", right))
    pair = mended[mended["filename"] == "pair.png"]
    assert count == 1
    assert dict(zip(pair["xmin"], pair["label"], strict=True)) == {20.0: "with_mask", 2.0: "without_mask"}
    for wrong in (("two", *right[1:]), ("one", "other.png", *right[2:]), (*right[:5], 41.0, *right[6:])):
        same, none = correct_labels(faces, corrections(tmp_path / "c.csv", wrong))
        assert none == 0
        assert same.equals(faces)


def test_a_list_of_corrections_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    faces = read_tables([write_set(tmp_path / "one", 1)]).faces
    unknown = corrections(tmp_path / "c.csv", ("one", "a.png", *BOX, "with_mask", "hat"))
    with pytest.raises(UsageError, match="unknown class 'hat'"):
        correct_labels(faces, unknown)
    (tmp_path / "columns.csv").write_text("filename,label\na.png,with_mask\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    numberless = corrections(tmp_path / "n.csv", ("one", "a.png", "left", *BOX[1:], "with_mask", ""))
    short = tmp_path / "short.csv"
    short.write_text(",".join(CORRECTION_COLUMNS) + "\none,a.png,1\n")
    unmended = corrections(tmp_path / "u.csv", ("one", "a.png", *BOX, "with_mask"))
    unread = [tmp_path / name for name in ("missing.csv", "columns.csv", "bytes.csv")]
    for path in (*unread, numberless, short, unmended):
        with pytest.raises(UsageError, match="not a list of corrections"):
            correct_labels(faces, path)


LISTS = {"corrections.csv": {"train", "val"}, "reports/classifier-test-doubts.csv": {"test"}}
"""Our own lists of wrong labels, and the parts that each is about: what is learned from, and what is judged on."""


@pytest.mark.parametrize("name", LISTS)
def test_our_own_list_of_wrong_labels_can_be_read(name: str) -> None:
    import csv

    import pandas as pd

    path = Path(__file__).parents[1] / name
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    boxes = {side: [float(row[side]) for row in rows] for side in ("xmin", "ymin", "xmax", "ymax")}
    faces = pd.DataFrame({**{key: [row[key] for row in rows] for key in ("set", "filename", "label")}, **boxes})
    mended, count = correct_labels(faces, path)
    assert count == len(rows) == len(set(map(tuple, faces.itertuples(index=False))))
    assert len(mended) == sum(row["corrected"] != "" for row in rows)
    assert all(row["corrected"] != row["label"] for row in rows)


@pytest.mark.parametrize("name", LISTS)
def test_our_own_list_is_about_the_parts_that_it_says(name: str) -> None:
    import csv

    shared = Path(os.environ.get("MASKBATCH_SHARED") or Path(__file__).parents[3] / "shared") / "data"
    if not shared.is_dir():
        pytest.skip(f"needs the shared data folder, which is not at {shared.parent} (set MASKBATCH_SHARED)")
    groups = {}
    for folder in ("face_mask_detection", "ilc2021"):
        with (shared / folder / "groups.csv").open(newline="", encoding="utf-8") as file:
            groups |= {(folder, row["filename"]): row["group"] for row in csv.DictReader(file)}
    with (Path(__file__).parents[1] / name).open(newline="", encoding="utf-8") as file:
        parts = [part_of_group(groups[row["set"], row["filename"]]) for row in csv.DictReader(file)]
    assert set(parts) == LISTS[name]
