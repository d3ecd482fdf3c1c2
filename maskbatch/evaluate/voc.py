"""Pascal VOC annotations: the one parser that evaluation and the training package share."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class VocObject:
    """One object of an annotation.

    Attributes:
        name: its label as the data set spells it.
        box: ``x1 y1 x2 y2`` in pixels; NaN where a corner is missing or not a number.
        difficult: marked so by the annotators.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool

    @property
    def has_box(self) -> bool:
        """Whether all corners are numbers."""
        return all(math.isfinite(value) for value in self.box)


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """One annotation file: width and height as it states them (text, or None), and its objects."""

    size: tuple[str | None, str | None]
    objects: tuple[VocObject, ...]


def read_voc(path: Path) -> VocAnnotation:
    """Read ``annotations/NAME.xml``.

    Raises:
        ValueError: the file is not well-formed XML.
        OSError: it cannot be read.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ValueError(str(error)) from error
    objects = []
    for item in root.iter("object"):
        x1, y1, x2, y2 = (_number(item.findtext(f"bndbox/{corner}")) for corner in CORNERS)
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        objects.append(VocObject(item.findtext("name") or "", (x1, y1, x2, y2), difficult))
    return VocAnnotation((root.findtext("size/width"), root.findtext("size/height")), tuple(objects))


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
