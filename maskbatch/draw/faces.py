"""Boxes, labels and redaction on a BGR image.

How each label looks, its task says (`maskbatch.tasks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from maskbatch.config import RedactedPart
from maskbatch.draw.cover import Area
from maskbatch.draw.eyes import cover_eyes
from maskbatch.tasks import MASK, Look, Task
from maskbatch.types import Image

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Style:
    """How faces are shown.

    Attributes:
        boxes: boxes, labels and confidences are drawn.
        redact: every face is made permanently unrecognisable, before anything is drawn.
        part: what of a face redaction hides: all of it, or the eyes.
        mute: videos are written without their sound.
        quality: of the JPEG files that are written, 1 to 100.
        task: how each label looks.
    """

    boxes: bool = True
    redact: bool = False
    part: RedactedPart = "faces"
    mute: bool = False
    quality: int = 92
    task: Task = MASK


@dataclass(frozen=True, slots=True)
class Face:
    """What is drawn of a row: the box in pixels of the image, its label and confidence, and the track if there is one."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    confidence: float
    track: int | None = None
    landmarks: tuple[float, ...] | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Face:
        """From a row of the results as a mapping."""
        x1, y1, x2, y2 = (float(row[name]) for name in ("x1", "y1", "x2", "y2"))
        points = row.get("landmarks")
        return cls(
            x1,
            y1,
            x2,
            y2,
            str(row["label"]),
            float(row["confidence"]),
            row.get("track"),
            None if points is None else tuple(points),
        )


_BLACK = (0, 0, 0)


def show_faces(image: Image, faces: Sequence[Face], style: Style, redacted: Iterable[Area] = ()) -> None:
    """Draw on an image, in place.

    Args:
        image: H×W×3 uint8, BGR, contiguous and writable.
        faces: what is drawn, the most important first (labels of later faces give way).
        style: what is drawn, and whether faces are hidden.
        redacted: with `style.redact`, what to hide besides the faces.
    """
    if style.redact:
        for face in faces:
            points = None if face.landmarks is None else np.array(face.landmarks, np.float32).reshape(5, 2)
            _hide(image, Area((face.x1, face.y1, face.x2, face.y2), 0.0, points), style.part)
        for area in redacted:
            _hide(image, area, style.part)
    if style.boxes:
        _draw_boxes(image, faces, style.task)


def _hide(image: Image, area: Area, part: RedactedPart) -> None:
    if part == "eyes":
        cover_eyes(image, area.box, area.landmarks, area.margin)
        return
    x1, y1, x2, y2 = area.box
    redact(image, (x1 - area.margin, y1 - area.margin, x2 + area.margin, y2 + area.margin))


# A face is at most this many averaged cells wide after redaction: too few to recognise anyone, or to compute a face back.
_CELLS = 5
_REDACT_MARGIN = 0.2


def redact(image: Image, box: tuple[float, float, float, float]) -> None:
    """Make a face unrecognisable, in place: the enlarged box becomes averages of at most 5×5 cells, blended softly.

    What is written holds no more of the face than those averages, so it cannot be undone.
    """
    x1, y1, x2, y2 = box
    margin = _REDACT_MARGIN * max(x2 - x1, y2 - y1) + 2
    left, top, right, bottom = _clipped(image, x1 - margin, y1 - margin, x2 + margin, y2 + margin)
    if right <= left or bottom <= top:
        return
    region = image[top:bottom, left:right]
    height, width = region.shape[:2]
    longer = max(width, height)
    cells = (max(1, min(width, round(_CELLS * width / longer))), max(1, min(height, round(_CELLS * height / longer))))
    coarse = cv2.resize(region, cells, interpolation=cv2.INTER_AREA)
    region[:] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def _draw_boxes(image: Image, faces: Sequence[Face], task: Task) -> None:
    height, width = image.shape[:2]
    unit = max(height, width) / 1000
    boxes = [_clipped(image, face.x1, face.y1, face.x2, face.y2) for face in faces]
    # The last faces first, so that the best lie on top where boxes overlap.
    for face, box in reversed(list(zip(faces, boxes, strict=True))):
        side = max(box[2] - box[0], box[3] - box[1])
        _frame(image, box, task.look(face.label), _line_width(unit, side))
    taken: list[Box] = []
    for face, box in zip(faces, boxes, strict=True):
        chip, x, y = _labelled(face, task.look(face.label), box, unit, [*taken, *boxes], width, height)
        shown = image[y : y + chip.shape[0], x : x + chip.shape[1]]
        shown[:] = chip[: shown.shape[0], : shown.shape[1]]
        taken.append((x, y, x + chip.shape[1], y + chip.shape[0]))


def _labelled(
    face: Face, look: Look, box: Box, unit: float, taken: Sequence[Box], width: int, height: int
) -> tuple[Image, int, int]:
    """The longest label that finds a free place beside its box, and that place; in a crowd the letter of the class alone."""
    percent = 100 if face.confidence >= 0.995 else min(99, int(face.confidence * 100))
    size = _text_size(box, unit)
    number = "" if face.track is None else f"#{face.track} "
    for text in (f"{number}{look.word} {percent}%", f"{number}{look.letter} {percent}", f"{number}{look.letter}"):
        chip = _chip(text, size, look.colour)
        (x, y), covered = _place(chip.shape[1], chip.shape[0], box, taken, width, height)
        if covered == 0:
            break
    return chip, x, y


