"""When and where: `camera` and the wall-clock time of a file's first frame.

Asked in this order, and for each of the two on its own: the manifest; ``--camera`` and ``--start-time``; ``--time-pattern``;
the built-in patterns. The time in a file's own metadata is the last resort (`PieceResult.started_at`: a container's creation time,
an image's Exif), the folder that of the camera.
"""

from __future__ import annotations

import csv
import datetime as dt
import os
import re
import zoneinfo
from dataclasses import dataclass, replace
from pathlib import Path

from maskbatch.config import CaptureMetadata
from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch.types import Source

_EARLIEST = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
_LATEST = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)

# A date and a time of day next to each other, with or without separators: 20240312_140000, 2024-03-12 14.00.00,
# 20240312T140000.250Z, 20240312140000123. What follows an offset's sign must not be the digits of a second time.
_STAMP = re.compile(
    r"""(?<!\d)
    (?P<year>(?:19|20)\d\d) (?P<ds>[-_.]?) (?P<month>\d\d) (?P=ds) (?P<day>\d\d)
    (?P<gap>[T_\-\ .+,]{0,3}|\ at\ |\ ?-\ )
    (?P<hour>\d\d) (?P<ts>[-_.:h꞉]?) (?P<minute>\d\d) (?:(?:(?P=ts)|m) (?P<second>\d\d))
    (?:[.,](?P<fraction>\d{1,6})(?=\D|$) | (?P<millis>\d{3})(?!\d))?
    (?P<offset>Z|(?<=\d)[+](?:0\d|1[0-4]):?[0-5]\d(?!\d)|(?<=\d)-(?:0\d|1[0-4]):?(?:00|30|45)(?!\d))?
    (?!\d)""",
    re.VERBOSE | re.IGNORECASE,
)
# Dahua and others: the date is a folder, the file is named by its time (2024-03-12/001/dav/14/14.00.00-15.00.00[R].dav).
_FOLDER_DATE = re.compile(
    r"""(?:^|/) [^/]*? (?<!\d)(?P<year>(?:19|20)\d\d)[-_.]?(?P<month>\d\d)[-_.]?(?P<day>\d\d)(?!\d) [^/]*/ (?:[^/]+/)*
    (?P<prefix>[^/\d]*) (?P<hour>\d\d)(?P<ts>[-_.:]?)(?P<minute>\d\d)(?P=ts)(?P<second>\d\d)(?!\d)[^/]*$""",
    re.VERBOSE,
)
_CAMERA_WORD = re.compile(r"(?<![a-z])(?:cam(?:era)?|ch(?:annel|an)?|ipc)[ _-]?\d+", re.IGNORECASE)
_NO_CAMERA = frozenset(
    [
        "video",
        "videos",
        "vid",
        "clip",
        "clips",
        "rec",
        "record",
        "recording",
        "recordings",
        "footage",
        "win",
        "pxl",
        "img",
        "image",
        "images",
        "mvi",
        "mov",
        "movie",
        "dav",
        "main",
        "sub",
        "stream",
        "mainstream",
        "substream",
        "media",
        "archive",
        "export",
        "out",
        "data",
        "cctv",
        "nvr",
        "dvr",
        "screenshot",
        "snapshot",
        "snapshots",
        "jpegimages",
        "dcim",
        "picture",
        "pictures",
        "pics",
        "photo",
        "photos",
        "frames",
        "train",
        "val",
        "test",
    ]
)
_TAIL_WORDS = frozenset({"main", "sub", "mainstream", "substream", "stream", "rec", "record", "rotating"})
_DIRECTIVES = {
    "Y": r"(?P<year>\d{4})",
    "y": r"(?P<year2>\d\d)",
    "m": r"(?P<month>\d\d)",
    "d": r"(?P<day>\d\d)",
    "H": r"(?P<hour>\d\d)",
    "M": r"(?P<minute>\d\d)",
    "S": r"(?P<second>\d\d)",
    "f": r"(?P<fraction>\d{1,6})",
    "z": r"(?P<offset>Z|[+-]\d\d:?\d\d)",
    "s": r"(?P<epoch>\d{9,11})",
    "%": "%",
}
_NEEDED = frozenset({"month", "day", "hour", "minute"})


@dataclass(frozen=True, slots=True)
class _Entry:
    camera: str | None
    start_time: float | None


