"""The file of corrections beside a result, ``results.corrections.csv``: it is only added to.

A record is one line, so that a torn last line spoils no other. Text is escaped with a backslash where it would break a line, or where a
spreadsheet would take it for a formula.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from maskbatch.errors import UsageError
from maskbatch.results.corrections import Correction
from maskbatch.storage.atomic import as_output_error, default_ops, make_folder, sync_folder

_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\0": "0"}
_UNESCAPES = {code: char for char, code in _ESCAPES.items()}
_FORMULA = "=+-@"


COLUMNS = ("source", "sha256", "frame", "time_s", "x1", "y1", "x2", "y2", "action", "label", "by", "at", "origin")
"""Of the log, in order."""


class CorrectionLog:
    """See the module.

    Args:
        path: ``results.corrections.csv``; made with the first record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, corrections: Sequence[Correction]) -> None:
        """Add records; when this returns they are on the disk.

        Raises:
            OutputError: they cannot be written; none of them counts.
        """
        if not corrections:
            return
        data = b"".join(_line(_record(correction)) for correction in corrections)
        with as_output_error(self.path):
            make_folder(self.path.parent, default_ops)
            is_new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # two pages, or a page and an import, may write at once
                size = _whole_size(descriptor)
                os.ftruncate(descriptor, size)  # a torn last line was never acknowledged
                written = data if size else _line(COLUMNS) + data
                try:
                    _write_all(descriptor, written)
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                sync_folder(self.path.parent, default_ops)

    def read(self) -> list[Correction]:
        """All records in order; of a file that does not exist, none.

        Raises:
            UsageError: the file cannot be read, or a line of it is not a correction.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from None
        whole = data[: data.rfind(b"\n") + 1].decode("utf-8", "replace").removeprefix("\ufeff")
        rows = csv.reader(line for line in whole.replace("\r\n", "\n").split("\n") if line)
        header = next(rows, None)
        if header is None:
            return []
        if missing := [name for name in ("source", "x1", "y1", "x2", "y2", "action") if name not in header]:
            raise UsageError(f"{self.path}: not a file of corrections, it has no column {', '.join(missing)}")
        return [self._parsed(number, dict(zip(header, row, strict=False))) for number, row in enumerate(rows, 2)]

    def _parsed(self, number: int, row: dict[str, str]) -> Correction:
        text = {name: _unescaped(value) for name, value in row.items()}
        try:
            x1, y1, x2, y2 = (float(text[name]) for name in ("x1", "y1", "x2", "y2"))
            return Correction(
                text["source"],
                (x1, y1, x2, y2),
                text["action"],  # type: ignore[arg-type]  # checked by Correction
                text.get("label", ""),
                int(text["frame"]) if text.get("frame") else None,
                float(text["time_s"]) if text.get("time_s") else None,
                *(text.get(name, "") for name in ("sha256", "by", "at", "origin")),
            )
        except (ValueError, KeyError, UsageError) as error:
            raise UsageError(f"{self.path}, line {number}: not a correction ({error})") from None


def _record(correction: Correction) -> tuple[str, ...]:
    time_s = "" if correction.time_s is None else repr(float(correction.time_s))
    frame = "" if correction.frame is None else str(correction.frame)
    box = tuple(f"{value:.2f}" for value in correction.box)
    texts = [_escaped(text) for text in (correction.label, correction.by, correction.at, correction.origin)]
    return (_escaped(correction.source), correction.sha256, frame, time_s, *box, correction.action, *texts)


def _line(values: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\")
    text = "".join(f"\\{_ESCAPES[char]}" if char in _ESCAPES else char for char in text)
    return f"\\{text}" if text[:1] and text[0] in _FORMULA else text


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _UNESCAPES.get(found[1], found[1]), text)


def _whole_size(descriptor: int) -> int:
    """Bytes up to the end of the last whole line."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - 65536)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