def _line_width(unit: float, side: int) -> int:
    # Thick enough for the image, yet no more than a tenth of a small face.
    return max(1, min(round(2.6 * unit), round(side / 10)))


def _frame(image: Image, box: Box, look: Look, line: int) -> None:
    """Rings around the box, in colour between two dark ones, so that the face stays free and the frame shows on any ground."""
    edge = max(1, line // 2)
    widths = [(edge, _BLACK), (line, look.colour), (edge, _BLACK)]
    if look.line == "double":
        widths.append((line, look.colour))
    at = 0
    for width, colour in widths:
        _ring(image, box, at, width, colour)
        at += width
    if look.line == "dashed":
        _gaps(image, box, edge, line)


def _ring(image: Image, box: Box, away: int, width: int, colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = box[0] - away, box[1] - away, box[2] + away, box[3] + away
    _fill(image, left - width, top - width, right + width, top, colour)
    _fill(image, left - width, bottom, right + width, bottom + width, colour)
    _fill(image, left - width, top, left, bottom, colour)
    _fill(image, right, top, right + width, bottom, colour)


def _gaps(image: Image, box: Box, away: int, line: int) -> None:
    """Dark gaps in the coloured ring, as long as the dashes between them; the corners stay."""
    left, top, right, bottom = box[0] - away, box[1] - away, box[2] + away, box[3] + away
    for start, stop in _gap_ends(left, right, line):
        _fill(image, start, top - line, stop, top, _BLACK)
        _fill(image, start, bottom, stop, bottom + line, _BLACK)
    for start, stop in _gap_ends(top, bottom, line):
        _fill(image, left - line, start, left, stop, _BLACK)
        _fill(image, right, start, right + line, stop, _BLACK)


def _gap_ends(low: int, high: int, line: int) -> list[tuple[int, int]]:
    count = max(3, round((high - low) / max(4, 4 * line))) | 1
    at = [round(edge) for edge in np.linspace(low, high, count + 1)]
    return [(at[index], at[index + 1]) for index in range(1, count, 2)]


def _fill(image: Image, left: int, top: int, right: int, bottom: int, colour: tuple[int, int, int]) -> None:
    image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = colour


def _text_size(box: Box, unit: float) -> int:
    """Pixels: readable in the image as a whole, smaller on a small face, never below what can be read."""
    return int(np.clip(min(20 * unit, 0.4 * (box[3] - box[1]) + 6), 11, 20 * max(unit, 0.6)))


@lru_cache(maxsize=1024)
def _chip(text: str, size: int, colour: tuple[int, int, int]) -> Image:
    """Black text on the class's colour, with a dark edge."""
    font = _font()
    pad = max(2, size // 5)
    canvas = np.full((size * 3, size * (len(text) + 4), 3), colour, np.uint8)
    end, _ = cv2.putText(canvas, text, (pad + 1, size * 2), _BLACK, font, size, 600)
    # Cut to the capitals' height and the descender, the same for all texts of a size.
    top, bottom = size * 2 - round(size * 0.76) - pad, size * 2 + round(size * 0.18) + pad
    chip: Image = np.ascontiguousarray(canvas[top:bottom, : end[0] + pad + 1])
    cv2.rectangle(chip, (0, 0), (chip.shape[1] - 1, chip.shape[0] - 1), _BLACK, 1)
    chip.setflags(write=False)
    return chip


@lru_cache(maxsize=1)
def _font() -> Any:
    return cv2.FontFace("sans")


def _place(
    chip_w: int, chip_h: int, box: Box, taken: Sequence[Box], width: int, height: int
) -> tuple[tuple[int, int], float]:
    """Where a label goes and how many taken pixels it covers there: above its box, below, right or left of it."""
    left, top, right, bottom = box
    gap = 5
    candidates = [
        (left - gap, top - chip_h - gap),
        (left - gap, bottom + gap),
        (right - chip_w + gap, top - chip_h - gap),
        (right - chip_w + gap, bottom + gap),
        (right + gap, top),
        (left - chip_w - gap, top),
    ]
    best, least = (0, 0), float("inf")
    for x, y in candidates:
        x0, y0 = max(0, min(x, width - chip_w)), max(0, min(y, height - chip_h))
        covered = sum(_overlap((x0, y0, x0 + chip_w, y0 + chip_h), other) for other in taken)
        if covered < least:
            best, least = (x0, y0), covered
        if covered == 0:
            break
    return best, least


def _overlap(a: Box, b: Box) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _clipped(image: Image, x1: float, y1: float, x2: float, y2: float) -> Box:
    """Whole pixels that cover the box, inside the image."""
    height, width = image.shape[:2]
    edges = np.nan_to_num(np.array([np.floor(x1), np.floor(y1), np.ceil(x2), np.ceil(y2)]), posinf=1e9, neginf=-1e9)
    left, right = (int(np.clip(edge, 0, width)) for edge in edges[[0, 2]])
    top, bottom = (int(np.clip(edge, 0, height)) for edge in edges[[1, 3]])
    return left, top, right, bottom
