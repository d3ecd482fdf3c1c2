"""What redaction leaves: faces that a detector at every frame, 1,280 pixels wide, still finds in redacted videos.

    python benchmarks/redaction.py ../shared [--work FOLDER] [--clips NAME …] [--redact-size 1280] [--redact-every 0] [--judge-every 1] [--look FOLDER]

Five clips with people who cross, turn, leave and return: two recordings, one film clip, and two synthetic ones in which faces of the Face Mask
Detection set move over a photograph of an empty room. Each is scanned and redacted as a user would (one sample a second, motion gate on or
off as named), then judged: every frame of source and output by the scan's own detector, and by YuNet, which has no part in the redaction.
The scan's own detector counts from a score of 0.5: at 1,280 pixels it takes dark walls for faces below that. A face that is found in the output is *bare* if the detail of the source is still there, else it is a blurred area that looks like a face
to the judge. The target is 1 bare face in 1,000 sightings. `--look` writes the bare ones and some blurred ones, side by side, to look at.
"""

from __future__ import annotations

import argparse
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

import maskbatch
from maskbatch.config import ModelSettings
from maskbatch.detect import make_detector
from maskbatch.runtime import resolve_device

Image = npt.NDArray[np.uint8]

SIZE = (1280, 720)
RATE = 25
BARE = 0.5
"""Share of the source's detail, in what is found in the output, from which a face counts as bare."""


# -- synthetic clips ---------------------------------------------------------------------------------------------------


