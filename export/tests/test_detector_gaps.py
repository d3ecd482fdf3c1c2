"""What the detector is trained and judged on beyond the labels: gaps filled by agreement, close-ups, rooms without people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from maskbatch_export.detector.augment import SceneRecipe, window
from maskbatch_export.detector.convert import check_parity
from maskbatch_export.detector.data import Picture
from maskbatch_export.detector.evaluate import Found
from maskbatch_export.detector.hard_cases import close_ups, false_alarms, one_box_each
from maskbatch_export.detector.model import Architecture, build_model
from maskbatch_export.detector.pseudo import Consensus, agree, complete, look
from maskbatch_export.detector.weights import load_exported_weights

import maskbatch
from maskbatch.errors import ModelError

SHIPPED = Path(maskbatch.__file__).parent / "models" / "retinaface.onnx"
FACE = [20.0, 20.0, 60.0, 70.0]


def picture(*boxes: list[float], origin: str = "ilc2021", side: int = 320) -> Picture:
    image = np.full((side, side, 3), 90, np.uint8)
    table = np.array(boxes, np.float32).reshape(-1, 4)
    marks = np.full((len(table), 5, 2), np.nan, np.float32)
    return Picture("a.jpg", origin, image, table, np.zeros(len(table), bool), marks)


def seen(*boxes: list[float], votes: list[int]) -> Consensus:
    return Consensus(np.array(boxes, np.float32).reshape(-1, 4), np.array(votes))


def detections(*boxes: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)


def test_models_that_see_the_same_face_agree_and_the_first_ones_box_stands() -> None:
    moved = [x + 4 for x in FACE]
    both = agree([detections(FACE), detections(moved, [200, 200, 240, 250]), detections()])
    assert both.votes.tolist() == [2, 1]
    assert both.boxes[0].tolist() == FACE


def test_one_model_that_sees_a_face_twice_has_one_vote() -> None:
    assert agree([detections(FACE, [x + 2 for x in FACE])]).votes.tolist() == [1]


def test_faces_without_a_label_are_trained_on_where_two_agree_and_ignored_where_one_sees_them() -> None:
    far, farther = [200.0, 20, 240, 70], [200.0, 200, 240, 250]
    (done,), counts = complete([picture(FACE)], [seen(FACE, far, farther, votes=[3, 2, 1])])
    assert done.boxes.tolist() == [FACE, far, farther]
    assert done.ignored.tolist() == [False, False, True]
    assert counts == {"added": 1, "ignored": 1, "moved": 0}
    assert len(done.landmarks) == 3


def test_loose_boxes_move_to_what_was_detected_and_others_stay() -> None:
    head = [15.0, 5.0, 65.0, 70.0]
    for origin, expected in (("street_masks", FACE), ("ilc2021", head)):
        (done,), _ = complete([picture(head, origin=origin)], [seen(FACE, votes=[2])])
        assert done.boxes.tolist() == [expected]


def test_in_rooms_only_what_all_models_see_is_ignored() -> None:
    room = picture(origin="empty_rooms")
    (done,), _ = complete([room], [seen(FACE, [200, 20, 240, 70], votes=[2, 3])])
    assert done.boxes.tolist() == [[200, 20, 240, 70]]
    assert done.ignored.all()


def test_what_was_seen_is_kept_for_a_run_that_goes_on(tmp_path: Path) -> None:
    calls = []

    def detect(image: np.ndarray) -> Found:
        calls.append(1)
        return Found(np.array([FACE]), np.array([0.9]), None)

    pictures = [picture(FACE)]
    first = look(pictures, {"a": [detect]}, 0.5, tmp_path / "seen.npz")
    again = look(pictures, {"a": [detect]}, 0.5, tmp_path / "seen.npz")
    assert len(calls) == 1
    assert first[0].boxes.tolist() == again[0].boxes.tolist() == [FACE]


@pytest.mark.parametrize("seed", range(8))
def test_close_crop_is_filled_by_one_face(seed: int) -> None:
    recipe = SceneRecipe(size=128, close=1.0)
    crop = window(picture([100, 100, 180, 190]), 128, 128, np.random.default_rng(seed), recipe, "close")
    (box,) = crop.boxes
    assert box[3] - box[1] >= 0.3 * 128
    assert not crop.ignored.any()


def test_close_ups_show_one_face_at_each_fill_that_the_image_allows() -> None:
    shown = list(close_ups([picture([60, 60, 150, 160])]))
    assert [p.name.split("@")[1] for p in shown] == ["0.5", "0.75", "1", "1.3"]
    assert [p.image.shape[0] for p in shown] == [200, 133, 100, 77]
    assert not list(close_ups([picture([60, 60, 100, 110])])), "a small face is no close-up"
    crowd = list(close_ups([picture([60, 60, 150, 160], [155, 60, 245, 160])]))
    assert all(p.image.shape[0] <= 133 for p in crowd), "another face's centre lies in the larger cut-outs"


def test_false_alarms_and_boxes_are_counted() -> None:
    def two(image: np.ndarray) -> Found:
        return Found(np.array([FACE, [200, 200, 240, 250], FACE]), np.array([0.9, 0.8, 0.1]), None)

    rooms = [picture(origin="empty_rooms"), picture(FACE, origin="empty_rooms")]
    assert false_alarms(two, rooms, 0.4) == (2, 3)
    assert one_box_each(two, [picture([60, 60, 150, 160])], 0.4) == {
        "close_ups": 4,
        "one": 0.0,
        "none": 0.0,
        "several": 1.0,
    }


def test_shipped_weights_can_be_trained_on() -> None:
    model = build_model(Architecture(stem=16, refine=("1_3", "1_5", "2_6")))
    load_exported_weights(model, SHIPPED)
    assert check_parity(model, SHIPPED) < 1e-3
    with pytest.raises(ModelError, match="stem_conv"):
        load_exported_weights(build_model(), SHIPPED)
