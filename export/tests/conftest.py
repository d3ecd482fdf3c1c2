"""Fixtures of the training package's tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest


@pytest.fixture(scope="session")
def face_photo() -> npt.NDArray[np.uint8]:
    """A photograph of one unmasked face, 512×512×3 uint8 BGR (NASA's portrait of Eileen Collins, from scikit-image)."""
    skimage_data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(skimage_data.astronaut()[:, :, ::-1])
