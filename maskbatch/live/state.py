"""What the page and monitors see of a watch: plain values, JSON-ready, with nothing secret in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskbatch.draw.faces import Face, Style, show_faces
from maskbatch.draw.images import encode_picture
from maskbatch.tasks import Task
from maskbatch.types import Image


@dataclass(frozen=True, slots=True)
class CameraView:
    """One camera; times are POSIX seconds. `people` are those seen in the last seconds, `today` faces since midnight there."""

    name: str
    address: str
    state: str
    since: float
    reason: str
    connects: int
    frames: int
    samples: int
    dropped: int
    failed: int
    latency_s: float
    shown_at: float | None
    people: dict[str, int]
    today: dict[str, int]


@dataclass(frozen=True, slots=True)
class View:
    """The watch as a whole."""

    labels: tuple[str, ...]
    headline: str
    cameras: tuple[CameraView, ...]
    events: tuple[dict[str, Any], ...]
    event_count: dict[str, int]
    suppressed: int
    rows: int
    commit_error: str
    webhook_failed: int
    started: float
    at: float

    @property
    def healthy(self) -> bool:
        """Every camera is seen and the table can be written."""
        return not self.commit_error and all(camera.state == "live" for camera in self.cameras)


def last_frame(image: Image, faces: Sequence[Face], task: Task, *, show_faces: bool) -> bytes:
    """A frame with boxes as JPEG; its faces are blurred unless `show_faces`."""
    copy = image.copy()
    draw(copy, faces, Style(redact=not show_faces, task=task))
    return encode_picture(copy, ".jpg", 80)


draw = show_faces


def metrics(view: View) -> str:
    """Prometheus text format, version 0.0.4."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, values: Sequence[tuple[dict[str, str], float]]) -> None:
        lines.append(f"# HELP maskbatch_{name} {text}")
        lines.append(f"# TYPE maskbatch_{name} {kind}")
        for labels, value in values:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"maskbatch_{name}{{{inside}}} {value:g}" if inside else f"maskbatch_{name} {value:g}")

    cameras = view.cameras
    family("camera_up", "gauge", "1 while frames come.", [({"camera": c.name}, c.state == "live") for c in cameras])
    for name, text in (
        ("connects", "Connections that gave a frame."),
        ("samples", "Frames that were looked at."),
        ("dropped", "Samples dropped since the models were busy."),
        ("failed", "Packets that could not be decoded."),
    ):
        family(f"{name}_total", "counter", text, [({"camera": c.name}, getattr(c, name)) for c in cameras])
    family(
        "latency_seconds",
        "gauge",
        "From a decoded frame to its rows.",
        [({"camera": c.name}, c.latency_s) for c in cameras],
    )
    for name, text in (("people", "People seen in the last seconds."), ("today", "Faces since midnight.")):
        values = [({"camera": c.name, "label": n}, getattr(c, name).get(n, 0)) for c in cameras for n in view.labels]
        family(f"{name}", "gauge", text, values)
    family("events_total", "counter", "Events told.", [({"event": k}, v) for k, v in sorted(view.event_count.items())])
    family("events_suppressed_total", "counter", "Alarms in a cooldown.", [({}, view.suppressed)])
    family("rows_committed", "gauge", "Rows of the result.", [({}, view.rows)])
    family("webhook_failed_total", "counter", "Events that could not be delivered.", [({}, view.webhook_failed)])
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
