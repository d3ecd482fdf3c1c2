"""A result in object storage is reviewed like a file: decisions lie in the working folder, the faces are found where the inputs are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("moto", reason="needs moto's server (group scale)")
pytest.importorskip("s3fs", reason="needs the extra s3")
pytest.importorskip("starlette", reason="needs the extra review")

from object_servers import BUCKET, S3Server, running_s3
from scan_maker import CONFIG, make_tree

import maskbatch
from maskbatch.draw.originals import Originals
from maskbatch.results.reader import ResultReader
from maskbatch.review.app import Review
from maskbatch.review.faces import Decisions, read_faces
from maskbatch.review.images import Images
from maskbatch.scanning.run import scan


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


def test_a_result_in_s3_is_corrected_in_the_working_folder(
    server: S3Server, tmp_path: Path, face_photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/out/results.parquet"
    scan(make_tree(tmp_path / "in", face_photo, pictures=6), url, CONFIG)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    reader = ResultReader(url)
    faces = read_faces(reader)
    assert len(faces) > 0
    images = Images(faces, Originals(reader.run()))
    review = Review(faces, Decisions(faces, reader.corrections_path), images, "results")
    review.decide({"rows": [0], "action": "label", "label": 2})
    review.decide({"rows": [1], "action": "not_a_face"})
    crop = cv2.imdecode(np.frombuffer(images.crop(0), np.uint8), cv2.IMREAD_COLOR)
    assert crop is not None
    assert (tmp_path / "work" / "results.corrections.csv").is_file()
    corrected = maskbatch.read_results(url, corrections=True)
    assert len(corrected) == len(faces) - 1
    assert str(corrected["label"].iloc[0]) == faces.task.labels[2]
