"""What a scan is told to do: frozen dataclasses, grouped by who reads them.

Two kinds of settings are kept apart. Those of `Detection`, `Sampling` and `Limits` decide *what is in the rows*; they are
part of the work folder's key, and a resumed run must have the same ones. All others decide only how fast, where to, and
what else is made from the rows; they may differ between a run and its continuation.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from maskbatch.errors import UsageError

DeviceName = Literal["auto", "cpu", "cuda", "tensorrt"]
ExecutorName = Literal["auto", "inline", "processes", "ray"]
SamplingMode = Literal["every", "keyframes", "all"]

DETECTOR = "retinaface"
CLASSIFIER = "mask_mobilenet_v2"
DET_SIZE = 640
MIN_SCORE = 0.4
"""Detector score from which a scan keeps a face, where nothing else is said; an evaluation judges "as in a scan" by the same."""


@dataclass(frozen=True, slots=True)
class Detection:
    """Which models run, and which faces are kept.

    Attributes:
        detector: name in the registry, or a path to an ONNX file (`detector:path` names the family).
        classifier: name in the registry, or a path to an ONNX file.
        det_size: long side of the detector's input in pixels, a multiple of 32.
        min_score: faces with a lower detector score are dropped.
        min_face: faces whose longer box side is shorter are dropped (pixels of the original picture).
        precision: ``auto`` picks the fastest variant that the device runs well.
    """

    detector: str = DETECTOR
    classifier: str = CLASSIFIER
    det_size: int = DET_SIZE
    min_score: float = MIN_SCORE
    min_face: int = 0
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a video are looked at.

    Attributes:
        mode: ``every``: the first frame at or after each multiple of `every_s`; ``keyframes``; ``all``.
        every_s: seconds between samples (``--fps F`` is ``every_s = 1/F``).
        start_s: seconds of presentation time before which nothing is read.
        end_s: seconds at which reading ends, exclusive; None is the end.
        gate: ``motion`` keeps frames in which nothing moves from the detector.
        gate_refresh_s: with the gate on, at least one frame in so many seconds is detected.
    """

    mode: SamplingMode = "every"
    every_s: float = 1.0
    start_s: float = 0.0
    end_s: float | None = None
    gate: Literal["none", "motion"] = "none"
    gate_refresh_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused.

    Attributes:
        max_pixels: pictures and frames with more pixels are refused by their header, before they are decoded.
    """

    max_pixels: int = 250_000_000


@dataclass(frozen=True, slots=True)
class Execution:
    """How the work is spread and how much may be held at once.

    Attributes:
        device: ``auto`` is the best that starts a session; any other is that one or an error.
        workers: processes; 0 is one per core (CPU) or per GPU.
        executor: ``auto`` is ``processes``; ``inline`` works in this process, without isolation.
        batch_size: pictures per detector call and faces per classifier call; 0 is what suits the device.
        prefetch_mb: megabytes of decoded pictures that wait for the models, per worker; 0 is what suits the device.
        decode_threads: threads per worker that read and decode ahead; 0 is what suits the device.
        timeout_s: a worker that shows no progress for so long is killed.
        max_memory_mb: a worker whose resident memory exceeds it is killed; 0 is no limit.
        unit_images: pictures per unit at most.
        unit_seconds: seconds of video per unit at most.
        ray_address: of the cluster, with the executor ``ray``.
    """

    device: DeviceName = "auto"
    workers: int = 0
    executor: ExecutorName = "auto"
    batch_size: int = 0
    prefetch_mb: int = 0
    decode_threads: int = 0
    timeout_s: float = 120.0
    max_memory_mb: int = 4096
    unit_images: int = 256
    unit_seconds: float = 60.0
    ray_address: str | None = None


@dataclass(frozen=True, slots=True)
class WhenWhere:
    """Where `camera` and `captured_at` come from.

    Attributes:
        camera: the same camera for every input; wins over patterns, loses to the manifest.
        time_pattern: file-name pattern tried before the built-in ones.
        start_time: ISO time of the first frame of every video.
        timezone: IANA name in which file names and manifests without an offset are read.
        manifest: CSV with the columns ``path,camera,start_time``.
    """

    camera: str | None = None
    time_pattern: str | None = None
    start_time: str | None = None
    timezone: str = "UTC"
    manifest: Path | None = None


@dataclass(frozen=True, slots=True)
class Extras:
    """What else is made from the rows.

    Attributes:
        annotate: folder for pictures and videos with boxes drawn.
        crops: folder for face crops by label.
        redact: faces are blurred in everything that is drawn or cropped.
        boxes: boxes and labels are drawn (off only together with `redact`).
        track: tracks of persons within each video.
        hash: SHA-256 of every input's bytes.
    """

    annotate: Path | None = None
    crops: Path | None = None
    redact: bool = False
    boxes: bool = True
    track: bool = False
    hash: bool = False


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """Everything a scan is told except its inputs and where the result goes."""

    detection: Detection = field(default_factory=Detection)
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    execution: Execution = field(default_factory=Execution)
    when_where: WhenWhere = field(default_factory=WhenWhere)
    extras: Extras = field(default_factory=Extras)

    def row_settings(self) -> dict[str, Any]:
        """The settings that decide what is in the rows: flat, JSON-ready, for the work folder's key and the metadata."""
        groups = {
            "detection": dataclasses.asdict(self.detection),
            "sampling": dataclasses.asdict(self.sampling),
            "limits": dataclasses.asdict(self.limits),
        }
        return {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}


def with_options(config: ScanConfig, **options: Any) -> ScanConfig:
    """`config` with some settings changed, each named as in its group (``workers=2, every_s=5, detector="yunet"``).

    Raises UsageError for a name that no group has.
    """
    groups = {group.name: getattr(config, group.name) for group in dataclasses.fields(config)}
    for name, value in options.items():
        group = next((g for g, values in groups.items() if name in {f.name for f in dataclasses.fields(values)}), None)
        if group is None:
            raise UsageError(f"there is no setting called {name}")
        groups[group] = dataclasses.replace(groups[group], **{name: value})
    return ScanConfig(**groups)