def _faces(shared: Path, count: int, seed: int) -> list[tuple[Image, Image]]:
    """Large faces of the Face Mask Detection set with their surroundings, and soft masks to lay them over a background with."""
    folder = shared / "data/face_mask_detection"
    found = []
    for path in sorted((folder / "annotations").glob("*.xml")):
        for item in ET.parse(path).iter("bndbox"):
            x1, y1, x2, y2 = (int(item.findtext(name) or 0) for name in ("xmin", "ymin", "xmax", "ymax"))
            if min(x2 - x1, y2 - y1) >= 70:
                found.append((path.stem, x1, y1, x2, y2))
    rng = np.random.default_rng(seed)
    faces = []
    for index in rng.permutation(len(found)):
        stem, x1, y1, x2, y2 = found[index]
        image = cv2.imread(str(folder / "images" / f"{stem}.jpg")) if len(faces) < count else None
        if image is None:
            continue
        width, height = x2 - x1, y2 - y1
        left, top = max(0, x1 - width // 3), max(0, y1 - height // 3)
        head = np.ascontiguousarray(image[top : y2 + height // 3, left : x2 + width // 3])
        mask = np.zeros(head.shape[:2], np.uint8)
        centre = ((x1 + x2) // 2 - left, (y1 + y2) // 2 - top)
        cv2.ellipse(mask, centre, (round(width * 0.68), round(height * 0.68)), 0, 0, 360, 255, -1)
        faces.append((head, np.asarray(cv2.GaussianBlur(mask, (0, 0), width / 20), np.uint8)))
    return faces


def _paste(image: Image, face: tuple[Image, Image], x: float, y: float, height: float, flip: bool) -> None:
    head, mask = face
    scale = height / head.shape[0]
    move = np.array([[scale, 0, x - scale * head.shape[1] / 2], [0, scale, y - height / 2]], np.float32)
    if flip:
        head, mask = np.ascontiguousarray(head[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    size = (image.shape[1], image.shape[0])
    layer = cv2.warpAffine(head, move, size, flags=cv2.INTER_AREA)
    alpha = cv2.warpAffine(mask, move, size, flags=cv2.INTER_AREA)[..., None] / 255
    image[:] = (image * (1 - alpha) + layer * alpha).astype(np.uint8)


def synthetic(shared: Path, path: Path, seed: int, people: int, seconds: int, speed: tuple[float, float]) -> Path:
    """Faces that walk to and fro over a room, cross, pass behind pillars, leave and return; `speed` in pixels per second."""
    rng = np.random.default_rng(seed)
    faces = _faces(shared, people, seed)
    rooms = sorted(p for p in (shared / "data/empty_rooms").rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    room = cv2.resize(cv2.imread(str(rooms[seed % len(rooms)])), SIZE, interpolation=cv2.INTER_AREA)
    y = rng.uniform(150, SIZE[1] - 150, people)
    x0 = rng.uniform(0, SIZE[0], people)
    pace = rng.uniform(*speed, people) * rng.choice([-1, 1], people)
    height = rng.uniform(60, 190, people)
    pillars = [(int(at), int(at) + 90) for at in rng.uniform(200, SIZE[0] - 200, 2)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(seconds * RATE):
            at = number / RATE
            image = np.asarray(room, np.uint8).copy()
            for who in np.argsort(height):
                # From 300 pixels outside to 300 outside on the other side, and back.
                span = SIZE[0] + 600
                way = (x0[who] + 300 + pace[who] * at) % (2 * span)
                x = (way if way < span else 2 * span - way) - 300
                size = height[who] * (1 + 0.25 * np.sin(at * 0.7 + who))
                _paste(image, faces[who], x, y[who] + 12 * np.sin(at * 9 + who), size, way >= span)
            for left, right in pillars:
                image[:, left:right] = room[:, left:right] // 2
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def clips(shared: Path, work: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Name → file and options of the scan."""
    videos = shared / "data/videos"
    crossing, fast = work / "crossing.mp4", work / "fast.mp4"
    if not crossing.exists():
        synthetic(shared, crossing, 3, 6, 16, (90, 260))
    if not fast.exists():
        synthetic(shared, fast, 8, 4, 12, (400, 900))
    return {
        "one-by-one": (videos / "one-by-one-person-detection.mp4", {"gate": "motion"}),
        "hamilton": (videos / "short_hamilton_clip.mp4", {}),
        "standing": (shared / "data/field_reports/videos/redact-with-gate/stand1.mp4", {"gate": "motion"}),
        "crossing": (crossing, {}),
        "fast": (fast, {}),
    }


# -- judging -----------------------------------------------------------------------------------------------------------


def judges(shared: Path) -> dict[str, Any]:
    """Detectors by name, 1,280 pixels wide, at the score that each is used with."""
    cpu = resolve_device("cpu")
    return {
        "retinaface": make_detector(ModelSettings(det_size=1280, min_score=0.5), cpu),
        "yunet": make_detector(
            ModelSettings(f"yunet:{shared / 'weights/yunet_n.onnx'}", det_size=1280, min_score=0.6), cpu
        ),
    }


def frames(path: Path) -> Iterator[Image]:
    """Every frame, in full, as a plain decoder gives it."""
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0]):
            yield frame.to_ndarray(format="bgr24")


def detail_left(source: Image, output: Image, box: npt.NDArray[Any]) -> float:
    """How much of the source's fine structure in the middle of a box is still there: the slope of output on source, high-passed."""
    x1, y1, x2, y2 = box
    dx, dy = 0.15 * (x2 - x1), 0.15 * (y2 - y1)
    rows, columns = slice(int(y1 + dy), int(y2 - dy) + 1), slice(int(x1 + dx), int(x2 - dx) + 1)
    sigma = max(1.0, (x2 - x1) / 16)
    first, second = (
        (grey := cv2.cvtColor(np.ascontiguousarray(image[rows, columns]), cv2.COLOR_BGR2GRAY).astype(np.float32))
        - cv2.GaussianBlur(grey, (0, 0), sigma)
        for image in (source, output)
    )
    return float((first * second).sum() / max(1e-6, float((first * first).sum())))


def judge(
    source: Path, output: Path, detectors: dict[str, Any], look: Path | None, name: str, every: int
) -> list[dict[str, Any]]:
    """Sightings in the source, findings in the output, and how many of those are bare, by each judge."""
    counts = {
        who: {"clip": name, "judge": who, "sightings": 0, "found": 0, "bare": 0, "hidden": []} for who in detectors
    }
    for number, (before, written) in enumerate(zip(frames(source), frames(output), strict=True)):
        if number % every:
            continue
        after = np.ascontiguousarray(written[: before.shape[0], : before.shape[1]])  # odd sizes are padded
        hidden = float((cv2.absdiff(before, after).max(axis=2) > 24).mean())
        for who, detector in detectors.items():
            counts[who]["hidden"].append(hidden)
            seen, found = detector.detect([before, after])
            counts[who]["sightings"] += len(seen)
            counts[who]["found"] += len(found)
            for box, score in zip(found.boxes, found.scores, strict=True):
                bare = detail_left(before, after, box) >= BARE
                counts[who]["bare"] += bare
                if look is not None and (bare or counts[who]["found"] % 50 == 1):
                    _show(
                        look, f"{name}_{who}_{'bare' if bare else 'blurred'}_{number}_{score:.2f}", before, after, box
                    )
    return list(counts.values())


def _show(folder: Path, name: str, before: Image, after: Image, box: npt.NDArray[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pair = []
    for image in (before, after):
        shown = image.copy()
        x1, y1, x2, y2 = (int(value) for value in box)
        cv2.rectangle(shown, (x1, y1), (x2, y2), (0, 255, 0), 1)
        side = max(x2 - x1, y2 - y1)
        top, left = max(0, y1 - side), max(0, x1 - side)
        pair.append(cv2.resize(shown[top : y2 + side, left : x2 + side], (320, 320)))
    cv2.imwrite(str(folder / f"{name}.png"), np.hstack(pair))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--work", type=Path, default=Path("redaction.work"))
    parser.add_argument("--clips", nargs="*")
    parser.add_argument("--redact-size", type=int, default=1280)
    parser.add_argument("--redact-every", type=float, default=0.0)
    parser.add_argument(
        "--judge-every", type=int, default=1, help="judge every Nth frame (all are searched and written)"
    )
    parser.add_argument("--look", type=Path)
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    total: dict[str, list[int]] = {}
    print(f"{'clip':12} {'judge':10} {'sightings':>9} {'found':>6} {'bare':>5}  changed   s per minute of video")
    for name, (path, options) in clips(chosen.shared, chosen.work).items():
        if chosen.clips and name not in chosen.clips:
            continue
        folder = chosen.work / f"{name}-{chosen.redact_size}-{chosen.redact_every:g}"
        started = time.perf_counter()
        summary = maskbatch.scan(
            path,
            folder / "results.parquet",
            annotate=folder / "redacted",
            redact=True,
            boxes=False,
            redact_size=chosen.redact_size,
            redact_every_s=chosen.redact_every,
            device="cpu",
            executor="inline",
            restart=True,
            overwrite=True,
            **options,
        )
        assert not summary.not_drawn, summary.not_drawn
        spent = time.perf_counter() - started
        (output,) = (folder / "redacted").rglob("*.mp4")
        duration = maskbatch.read_inputs(folder / "results.parquet").duration_s.iloc[0]
        for row in judge(path, output, judges(chosen.shared), chosen.look, name, chosen.judge_every):
            cost = f"{spent / duration * 60:.0f}" if row["judge"] == "retinaface" else ""
            print(
                f"{name:12} {row['judge']:10} {row['sightings']:9} {row['found']:6} {row['bare']:5} {np.mean(row['hidden']):8.1%}   {cost}",
                flush=True,
            )
            sums = total.setdefault(row["judge"], [0, 0, 0])
            for at, key in enumerate(("sightings", "found", "bare")):
                sums[at] += row[key]
    for who, (sightings, found, bare) in total.items():
        share = 1000 * bare / max(1, sightings)
        print(f"{'all':12} {who:10} {sightings:9} {found:6} {bare:5}   {share:.2f} bare in 1,000 sightings")


if __name__ == "__main__":
    main()
