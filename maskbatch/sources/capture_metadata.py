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
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from maskbatch.config import CaptureMetadata
from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch.sources.file_names import EARLIEST, NEEDED, NameFacts, in_future, moment, read_name
from maskbatch.types import Source

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
    "s": r"(?<!\d)(?P<epoch>\d{13}|\d{9,10})(?!\d)",
    "%": "%",
}


UNKNOWN = "unknown"


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
        self.clocks: Counter[str] = Counter()
        self.cameras: Counter[str] = Counter()
        """Inputs by where their time and their camera come from."""
        self.matched = 0
        """Names that ``--time-pattern`` matched so far."""
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
        start, clock = entry.start_time, "manifest"
        if start is None and source.media == "video":
            start, clock = self._start, "--start-time"
        camera, place = entry.camera, "manifest"
        if camera is None:
            camera, place = self._camera, "--camera"
        remark = None
        if camera is None or start is None:
            named = self._from_name(source)
            if camera is None:
                camera, place = named.camera, "name"
            if start is None:
                start, clock, remark = named.start_time, "name", named.remark
        self.clocks[clock if start is not None else UNKNOWN] += 1
        self.cameras[place if camera is not None else UNKNOWN] += 1
        return replace(source, camera=camera, start_time=start, remark=remark)

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

    def _from_name(self, source: Source) -> NameFacts:
        named = read_name(source.name, self._zone, video=source.media == "video")
        match = None
        if self._pattern is not None:
            match = self._pattern.search(source.name if self._in_path else source.name.rpartition("/")[2])
        if match is None:
            return named
        self.matched += 1
        groups = match.groupdict()
        start, remark = moment(groups, self._zone), None
        if start is not None and in_future(start):
            start, remark = None, f"--time-pattern gives a time in the future for {match.group()}, which is not used"
        if start is None and remark is None:
            start, remark = named.start_time, named.remark
        return NameFacts(groups.get("camera") or named.camera, start, remark)


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
    return moment.timestamp() if moment >= EARLIEST and not in_future(moment.timestamp()) else None


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
    complete = groups >= NEEDED and ("year" in groups or "year2" in groups)
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
