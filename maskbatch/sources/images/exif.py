"""The few Exif tags that are used: which way up an image is, and when it was taken (Exif 2.32, tables 4 and 7)."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Mapping
from dataclasses import dataclass

ORIENTATION = 274
EXIF_DIRECTORY = 34665
_DATE_TIME_ORIGINAL = 36867
_OFFSET_TIME_ORIGINAL = 36881
_SUBSECOND_ORIGINAL = 37521
_TEXTS = frozenset({_DATE_TIME_ORIGINAL, _OFFSET_TIME_ORIGINAL, _SUBSECOND_ORIGINAL})
_MAX_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class Exif:
    """What an image's metadata say.

    Attributes:
        orientation: 1 to 8; 1 where nothing is said.
        taken_at: when it was taken, ISO 8601; without an offset where the camera wrote none, which is the rule.
    """

    orientation: int = 1
    taken_at: str | None = None


NO_EXIF = Exif()


def read_exif(tiff: bytes) -> Exif:
    """Read an Exif block: a TIFF header, its first directory and the Exif directory. What makes no sense is left out."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return NO_EXIF
    first = _directory(tiff, order, struct.unpack_from(order + "I", tiff, 4)[0])
    where = first.get(EXIF_DIRECTORY)
    more = _directory(tiff, order, where) if isinstance(where, int) else {}
    return from_tags(first, more)


def from_tags(first: Mapping[int, object], more: Mapping[int, object]) -> Exif:
    """From the tags of the first and of the Exif directory, read by whom ever."""
    orientation = first.get(ORIENTATION)
    if not isinstance(orientation, int) or not 1 <= orientation <= 8:
        orientation = 1
    return Exif(orientation, _taken_at(more))


def _directory(tiff: bytes, order: str, start: int) -> dict[int, int | str]:
    found: dict[int, int | str] = {}
    if start + 2 > len(tiff):
        return found
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, start + 2 + 12 * min(count, _MAX_ENTRIES), 12):
        if at + 12 > len(tiff):
            break
        tag, kind, number = struct.unpack_from(order + "HHI", tiff, at)
        if tag in (ORIENTATION, EXIF_DIRECTORY) and number == 1 and kind in (3, 4):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, at + 8)
        elif tag in _TEXTS and kind == 2 and 0 < number <= 64:
            place = at + 8 if number <= 4 else struct.unpack_from(order + "I", tiff, at + 8)[0]
            found[tag] = tiff[place : place + number].split(b"\0")[0].decode("ascii", "replace")
    return found


def _taken_at(tags: Mapping[int, object]) -> str | None:
    text = _text(tags.get(_DATE_TIME_ORIGINAL))
    try:
        moment = dt.datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
    except ValueError:  # a camera whose clock was never set writes zeros or blanks
        return None
    digits = _text(tags.get(_SUBSECOND_ORIGINAL))
    if digits.isascii() and digits.isdigit():
        moment = moment.replace(microsecond=int(digits[:6].ljust(6, "0")))
    stamp, offset = moment.isoformat(), _text(tags.get(_OFFSET_TIME_ORIGINAL))
    try:
        return dt.datetime.fromisoformat(stamp + offset).isoformat()
    except ValueError:
        return stamp


def _text(value: object) -> str:
    return value.strip("\0 ") if isinstance(value, str) else ""
