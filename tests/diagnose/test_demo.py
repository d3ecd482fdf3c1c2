from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from maskbatch.diagnose.demo import EXPECTED, VIDEO_NAME, Mask, make_demo_media, wear
from maskbatch.errors import MissingExtraError
from maskbatch.sources.images.decode import decode_image


@pytest.fixture(scope="module")
def demo_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("demo")
    make_demo_media(folder)
    return folder


def test_masks_cover_the_mouth_and_only_one_the_nose(face_photo: np.ndarray) -> None:
    over, below = (wear(face_photo, Mask(below_nose=low)) for low in (False, True))
    mouth, nose, eyes = (slice(142, 150), slice(215, 233)), (slice(120, 128), slice(218, 228)), slice(95, 105)
    for masked in (over, below):
        assert np.abs(masked[mouth].astype(int) - face_photo[mouth]).mean() > 20
        assert np.abs(masked[eyes].astype(int) - face_photo[eyes]).mean() < 2
    assert np.abs(over[nose].astype(int) - face_photo[nose]).mean() > 20
    assert np.abs(below[nose].astype(int) - face_photo[nose]).mean() < 3


def test_demo_media_are_all_there_and_the_same_each_time(demo_media: Path, tmp_path: Path) -> None:
    names = {str(path.relative_to(demo_media)) for path in demo_media.rglob("*") if path.is_file()}
    assert names == {*EXPECTED, VIDEO_NAME}
    make_demo_media(tmp_path)
    for name in EXPECTED:
        assert (tmp_path / name).read_bytes() == (demo_media / name).read_bytes(), name
        assert decode_image((tmp_path / name).read_bytes(), cover=0, max_pixels=10**7).problem is None, name


def test_demo_video_pans_for_twelve_seconds(demo_media: Path) -> None:
    with av.open(str(demo_media / VIDEO_NAME)) as container:
        stream = container.streams.video[0]
        images = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height, stream.average_rate) == (640, 360, 25)
    assert len(images) == 300
    assert np.abs(images[0].astype(int) - images[150]).mean() > 20


def test_missing_photograph_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'maskbatch\[demo\]'"):
        make_demo_media(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_demo_command_finds_every_face_and_its_label(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "maskbatch", "demo", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(folder / "results.parquet")
    for name, expected in EXPECTED.items():
        assert Counter(rows.loc[rows["source"] == name, "label"]) == expected, name
    video = rows.loc[rows["source"] == VIDEO_NAME]
    assert set(video["label"]) == {"with_mask", "without_mask", "mask_weared_incorrect"}
    annotated = {str(path.relative_to(folder / "annotated")) for path in (folder / "annotated").rglob("*.*")}
    assert annotated == {*EXPECTED, VIDEO_NAME}
    assert "mask_weared_incorrect" in done.stdout
    assert str(folder / "annotated") in done.stdout


def test_demo_does_not_touch_a_folder_of_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "results.parquet").write_bytes(b"precious")
    command = [sys.executable, "-m", "maskbatch", "demo", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "not the demo's" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["results.parquet"]
