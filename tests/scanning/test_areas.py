"""Areas that must not be looked at: black before detection, and part of the run's key only where they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_maker
import pytest
import red_squares

import maskbatch
from maskbatch.config import ScanConfig
from maskbatch.errors import OutputExistsError, UsageError
from maskbatch.results.reader import ResultReader
from maskbatch.sources.areas import black_out, hidden
from maskbatch.types import Frame

HALL = ((0.0, 0.0), (0.4, 0.0), (0.4, 1.0), (0.0, 1.0))
LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


def test_every_pixel_of_the_polygon_is_black_and_the_rest_is_as_it_was() -> None:
    image = np.full((100, 200, 3), 200, np.uint8)
    dark = black_out(image, [LEFT])
    assert not dark[:, :99].any()
    assert (dark[:, 103:] == 200).all()
    assert (image == 200).all(), "the original is left alone"
    frame = Frame(image=image, width=400, height=200, load_full=lambda: np.full((200, 400, 3), 9, np.uint8))
    covered = hidden(frame, [LEFT])
    assert not covered.image[:, :99].any()
    assert not covered.load_full()[:, :199].any()
    assert covered.load_full()[:, 206:].all()
    assert hidden(frame, []) is frame


def test_a_scan_finds_nothing_in_an_area_of_that_camera_and_all_in_the_others(red_model: Path, tmp_path: Path) -> None:
    archive = red_squares.write_archive(tmp_path / "archive")
    (archive / "yard" / "broken.png").unlink()
    classifier = tmp_path / "exact.onnx"
    classifier.write_bytes(onnx_maker.share_classifier(("with_mask", "without_mask", "mask_weared_incorrect")))
    settings: dict[str, Any] = {
        "detector": f"red:{red_model}", "classifier": str(classifier), "det_size": 320, "workers": 1,
        "executor": "inline", "device": "cpu",
    }  # fmt: skip
    maskbatch.scan([archive], tmp_path / "all.parquet", **settings)
    maskbatch.scan([archive], tmp_path / "some.parquet", ignore=(("gate", (HALL,)),), **settings)
    every, some = (ResultReader(tmp_path / f"{n}.parquet").read().to_pylist() for n in ("all", "some"))
    middle = 0.4 * red_squares.WIDTH
    expected = [row for row in every if row["camera"] != "gate" or (row["x1"] + row["x2"]) / 2 > middle]
    assert 0 < len(expected) < len(every)
    assert [(r["source"], r["frame"], r["x1"], r["label"]) for r in some] == [
        (r["source"], r["frame"], r["x1"], r["label"]) for r in expected
    ]
    with pytest.raises(OutputExistsError):
        maskbatch.scan([archive], tmp_path / "all.parquet", ignore=(("gate", (LEFT,)),), **settings)


def test_without_areas_the_key_is_as_it_always_was() -> None:
    assert not any("areas" in name for name in ScanConfig().row_settings())
    given = ScanConfig().with_options(ignore=(("gate", (LEFT,)),))
    assert given.row_settings()["areas.ignore"]
    assert ScanConfig().with_options(ignore=(("gate", ()),)).row_settings() == ScanConfig().row_settings()


@pytest.mark.parametrize("wrong", [((0, 0), (1, 1)), ((0, 0), (1, 2), (1, 1)), "x", ((0, 0), (1,), (1, 1))])
def test_what_is_no_polygon_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="polygon"):
        ScanConfig().with_options(ignore=(("gate", (wrong,)),))


def test_drawn_copies_would_show_what_is_hidden(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would show"):
        ScanConfig().with_options(ignore=(("gate", (LEFT,)),), annotate=tmp_path)
