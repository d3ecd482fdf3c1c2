"""Redaction of videos that can be relied on: faces between samples, in gated frames, in frames in which the detector missed them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from face_rows import NO_ROWS

import maskbatch
from maskbatch.config import Execution, Limits, ModelSettings, Sampling, ScanConfig
from maskbatch.detect import make_detector
from maskbatch.draw.cover import HOLD_S, Cover, Looks
from maskbatch.draw.eyes import cover_eyes
from maskbatch.draw.search import search_faces
from maskbatch.errors import UsageError
from maskbatch.runtime import resolve_device
from maskbatch.types import Detections, Source

Image = npt.NDArray[np.uint8]
Places = Callable[[int], tuple[int, int] | None]

RATE, SIZE, SIDE = 10, (320, 240), 140
CONFIG = ScanConfig(models=ModelSettings(det_size=320), execution=Execution(device="cpu", executor="inline", workers=1))


def write_clip(path: Path, photo: Image, places: Places, frames: int = 30) -> Path:
    """A clip in which a face (head and shoulders, `SIDE` high) is at `places(frame)`, or nowhere."""
    head = cv2.resize(np.ascontiguousarray(photo[20:260, 110:350]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "16", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(frames):
            image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
            place = places(number)
            if place is not None:
                x, y = place
                image[y : y + SIDE, x : x + SIDE] = head
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(container.streams.video[0])]


def detail(image: Image, x: int, y: int) -> float:
    """Fine structure of the middle of the face that lies at a place."""
    part = image[y + 30 : y + 95, x + 45 : x + 95].astype(np.float32)
    return float(np.abs(part - cv2.GaussianBlur(part, (0, 0), 3)).mean())


def bare(source: Path, redacted: Path, places: Places) -> list[int]:
    """Frames in which more than a third of the face's detail is left."""
    found = []
    for number, (before, after) in enumerate(zip(read(source), read(redacted), strict=True)):
        place = places(number)
        if place is not None and detail(after, *place) > 0.35 * detail(before, *place):
            found.append(number)
    return found


def redact(clip: Path, **options: Any) -> tuple[Path, Any]:
    """Scan and redact; the video that was written, and the rows."""
    folder = clip.parent / f"out{len(list(clip.parent.iterdir()))}"
    options = {"redact": True, "boxes": False, "redact_size": 320, **options}
    summary = maskbatch.scan(clip, folder / "r.parquet", CONFIG, annotate=folder / "a", **options)
    assert summary.exit_code == 0, summary
    return folder / "a" / clip.name, maskbatch.read_results(folder / "r.parquet")


def test_a_face_between_two_samples_is_covered_and_the_rows_are_those_of_the_samples(
    tmp_path: Path, face_photo: Image
) -> None:
    def between(number: int) -> tuple[int, int] | None:
        return (20 + 12 * (number - 12), 60) if 12 <= number < 19 else None

    clip = write_clip(tmp_path / "clip.mp4", face_photo, between)
    redacted, rows = redact(clip)
    assert len(rows) == 0, "the scan looks once a second and sees nobody"
    assert bare(clip, redacted, between) == []
    plain, _ = redact(clip, redact=False, boxes=True)
    assert bare(clip, plain, between) == list(range(12, 19)), "the measure sees bare faces"


def test_a_face_in_gated_frames_is_covered(tmp_path: Path, face_photo: Image) -> None:
    def still(number: int) -> tuple[int, int]:
        return 80, 60

    clip = write_clip(tmp_path / "clip.mp4", face_photo, still)
    redacted, rows = redact(clip, gate="motion", mode="all")
    assert len(rows) == 1, "the gate holds all frames back but the first"
    assert bare(clip, redacted, still) == []


def test_a_wider_step_keeps_the_last_boxes_over_frames_that_are_not_looked_at(
    tmp_path: Path, face_photo: Image
) -> None:
    def walking(number: int) -> tuple[int, int]:
        return 10 + 5 * number, 60

    clip = write_clip(tmp_path / "clip.mp4", face_photo, walking)
    redacted, _ = redact(clip, redact_every_s=0.5)
    assert bare(clip, redacted, walking) == []


