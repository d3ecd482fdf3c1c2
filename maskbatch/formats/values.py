"""Values as formats write and read them."""

from __future__ import annotations

import datetime as dt
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskbatch.errors import UsageError
from maskbatch.formats.base import Box

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""Names of the landmarks, in order; left and right as seen in the image."""


def box_of(row: Mapping[str, Any]) -> Box:
    """The box of a row of the results: x1, y1, x2, y2 in pixels."""
    return float(row["x1"]), float(row["y1"]), float(row["x2"]), float(row["y2"])


def number(value: float) -> float:
    """Rounded to a hundredth: of a pixel, more than any detector tells."""
    return round(float(value), 2)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as JSON can hold it: without what is null or NaN, times in ISO 8601."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dt.datetime):
            found[key] = value.isoformat().replace("+00:00", "Z")
        elif isinstance(value, Mapping):
            inner = plain(value)
            if inner:
                found[key] = inner
        elif isinstance(value, float):
            if math.isfinite(value):
                found[key] = round(value, 6)
        elif value is not None:
            found[key] = value
    return found


def read_json(path: Path) -> Any:
    """A JSON file. Raises UsageError."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None


def read_xml(path: Path) -> ET.Element:
    """The root of an XML file. Entities are refused: a small file could grow without bounds. Raises UsageError."""
    try:
        data = path.read_bytes()
        if b"<!ENTITY" in data:
            raise ValueError("it declares entities")
        return ET.fromstring(data)
    except (OSError, ValueError, ET.ParseError) as error:
        raise UsageError(f"{path} cannot be read as XML: {error}") from None


def xml_text(text: str) -> str:
    """Text without the characters that XML cannot hold, not even escaped."""
    return "".join(
        char if char in "\t\n\r" or (char >= " " and char not in "\ufffe\uffff") else "\ufffd" for char in text
    )


def add_elements(parent: ET.Element, values: Mapping[str, Any]) -> None:
    """Child elements by name, each with a value as its text."""
    for key, value in values.items():
        ET.SubElement(parent, key).text = xml_text(str(value))
