from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from face_rows import FACE_BOX, NO_ROWS, box_row, table
from hypothesis import given, settings
from hypothesis import strategies as st

from maskbatch.classify.crops import CROP_CONTEXT
from maskbatch.draw.crop_writer import write_crops
from maskbatch.draw.faces import Face, Style, redact, show_faces
from maskbatch.draw.images import annotate_image, image_output_name
from maskbatch.draw.paths import check_output_folder, safe_output_path
from maskbatch.errors import InputError, OutputError, UsageError
from maskbatch.storage.atomic import written_whole
from maskbatch.tasks.mask import LABELS
from maskbatch.types import Source


@pytest.fixture
def picture(tmp_path: Path, face_photo: np.ndarray) -> Source:
    path = tmp_path / "in" / "sub" / "photo.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), face_photo)
    return Source(str(path), "sub/photo.png", "image")


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a != b).any(axis=2)


def test_box_and_label_are_drawn_outside_the_face(tmp_path: Path, picture: Source, face_photo: np.ndarray) -> None:
    target = annotate_image(picture, table(box_row()), tmp_path / "out")
    assert target == tmp_path / "out/sub/photo.png"
    drawn = changed(cv2.imread(str(target)), face_photo)
    x1, y1, x2, y2 = map(int, FACE_BOX)
    assert not drawn[y1:y2, x1:x2].any()
    assert drawn[y1 - 4 : y1, x1:x2].any(axis=0).all()
    assert drawn[y2 : y2 + 4, x1:x2].any(axis=0).all()
    # The box, its dark edges and the label: little of a picture is covered.
    assert 500 < drawn.sum() < 6000


def test_the_three_classes_differ_in_more_than_colour(face_photo: np.ndarray) -> None:
    grey: list[np.ndarray] = []
    for label in LABELS:
        image = face_photo.copy()
        show_faces(image, [Face(*FACE_BOX, label, 0.9)], Style())
        grey.append(changed(image, face_photo))
    # Seen without any colour the marks still differ: line style and word.
    assert (grey[0] != grey[1]).sum() > 200
    assert (grey[0] != grey[2]).sum() > 200
    assert (grey[1] != grey[2]).sum() > 200


def test_the_number_of_a_track_stands_beside_its_box(face_photo: np.ndarray) -> None:
    drawn = {}
    for track in (None, 7, 8):
        image = face_photo.copy()
        show_faces(image, [Face(*FACE_BOX, "with_mask", 0.9, track=track)], Style())
        drawn[track] = image
    assert changed(drawn[None], drawn[7]).any()
    assert changed(drawn[7], drawn[8]).any(), "the number itself is shown"


def test_picture_without_faces_is_written_unchanged(tmp_path: Path, picture: Source, face_photo: np.ndarray) -> None:
    target = annotate_image(picture, NO_ROWS, tmp_path / "out")
    assert np.array_equal(cv2.imread(str(target)), face_photo)


def test_redaction_leaves_a_few_averages_of_the_face(tmp_path: Path, picture: Source, face_photo: np.ndarray) -> None:
    target = annotate_image(picture, table(box_row()), tmp_path / "out", Style(boxes=False, redact=True))
    image = cv2.imread(str(target))
    x1, y1, x2, y2 = map(int, FACE_BOX)
    assert changed(image, face_photo)[y1 - 10 : y2 + 10, x1 - 10 : x2 + 10].mean() > 0.95
    # No detail is left: the finest structure of the face has lost nearly all its energy.
    fine = [cv2.Laplacian(p[y1:y2, x1:x2], cv2.CV_64F).var() for p in (face_photo, image)]
    assert fine[1] < fine[0] / 200
    assert not changed(image, face_photo)[:20].any()