class CaptureMetadataRules:
    """The rules of one run, read and checked once.

    Raises:
        UsageError: unknown time zone, bad pattern, bad time, or a bad manifest (with the number of its row).
        InputNotFoundError: the manifest does not exist.
    """

    def __init__(self, capture: CaptureMetadata) -> None:
        self._zone = capture_zone(capture.timezone)
        self._camera = capture.camera or None
        self._start = None
        if capture.start_time:
            self._start = _iso(capture.start_time, self._zone, "--start-time")
        self._pattern = compile_pattern(capture.time_pattern) if capture.time_pattern else None
        self._in_path = bool(capture.time_pattern and "/" in capture.time_pattern)
        self._manifest: dict[str, _Entry] = {}
        self._used: set[str] = set()
        self._base = ""
        if capture.manifest is not None:
            self._base = os.path.abspath(capture.manifest.parent)  # noqa: PTH100  (links stay as they are)
            self._manifest = _read_manifest(capture.manifest, self._zone)

    def apply(self, source: Source) -> Source:
        """The source with `camera` and `start_time` (POSIX seconds, UTC) as far as they can be known."""
        entry = self._entry(source)
        camera = entry.camera or self._camera
        start = entry.start_time
        if start is None and source.media == "video":
            start = self._start
        if camera is None or start is None:
            named_camera, named_start = self._from_name(source)
            camera = camera or named_camera
            start = named_start if start is None else start
        return replace(source, camera=camera, start_time=start)

    def unused(self) -> list[str]:
        """Paths in the manifest that no source had so far: misspelt ones, most likely."""
        return [path for path in self._manifest if path not in self._used]

    def _entry(self, source: Source) -> _Entry:
        if self._manifest:
            names = [source.name, source.path]
            if "://" not in source.path:
                names.append(os.path.relpath(source.path, self._base))
            for name in names:
                key = _normal(name)
                if key in self._manifest:
                    self._used.add(key)
                    return self._manifest[key]
        return _Entry(None, None)

    def _from_name(self, source: Source) -> tuple[str | None, float | None]:
        camera: str | None = None
        start: float | None = None
        if self._pattern is not None:
            match = self._pattern.search(source.name if self._in_path else source.name.rpartition("/")[2])
            if match is not None:
                start = _moment(match, self._zone)
                camera = match.groupdict().get("camera") or None
        found_camera, found_start = _built_in(source.name, self._zone)
        start = found_start if start is None else start
        camera = camera or found_camera
        if camera is None:
            camera = _folder_camera(source.name)
        return camera, start


def plausible_iso(text: str, zone: dt.tzinfo = dt.UTC) -> float | None:
    """POSIX seconds of an ISO 8601 time (without an offset: in `zone`); None if it is none, or one of a clock never set.

    Recorders without a clock write the epoch of their format (1904, 1970) or 1980.
    """
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return moment.timestamp() if _EARLIEST <= moment < _LATEST else None


def compile_pattern(text: str) -> re.Pattern[str]:
    """The regular expression of a ``--time-pattern``.

    Either a template of ``%Y %m %d %H %M %S %f %y %z %s`` (as in strptime; ``%s`` is seconds since 1970), ``{camera}`` and ``*``;
    or a regular expression with the named groups ``year month day hour minute second fraction offset epoch camera``.
    A pattern with a ``/`` is searched in the whole path, any other in the file name.

    Raises:
        UsageError: it is neither, or does not give date and time.
    """
    expression = text if "(?P<" in text else _template(text)
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UsageError(f"--time-pattern {text!r} cannot be read: {error}") from error
    groups = set(pattern.groupindex)
    complete = groups >= _NEEDED and ("year" in groups or "year2" in groups)
    if not complete and "epoch" not in groups and groups != {"camera"}:
        raise UsageError(
            f"--time-pattern {text!r} does not give a date and a time; an example is '{{camera}}_%Y%m%d_%H%M%S'"
        )
    return pattern


def _template(text: str) -> str:
    parts: list[str] = []
    at = 0
    while at < len(text):
        if text.startswith("{camera}", at):
            parts.append(r"(?P<camera>[^/]+?)")
            at += len("{camera}")
        elif text[at] == "%":
            directive = text[at + 1 : at + 2]
            if directive not in _DIRECTIVES:
                known = " ".join(f"%{key}" for key in _DIRECTIVES if key != "%")
                raise UsageError(f"--time-pattern {text!r}: %{directive} is not known; there are {known}")
            parts.append(_DIRECTIVES[directive])
            at += 2
        else:
            parts.append(".*?" if text[at] == "*" else re.escape(text[at]))
            at += 1
    return "".join(parts)


