"""Fixtures that all tests share. What needs the data folder beside the repository is skipped, with a reason, where it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import toy_detector
from hypothesis import settings
from shared_data import shared_folder

from maskbatch.detect import DETECTORS

# A busy machine is no defect: hypothesis's 200 ms per example would make it one.
settings.register_profile("maskbatch", deadline=None)
settings.load_profile("maskbatch")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of shared data; the test is skipped where there is none."""
    folder = shared_folder()
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the shared data folder, which is not at {folder} (set MASKBATCH_SHARED)")
    return folder


@pytest.fixture(scope="session")
def face_photo() -> npt.NDArray[np.uint8]:
    """A photograph of one unmasked face, 512×512×3 uint8 BGR (NASA's portrait of Eileen Collins, from scikit-image)."""
    skimage_data = pytest.importorskip("skimage.data")
    photo: npt.NDArray[np.uint8] = np.ascontiguousarray(skimage_data.astronaut()[:, :, ::-1])
    photo.setflags(write=False)
    return photo


@pytest.fixture
def red_model(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The model of the toy detector family, which is installed for the length of the test, here and in processes started here."""
    folder = tmp_path_factory.mktemp("site")
    model = toy_detector.install(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    DETECTORS.__dict__.pop("_plugins", None)
    yield model
    DETECTORS.__dict__.pop("_plugins", None)