class MissesFrames:
    """A real detector that misses the faces of some calls, as detectors do."""

    def __init__(self, missed: set[int]) -> None:
        models = ModelSettings(det_size=320, min_score=0.15)
        self._detector = make_detector(models, resolve_device("cpu"))
        self._missed = missed
        self._calls = -1
        self.name, self.has_landmarks, self.det_size, self.batch_size = "misses", True, 320, 1

    def detect(self, images: Any) -> list[Detections]:
        self._calls += 1
        return [Detections.empty()] if self._calls in self._missed else self._detector.detect(images)

    def warm_up(self) -> None:
        self._detector.warm_up()


def test_missed_frames_are_covered_before_between_and_after_sightings(tmp_path: Path, face_photo: Image) -> None:
    def walking(number: int) -> tuple[int, int]:
        return 10 + 5 * number, 60

    clip = write_clip(tmp_path / "clip.mp4", face_photo, walking)
    missed = {0, 1, 2, 9, 14, 15, 16, 17, 27, 28, 29}
    cover = search_faces(
        Source(str(clip), "clip.mp4", "video"), MissesFrames(missed), NO_ROWS, Sampling(), Limits()
    ).walk()
    for number in range(30):
        x, y = walking(number)
        middle = (x + SIDE * 0.5, y + SIDE * 0.45)
        boxes = [area.box for area in cover.at(number / RATE)]
        assert any(b[0] < middle[0] < b[2] and b[1] < middle[1] < b[3] for b in boxes), number


def looks_of(places: dict[float, list[tuple[float, float]]], side: float = 40, score: float = 0.9) -> Looks:
    """Looks at these times, with faces around these points."""
    looks = Looks()
    for at in sorted(places):
        middle = np.array(places[at], np.float32).reshape(-1, 2)
        boxes = np.concatenate([middle - side / 2, middle + side / 2], axis=1)
        looks.add(at, boxes, np.full(len(boxes), score, np.float32))
    return looks


def covers(cover: Cover, at: float, point: tuple[float, float]) -> bool:
    return any(a.box[0] <= point[0] <= a.box[2] and a.box[1] <= point[1] <= a.box[3] for a in cover.walk().at(at))


def test_two_who_cross_keep_their_ways() -> None:
    """While they overlap one is not seen; both are covered on their own ways, and what lies off them stays free."""
    places = {}
    for step in range(40):
        a, b = (100 + 10.0 * step, 100.0), (500 - 10.0 * step, 110.0)
        places[step / 10] = [a, b] if abs(a[0] - b[0]) > 40 else [a]
    cover = looks_of(places).cover()
    for step in range(40):
        assert covers(cover, step / 10, (100 + 10 * step, 100))
        assert covers(cover, step / 10, (500 - 10 * step, 110))
        assert not covers(cover, step / 10, (300, 300))


def test_a_face_is_held_half_a_second_and_grows_with_its_speed() -> None:
    still = looks_of({step / 10: [(100.0, 100.0)] if 10 <= step < 20 else [] for step in range(40)}).cover()
    assert covers(still, 1.0 - 0.9 * HOLD_S, (100, 100))
    assert covers(still, 1.9 + 0.9 * HOLD_S, (100, 100))
    assert not covers(still, 1.0 - 1.2 * HOLD_S, (100, 100))
    assert not covers(still, 1.9 + 1.2 * HOLD_S, (100, 100))
    walking = looks_of({step / 10: [(20.0 * step, 100.0)] if 10 <= step < 20 else [] for step in range(40)}).cover()
    for later in (0.1, 0.2, 0.3):  # it walks on unseen
        assert covers(walking, 1.9 + later, (380 + 200 * later, 100))
        assert covers(walking, 1.0 - later, (200 - 200 * later, 100))
        assert covers(walking, 1.9 + later, (380, 100)), "or has stopped"
    margins = [max(a.margin for a in walking.walk().at(1.9 + later)) for later in (0.1, 0.3, 0.5)]
    assert margins == sorted(margins)
    assert margins[0] < margins[-1]