def _built_in(name: str, zone: dt.tzinfo) -> tuple[str | None, float | None]:
    stem = name.rpartition("/")[2]
    stem = stem.rpartition(".")[0] or stem
    for match in _STAMP.finditer(stem):
        start = _moment(match, zone)
        if start is not None:
            return _camera_before(stem[: match.start()]) or _camera_word(stem[match.end() :]), start
    match_path = _FOLDER_DATE.search(name)
    if match_path is not None:
        start = _moment(match_path, zone)
        if start is not None:
            return _camera_before(match_path.group("prefix")), start
    return _camera_word(stem), None


def _camera_before(prefix: str) -> str | None:
    """The camera's name in front of a time: ``cam03_``, ``192.168.1.64_01_``, ``NVR_ch1_main_``."""
    words = re.split(r"([ _\-.\[\]()]+)", prefix)
    while words and (not words[-1].strip(" _-.[]()") or words[-1].lower() in _TAIL_WORDS):
        words.pop()
    camera = "".join(words).strip(" _-.[]()")
    return None if not camera or camera.lower() in _NO_CAMERA else camera


def _camera_word(text: str) -> str | None:
    match = _CAMERA_WORD.search(text)
    return match.group() if match else None


def _folder_camera(name: str) -> str | None:
    """The nearest folder that is neither a date, a number, nor a general word."""
    for folder in reversed(name.split("/")[:-1]):
        if re.search(r"[^\W\d_]", folder) and folder.lower() not in _NO_CAMERA and not _STAMP.search(folder):
            return folder
    return None


def _moment(match: re.Match[str], zone: dt.tzinfo) -> float | None:
    """POSIX seconds of a pattern's groups; None for numbers that are not date (month 13)."""
    found = {key: value for key, value in match.groupdict().items() if value}
    if "epoch" in found:
        return float(found["epoch"])
    if not found.keys() >= _NEEDED:
        return None
    year = int(found["year"]) if "year" in found else 2000 + int(found.get("year2", "0"))
    fraction = found.get("fraction") or found.get("millis") or "0"
    offset = found.get("offset")
    try:
        moment = dt.datetime(
            year,
            int(found["month"]),
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            int(found.get("second", "0")),
            int(fraction.ljust(6, "0")),
            tzinfo=zone if offset is None else _offset(offset),
        )
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _offset(text: str) -> dt.tzinfo:
    if text in "Zz":
        return dt.UTC
    digits = text[1:].replace(":", "")
    delta = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return dt.timezone(-delta if text[0] == "-" else delta)


def capture_zone(name: str) -> dt.tzinfo:
    """The zone in which times without an offset are read; raises UsageError for a name that is none."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"--timezone {name!r} is not a time zone; write one as in Europe/Berlin or UTC") from error


def _iso(text: str, zone: dt.tzinfo, where: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return moment.timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{where}: {text!r} is not a time; write it as in 2024-03-12T14:00:00") from error


def _normal(name: str) -> str:
    if "://" in name:
        return name
    return os.path.normpath(name.replace("\\", "/"))


def _read_manifest(path: Path, zone: dt.tzinfo) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = [(name or "").strip() for name in rows.fieldnames or []]
            rows.fieldnames = columns
            if "path" not in columns or not {"camera", "start_time"} & set(columns):
                raise UsageError(
                    f"manifest {path}: the first row must name the columns path,camera,start_time, not {','.join(columns)!r}"
                )
            for row in rows:
                where = f"manifest {path}, row {rows.line_num}"
                name = (row.get("path") or "").strip()
                if None in row or None in row.values():
                    raise UsageError(f"{where}: {len(columns)} columns are expected ({','.join(columns)})")
                if not name:
                    raise UsageError(f"{where}: the path is empty")
                key = _normal(name)
                if key in entries:
                    raise UsageError(f"{where}: {name} has a row already")
                start = (row.get("start_time") or "").strip()
                entries[key] = _Entry(
                    (row.get("camera") or "").strip() or None, _iso(start, zone, where) if start else None
                )
    except FileNotFoundError as error:
        raise InputNotFoundError(f"the manifest {path} does not exist") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"the manifest {path} cannot be read as a CSV file in UTF-8: {error}") from error
    return entries
