"""What a task is made from, and what cannot be one."""

from __future__ import annotations

import pytest

from maskbatch.errors import ModelError
from maskbatch.tasks import MASK, canonical_label, classifier_labels, labels_in_metadata, task_of
from maskbatch.tasks.mask import LABELS


def test_the_default_task_is_the_mask_set() -> None:
    assert task_of(LABELS) is MASK
    assert MASK.headline == "with_mask"
    assert MASK.probability_columns == ("p_with_mask", "p_without_mask", "p_mask_weared_incorrect")
    assert [MASK.look(label).word for label in LABELS] == ["mask", "no mask", "incorrect"]


def test_known_labels_keep_their_look_and_new_ones_get_their_own() -> None:
    task = task_of(("without_mask", "with_mask", "face_shield", "scarf"))
    assert task.headline == "with_mask"
    assert task.look("with_mask") == MASK.look("with_mask")
    looks = [task.look(label) for label in task.labels]
    assert len({look.colour for look in looks}) == 4
    assert task.look("face_shield").word == "face shield"
    assert task.look("who knows").word == "face"
    assert task_of(("helmet", "bare")).headline == "helmet"


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": '["a", "b"]'},
        {"labels": "a, b"},
        {"classes": '["a", "b"]'},
        {"names": "{0: 'a', 1: 'b'}"},
        {"names": '{"1": "b", "0": "a"}'},
        {"labels": "a,b", "classes": '["x", "y"]'},
    ],
)
def test_labels_are_read_as_tools_write_them(metadata: dict[str, str]) -> None:
    assert labels_in_metadata(metadata, "model m") == ("a", "b")
    assert classifier_labels(metadata, 2, "m") == ("a", "b")


@pytest.mark.parametrize(
    ("metadata", "outputs", "message"),
    [
        ({"labels": "a"}, 1, "names 1 labels; a classifier has between 2 and 127"),
        ({"labels": "a,a"}, 2, "names a label twice"),
        ({"labels": "a,b/c"}, 2, "cannot be used as the name of a column and a folder"),
        ({"labels": '["a", 7]'}, 2, "not a list of names"),
        ({"labels": "[a"}, 2, "not a list of names"),
        ({"labels": "a,b"}, 3, r"names 2 labels \(a, b\) but has 3 outputs"),
        ({}, 2, "does not name its labels"),
    ],
)
def test_what_cannot_be_labels_is_one_sentence(metadata: dict[str, str], outputs: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        classifier_labels(metadata, outputs, "m")


def test_without_names_three_outputs_or_undeclared_ones_are_the_mask_set() -> None:
    assert classifier_labels({}, 3, "m") == classifier_labels({}, None, "m") == LABELS


@pytest.mark.parametrize(
    ("spelling", "label"),
    [("Mask", "with_mask"), ("no-mask", "without_mask"), (" with_mask ", "with_mask"), ("Helmet", "Helmet")],
)
def test_spellings_of_data_sets_are_known(spelling: str, label: str) -> None:
    assert canonical_label(spelling) == label