def test_one_faint_sighting_hides_its_own_frame_only() -> None:
    places: dict[float, list[tuple[float, float]]] = {step / 10: [] for step in range(30)}
    places[1.0] = [(100.0, 100.0)]
    cover = looks_of(places, score=0.2).cover()
    assert covers(cover, 1.0, (100, 100))
    assert not covers(cover, 1.1, (100, 100))


def test_a_video_without_faces_is_left_alone(tmp_path: Path, face_photo: Image) -> None:
    clip = write_clip(tmp_path / "clip.mp4", face_photo, lambda number: None, frames=8)
    redacted, _ = redact(clip)
    for before, after in zip(read(clip), read(redacted), strict=True):
        assert np.abs(before.astype(int) - after).max() < 8


def test_the_same_scan_redacts_to_the_same_bytes(tmp_path: Path, face_photo: Image) -> None:
    clip = write_clip(tmp_path / "clip.mp4", face_photo, lambda number: (10 + 8 * number, 60), frames=12)
    first, second = redact(clip)[0], redact(clip)[0]
    assert first != second
    assert first.read_bytes() == second.read_bytes()


def test_covered_eyes_leave_nose_and_mouth(tmp_path: Path, face_photo: Image) -> None:
    def walking(number: int) -> tuple[int, int]:
        return 20 + 3 * number, 60

    clip = write_clip(tmp_path / "clip.mp4", face_photo, walking, frames=20)
    redacted, _ = redact(clip, redact="eyes")
    found = make_detector(ModelSettings(det_size=320), resolve_device("cpu"))
    for before, after in zip(read(clip), read(redacted), strict=True):
        (face,) = found.detect([before])
        assert face.landmarks is not None
        points = face.landmarks[0].round().astype(int)
        for x, y in points[:2]:
            assert after[y - 2 : y + 3, x - 2 : x + 3].max() < 40, "the eyes are black"
        low = int(points[3:, 1].min()) - 4
        left, right, bottom = int(points[3, 0]) - 3, int(points[4, 0]) + 4, int(points[3:, 1].max()) + 5
        x, y = points[2]
        for rows, columns in ((slice(low, bottom), slice(left, right)), (slice(y, y + 5), slice(x - 3, x + 4))):
            difference = np.abs(before[rows, columns].astype(int) - after[rows, columns])
            assert difference.mean() < 12, "mouth and tip of the nose are as they were"


@pytest.mark.parametrize("turn", [0, 30, -40, 90])
def test_bar_follows_the_eyes_of_a_tilted_face(turn: int) -> None:
    points = np.array([[-15, -10], [15, -10], [0, 8], [-12, 22], [12, 22]], np.float32)
    angle = np.radians(turn)
    points = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32) + 100
    image = np.full((200, 200, 3), 200, np.uint8)
    cover_eyes(image, (60, 55, 140, 145), points, margin=4)
    at = points.round().astype(int)
    assert all(image[y, x].max() == 0 for x, y in at[:2])
    assert all(image[y, x].min() == 200 for x, y in at[2:])


def test_settings_of_redaction_check_themselves() -> None:
    config = ScanConfig().with_options(redact="eyes", annotate="out")
    assert (config.outputs.redact, config.outputs.redact_part) == (True, "eyes")
    assert ScanConfig().with_options(redact=True, annotate="out").outputs.redact_part == "faces"
    for bad in ({"redact": "noses"}, {"redact_every_s": -1}, {"redact_size": 1000}, {"mute": True, "annotate": None}):
        with pytest.raises(UsageError):
            ScanConfig().with_options(**{"annotate": "out", "redact": True, **bad})  # type: ignore[arg-type]
