"""Small faces of large images are found in overlapping tiles, each face once, also on seams."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskbatch
from maskbatch.config import ScanConfig
from maskbatch.detect.tiles import OVERLAP, merge, needs_tiles, tile_boxes
from maskbatch.types import Detections


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([320, 640, 1280]))
def test_tiles_cover_the_image_and_overlap(height: int, width: int, det_size: int) -> None:
    tiles = tile_boxes(height, width, det_size)
    for low, high, length in ((0, 2, width), (1, 3, height)):
        spans = sorted({(tile[low], tile[high]) for tile in tiles})
        assert (spans[0][0], spans[-1][1]) == (0, length)
        for (_, end), (start, _) in pairwise(spans):
            assert end - start >= OVERLAP * det_size - 1
        assert all(end - start <= det_size for start, end in spans)
    assert len(set(tiles)) == len(tiles)


def test_full_hd_is_not_cut_and_4k_is() -> None:
    assert not needs_tiles(1080, 1920, 640)
    assert needs_tiles(2160, 3840, 640)
    assert len(tile_boxes(2160, 3840, 640)) == 40


def faces(*rows: tuple[float, float, float, float, float]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], table[:, 4])


def test_a_face_seen_twice_or_in_part_stays_once_by_the_best_score() -> None:
    whole = faces((100, 100, 500, 560, 0.9), (900, 100, 930, 140, 0.5))
    tile = faces((902, 102, 931, 139, 0.8), (120, 120, 320, 300, 0.6), (950, 100, 980, 140, 0.7))
    found = merge([whole, faces(), tile])
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7], atol=1e-6)
    np.testing.assert_array_equal(found.boxes[1], tile.boxes[0])
    assert len(merge([])) == 0


def test_small_faces_of_a_large_image_are_found_with_tiles_only(
    face_photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    """The same person nine times, with a face of about 40 pixels, four of them on seams, in 20 megapixels."""
    small = cv2.resize(face_photo, (200, 200), interpolation=cv2.INTER_AREA)
    image = np.full((3600, 5600, 3), 120, np.uint8)
    corners = [(x, y) for y in (60, 1180, 3300) for x in (100, 1190, 4000)]
    for x, y in corners:
        image[y : y + 200, x : x + 200] = small
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/large.jpg"), image)
    options = {"device": "cpu", "executor": "inline"}
    plain = maskbatch.scan([tmp_path / "in"], tmp_path / "plain.parquet", **options)  # type: ignore[arg-type]
    tiled = maskbatch.scan([tmp_path / "in"], tmp_path / "tiled.parquet", tile="auto", **options)  # type: ignore[arg-type]
    assert plain.faces < len(corners)
    assert "8.8 times smaller than it is, so faces under about 140 pixels" in next(iter(plain.messages))
    rows = maskbatch.read_results(tmp_path / "tiled.parquet")
    centres = np.stack([(rows.x1 + rows.x2) / 2, (rows.y1 + rows.y2) / 2], axis=1)
    apart = np.linalg.norm(centres[:, None] - np.add(corners, (88, 46)), axis=2)
    assert len(rows) == len(corners)
    assert sorted(apart.argmin(axis=1)) == list(range(len(corners)))
    assert apart.min(axis=1).max() < 12
    assert tiled.stages["tiles"] > 0
    assert "tiles" not in plain.stages
    assert not tiled.messages


def test_the_key_of_runs_without_tiles_is_what_it_was() -> None:
    assert "detection.tile" not in ScanConfig().row_settings()
    assert ScanConfig().with_options(tile="auto").row_settings()["detection.tile"] == "auto"
    with pytest.raises(maskbatch.UsageError, match="tile"):
        ScanConfig().with_options(tile="always")  # type: ignore[typeddict-item]
