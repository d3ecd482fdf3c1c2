"""Three ways to show a scan's progress. All write to standard error, so that standard output stays clean for `--json`."""

from __future__ import annotations

import json
import sys
import time
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from maskbatch.scanning.progress import Progress, Reporter, SilentReporter

ProgressStyle = Literal["auto", "bar", "text", "jsonl", "none"]
TEXT_EVERY_S = 10.0
JSON_EVERY_S = 1.0
_SHORT = {"with_mask": "with", "without_mask": "without", "mask_weared_incorrect": "incorrect"}


def printable(text: str) -> str:
    """`text` without control characters: a file name must not steer a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def shorter(label: str) -> str:
    """A label as the head of a narrow column."""
    return _SHORT.get(label, label)


def make_reporter(style: ProgressStyle) -> Reporter:
    """The reporter of this style; `auto` is a bar on a terminal and lines elsewhere."""
    if style == "auto":
        style = "bar" if sys.stderr.isatty() else "text"
    if style == "bar":
        return BarReporter()
    if style == "jsonl":
        return JsonReporter()
    return TextReporter() if style == "text" else SilentReporter()


def describe(state: Progress) -> str:
    """Rate, faces by class, errors and time left in one line."""
    elapsed = max(state.elapsed_s, 1e-6)
    if state.counts == "drawn":
        parts = ["drawing", f"{state.moved / elapsed:.0f} frames/s"]
    else:
        parts = [f"{state.frames / elapsed:.1f} frames/s", f"{state.faces} faces"]
    labels = ", ".join(f"{shorter(label)} {count}" for label, count in state.labels.items() if count)
    if labels:
        parts[-1] += f" ({labels})"
    if state.errors or state.partial:
        parts.append(f"{state.errors} errors, {state.partial} partial")
    left = state.seconds_left
    if left is not None and state.pieces_done < state.pieces:
        parts.append(f"{clock(left)} left")
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class BarReporter:
    """A Rich progress bar, for a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("discover", total=None, line="")
        self._bar.start()

    def phase(self, name: str) -> None:
        """See `Reporter`."""
        self._bar.update(self._task, description=name)

    def progress(self, state: Progress) -> None:
        """See `Reporter`."""
        self._bar.update(
            self._task, total=state.pieces, completed=min(state.pieces_done, state.pieces), line=describe(state)
        )

    def note(self, text: str) -> None:
        """See `Reporter`."""
        self._console.print(f"[yellow]note:[/yellow] {escape(printable(text))}")

    def close(self) -> None:
        """See `Reporter`."""
        self._bar.stop()


class TextReporter:
    """A line now and then, for logs."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def phase(self, name: str) -> None:
        """See `Reporter`."""

    def progress(self, state: Progress) -> None:
        """See `Reporter`."""
        now = time.monotonic()
        if now - self._last >= TEXT_EVERY_S or state.pieces_done == state.pieces > 0:
            self._last = now
            print(f"{state.pieces_done}/{state.pieces} · {describe(state)}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """See `Reporter`."""
        print(f"note: {printable(text)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """See `Reporter`."""


class JsonReporter:
    """A JSON object per line, for programs."""

    def __init__(self) -> None:
        self._last = 0.0

    def phase(self, name: str) -> None:
        """See `Reporter`."""
        self._emit({"event": "phase", "phase": name})

    def progress(self, state: Progress) -> None:
        """See `Reporter`."""
        now = time.monotonic()
        if now - self._last >= JSON_EVERY_S or state.pieces_done == state.pieces:
            self._last = now
            fields = (
                "inputs",
                "pieces",
                "pieces_done",
                "resumed",
                "bytes",
                "bytes_done",
                "frames",
                "faces",
                "labels",
                "partial",
                "moved",
            )
            values = {name: getattr(state, name) for name in fields}
            self._emit({"event": "progress", **values, "errors": state.errors, "elapsed_s": round(state.elapsed_s, 2)})

    def note(self, text: str) -> None:
        """See `Reporter`."""
        self._emit({"event": "note", "text": text})

    def close(self) -> None:
        """See `Reporter`."""

    @staticmethod
    def _emit(event: dict[str, object]) -> None:
        print(json.dumps(event), file=sys.stderr, flush=True)