def test_two_faces_with_equal_averages_are_redacted_to_the_same_pixels() -> None:
    """What is written is a function of the averages only, so the face cannot be computed back."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, 256, (100, 100, 3), np.uint8)
    box = (20.0, 20.0, 80.0, 80.0)
    second = first.copy()
    second[50:52, 50:52] = second[50:52, 50:52][::-1, ::-1]  # the same pixels within a cell, in another order
    assert changed(first, second).any()
    redact(first, box)
    redact(second, box)
    assert np.array_equal(first, second)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    box=st.tuples(*[st.floats(-1e5, 1e5, width=32)] * 4),
    label=st.sampled_from([*LABELS, "something new"]),
    confidence=st.floats(0, 1),
    redacted=st.booleans(),
)
def test_any_box_can_be_drawn_on_any_picture(
    size: tuple[int, int], box: tuple[float, ...], label: str, confidence: float, redacted: bool
) -> None:
    image = np.full((*size, 3), 77, np.uint8)
    face = Face(box[0], box[1], box[2], box[3], label, confidence)
    show_faces(image, [face, face], Style(redact=redacted))
    assert image.shape == (*size, 3)


def test_jpeg_stays_jpeg_and_other_formats_get_an_ending(tmp_path: Path, face_photo: np.ndarray) -> None:
    (tmp_path / "a.JPG").write_bytes(simplejpeg.encode_jpeg(face_photo, colorspace="BGR"))
    target = annotate_image(Source(str(tmp_path / "a.JPG"), "a.JPG", "image"), NO_ROWS, tmp_path / "out")
    assert target.name == "a.JPG"
    assert target.read_bytes()[:3] == b"\xff\xd8\xff"
    assert image_output_name("b/c.webp") == "b/c.webp.jpg"
    assert image_output_name("b/c.jpeg") == "b/c.jpeg"


def test_odd_pictures_are_drawn_on_where_their_boxes_are(tmp_path: Path, face_photo: np.ndarray) -> None:
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    exif[274] = 6
    path = tmp_path / "turned.jpg"
    Pillow.fromarray(np.rot90(face_photo)[:, :, ::-1].copy()).save(path, quality=95, exif=exif.tobytes())
    target = annotate_image(Source(str(path), "turned.jpg", "image"), table(box_row()), tmp_path / "out")
    image = cv2.imread(str(target), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    left = np.abs(image.astype(int) - face_photo)[100:180, 150:166].mean()
    assert left > 15  # the left line of the box
    assert np.abs(image.astype(int) - face_photo)[80:200, 180:270].mean() < 4


def test_unreadable_picture_is_an_input_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture at all")
    with pytest.raises(InputError):
        annotate_image(Source(str(tmp_path / "a.jpg"), "a.jpg", "image"), NO_ROWS, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))


def test_input_is_never_overwritten_under_any_name(tmp_path: Path, picture: Source) -> None:
    before = Path(picture.path).read_bytes()
    folder = tmp_path / "in"
    with pytest.raises(OutputError, match="input itself"):
        annotate_image(picture, table(box_row()), folder)
    (tmp_path / "alias").symlink_to(folder)
    with pytest.raises(OutputError, match="input itself"):
        annotate_image(picture, table(box_row()), tmp_path / "alias")
    linked = tmp_path / "hard/sub/photo.png"
    linked.parent.mkdir(parents=True)
    os.link(picture.path, linked)
    with pytest.raises(OutputError, match="input itself"):
        annotate_image(picture, table(box_row()), tmp_path / "hard")
    assert Path(picture.path).read_bytes() == before


@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "a//x.jpg", "..", "", "a\0.jpg"])
def test_names_cannot_leave_the_output_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError):
        safe_output_path(tmp_path / "out", name, Source("/nowhere/x.jpg", name, "image"))


def test_links_cannot_lead_out_of_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="outside"):
        safe_output_path(tmp_path / "out", "sub/x.jpg", Source("/nowhere/x.jpg", "x", "image"))


def test_long_names_are_cut_and_stay_apart(tmp_path: Path) -> None:
    source = Source("/nowhere", "x", "image")
    paths = {safe_output_path(tmp_path, "é" * 126 + f"{i}.jpg", source) for i in range(3)}
    assert len(paths) == 3
    for path in paths:
        assert path.suffix == ".jpg"
        path.write_bytes(b"x")


def test_output_folder_must_not_hold_inputs(tmp_path: Path) -> None:
    (tmp_path / "data/in").mkdir(parents=True)
    root = str(tmp_path / "data/in")
    for folder in (tmp_path / "data/in", tmp_path / "data", tmp_path):
        with pytest.raises(UsageError, match="--annotate"):
            check_output_folder(folder, [root], "--annotate")
    (tmp_path / "alias").symlink_to(tmp_path / "data")
    with pytest.raises(UsageError):
        check_output_folder(tmp_path / "alias", [root], "--annotate")
    check_output_folder(tmp_path / "data/in/annotated", [root], "--annotate")
    check_output_folder(tmp_path / "out", [root, "/", "s3://bucket/x"], "--annotate")


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.jpg"
    target.write_bytes(b"old")

    def half(error: Exception) -> None:
        with written_whole(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(OutputError, match="No space left"):
        half(OSError(28, "No space left on device"))
    with pytest.raises(KeyError):
        half(KeyError("x"))
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_crops_are_sorted_by_label(tmp_path: Path, picture: Source, face_photo: np.ndarray) -> None:
    rows = table(
        box_row(label="without_mask"),
        box_row((-20.0, -20.0, 30.0, 30.0), face=1),
        box_row((1000.0, 1000.0, 1010.0, 1010.0), face=2, label="mask_weared_incorrect"),
    )
    assert write_crops(picture, rows, tmp_path / "crops") == 3
    names = sorted(str(path.relative_to(tmp_path / "crops")) for path in (tmp_path / "crops").rglob("*.jpg"))
    assert names == [
        "mask_weared_incorrect/sub/photo.png_2.jpg",
        "with_mask/sub/photo.png_1.jpg",
        "without_mask/sub/photo.png_0.jpg",
    ]
    crop = cv2.imread(str(tmp_path / "crops/without_mask/sub/photo.png_0.jpg"))
    side = round(CROP_CONTEXT * 150)
    assert crop.shape == (side, side, 3)
    left, top = round(225 - CROP_CONTEXT * 75), max(0, round(135 - CROP_CONTEXT * 75))
    expected = face_photo[top : top + side, left : left + side]
    assert np.abs(crop.astype(int) - expected).mean() < 3
    cut = cv2.imread(str(tmp_path / "crops/with_mask/sub/photo.png_1.jpg")).shape[:2]
    assert cut == (round(5 + CROP_CONTEXT * 25), round(5 + CROP_CONTEXT * 25))


def test_crops_are_redacted_when_asked_for(tmp_path: Path, picture: Source) -> None:
    write_crops(picture, table(box_row()), tmp_path / "plain")
    write_crops(picture, table(box_row()), tmp_path / "hidden", Style(redact=True))
    name = "with_mask/sub/photo.png_0.jpg"
    faces = [cv2.imread(str(tmp_path / folder / name))[40:-40, 40:-40] for folder in ("plain", "hidden")]
    fine = [cv2.Laplacian(face, cv2.CV_64F).var() for face in faces]
    assert fine[1] < fine[0] / 50
    assert write_crops(picture, NO_ROWS, tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()
