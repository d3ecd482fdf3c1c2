"""MTCNN joins the comparison in the shape of the other detectors."""

from __future__ import annotations

import numpy as np
import pytest
from maskbatch_export.detector.mtcnn import Mtcnn

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def mtcnn() -> Mtcnn:
    pytest.importorskip("mtcnn", reason="the package mtcnn is not installed")
    return Mtcnn()


def test_finds_the_portrait_in_its_own_pixels(mtcnn: Mtcnn) -> None:
    photo = np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut()[:, :, ::-1])
    (found,) = mtcnn.detect([photo])
    np.testing.assert_allclose(found.boxes[0], [182, 60, 268, 176], atol=14)
    assert found.scores[0] > 0.95
    assert (np.diff(found.scores) <= 0).all()
    assert found.landmarks is not None
    assert found.landmarks[0, 0, 0] < found.landmarks[0, 1, 0]  # left eye as seen, right eye as seen


def test_nothing_to_find_is_no_error(mtcnn: Mtcnn) -> None:
    (found,) = mtcnn.detect([np.full((200, 300, 3), 128, np.uint8)])
    assert len(found) == 0
