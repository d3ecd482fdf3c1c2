"""What a scan is told to do: frozen dataclasses, grouped by who reads them. Each group checks itself when it is made.

Two kinds of settings are kept apart. Those that decide *what is in the rows* or how inputs are cut are part of the run's key
(`scanning.key`): all of `ModelSettings`, `Sampling` and `Limits`, and of the others `OutputOptions.hash`,
`OutputOptions.skip_duplicates` and `Execution.unit_seconds`. A resumed run must have the same ones. All the rest decides only how fast, where to, and what else is made
from the rows, and may differ between a run and its continuation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

from maskbatch.errors import UsageError
from maskbatch.tasks import MASK

DeviceName = Literal["auto", "cpu", "cuda", "tensorrt"]
SamplingMode = Literal["every", "keyframes", "all"]
Precision = Literal["auto", "fp32", "fp16", "int8"]
Gate = Literal["none", "motion"]
RedactedPart = Literal["faces", "eyes"]
Tile = Literal["off", "auto"]

DETECTOR = MASK.detector
CLASSIFIER = MASK.classifier
DET_SIZE = 640
REDACT_SIZE = 1280
MIN_SCORE = 0.4
"""Detector score from which a scan keeps a face, unless another is given; an evaluation "as in a scan" uses the same."""
FOLLOWING_FPS = 3.0
"""Frames a second that the command line takes with ``--track`` and nothing else said: enough to follow people (`benchmarks/walkers.py`)."""
WIDEST_STEP_S = 0.5
"""A wider step is told when people are followed over it."""
STRIDE = 32
"""The detector's input has sides that are multiples of this."""


def _check_range(name: str, value: object, low: float, high: float | None = None) -> None:
    """Raises UsageError unless `value` is a number from `low` to `high`; `name` is that of the setting and of its option."""
    shown = f"{name} must be a number of at least {low:g}" + ("" if high is None else f" and at most {high:g}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value:
        raise UsageError(f"{shown}, not {value!r}")
    if high is not None and value > high:
        raise UsageError(f"{shown}, not {value!r}")


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise UsageError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which models run, and which faces are kept.

    Attributes:
        detector: name in the registry, or a path to an ONNX file (`detector:path` names the family).
        classifier: name in the registry, or a path to an ONNX file.
        det_size: long side of the detector's input in pixels, a multiple of 32.
        min_score: faces with a lower detector score are dropped.
        min_face: faces whose longer box side is shorter are dropped (pixels of the original image).
        precision: ``auto`` picks the fastest variant that the device runs well.
        tile: ``auto`` looks at large images in overlapping tiles, too (`maskbatch.detect.tiles`).
    """

    detector: str = DETECTOR
    classifier: str = CLASSIFIER
    det_size: int = DET_SIZE
    min_score: float = MIN_SCORE
    min_face: int = 0
    precision: Precision = "auto"
    tile: Tile = "off"

    def __post_init__(self) -> None:
        """Raises UsageError."""
        _check_range("det_size (--det-size)", self.det_size, STRIDE, 4096)
        if self.det_size % STRIDE:
            raise UsageError(f"det_size (--det-size) must be a multiple of {STRIDE}, not {self.det_size}")
        _check_range("min_score (--min-score)", self.min_score, 0.0, 1.0)
        _check_range("min_face (--min-face)", self.min_face, 0)
        _check_choice("precision (--precision)", self.precision, Precision)
        _check_choice("tile (--tile)", self.tile, Tile)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a video are looked at.

    Attributes:
        mode: ``every``: the first frame at or after each multiple of `every_s`; ``keyframes``; ``all``.
        every_s: seconds between samples (``--fps F`` is ``every_s = 1/F``).
        start_s: seconds of presentation time before which nothing is read.
        end_s: seconds at which reading ends, exclusive; None is the end.
        gate: ``motion`` keeps frames in which nothing moves from the detector.
        gate_refresh_s: with the gate on, at least one frame in this many seconds is searched.
        snap_s: with ``every``, the key frame that is nearest to a multiple stands in for the sample if it lies within this many seconds.
        assume_fps: frames per second of videos without time stamps; 0 = as their headers say, else 25.
        video_stream: of files with several video streams: ``default`` (the first), ``all``, or the number of one, from 0.
    """

    mode: SamplingMode = "every"
    every_s: float = 1.0
    start_s: float = 0.0
    end_s: float | None = None
    gate: Gate = "none"
    gate_refresh_s: float = 10.0
    snap_s: float = 0.0
    assume_fps: float = 0.0
    video_stream: str = "default"

    def __post_init__(self) -> None:
        """Raises UsageError."""
        _check_choice("mode", self.mode, SamplingMode)
        if not isinstance(self.every_s, int | float) or not 0 < self.every_s < float("inf"):
            raise UsageError(f"every_s (--every, --fps) must be a positive number of seconds, not {self.every_s!r}")
        _check_range("start_s (--start)", self.start_s, 0.0)
        _check_choice("gate (--gate)", self.gate, Gate)
        _check_range("gate_refresh_s (--gate-refresh)", self.gate_refresh_s, 0.1)
        _check_range("snap_s (--snap)", self.snap_s, 0.0)
        _check_range("assume_fps (--assume-fps)", self.assume_fps, 0.0, 1000.0)
        if self.video_stream not in ("default", "all") and not re.fullmatch("[0-9]{1,3}", str(self.video_stream)):
            raise UsageError(
                f"video_stream (--video-stream) must be all, default or the number of a stream from 0, not {self.video_stream!r}"
            )
        if self.snap_s and self.mode != "every":
            raise UsageError(
                "--snap moves the samples of --every or --fps to key frames; leave it out with --keyframes and --all"
            )
        if self.snap_s > self.every_s / 2:
            raise UsageError(
                f"--snap {self.snap_s:g} s is more than half of the {self.every_s:g} s between samples, so two would meet on one frame"
            )
        if self.end_s is not None and self.end_s <= self.start_s:
            raise UsageError(f"--end {self.end_s:g} s is not after --start {self.start_s:g} s")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused.

    Attributes:
        max_pixels: images and frames with more pixels are refused by their header, before they are decoded.
    """

    max_pixels: int = 250_000_000

    def __post_init__(self) -> None:
        """Raises UsageError."""
        _check_range("max_pixels (--max-pixels)", self.max_pixels, 1)


@dataclass(frozen=True, slots=True)
class Execution:
    """How the work is spread and how much may be held at once.

    Attributes:
        device: ``auto`` is the best that starts a session; any other fails if it is not available.
        workers: processes; 0 = one per usable core (CPU affinity and container limits count), or one per GPU.
        executor: name in `jobs.executors`; ``auto`` is ``processes``; ``inline`` works in this process, without isolation.
        batch_size: images per detector call and faces per classifier call; 0 = auto.
        prefetch_mb: megabytes of decoded images that wait for the models, per worker; 0 = auto.
        decode_threads: threads per worker that read and decode ahead; 0 = auto.
        timeout_s: a worker that shows no progress for this long is replaced.
        max_memory_mb: a worker whose resident memory exceeds it is replaced; 0 = no limit.
        unit_images: images per unit at most.
        unit_seconds: seconds of video per unit at most.
        ray_address: of the cluster, with the executor ``ray``.
    """

    device: DeviceName = "auto"
    workers: int = 0
    executor: str = "auto"
    batch_size: int = 0
    prefetch_mb: int = 0
    decode_threads: int = 0
    timeout_s: float = 120.0
    max_memory_mb: int = 4096
    unit_images: int = 256
    unit_seconds: float = 60.0
    ray_address: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError."""
        _check_choice("device (--device)", self.device, DeviceName)
        _check_range("workers (--workers)", self.workers, 0)
        _check_range("batch_size (--batch-size)", self.batch_size, 0, 1024)
        _check_range("prefetch_mb (--prefetch)", self.prefetch_mb, 0)
        _check_range("decode_threads (--decode-threads)", self.decode_threads, 0, 256)
        _check_range("timeout_s (--timeout)", self.timeout_s, 0.1)
        _check_range("max_memory_mb (--max-memory)", self.max_memory_mb, 0)
        _check_range("unit_images", self.unit_images, 1)
        _check_range("unit_seconds", self.unit_seconds, 0.1)


@dataclass(frozen=True, slots=True)
class CaptureMetadata:
    """Where `camera` and `captured_at` come from. Checked where they are read (`sources.capture_metadata`).

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
class OutputOptions:
    """What else is made from the rows.

    Attributes:
        annotate: folder for images and videos with boxes drawn.
        crops: folder for face crops by label.
        redact: faces are hidden in everything that is drawn or cropped; ``"eyes"`` or ``"faces"`` is True with this `redact_part`.
        redact_part: what of a face is hidden: all of it (blurred), or the eyes (a bar).
        redact_every_s: videos that are redacted are searched once in this many seconds; 0 is every frame.
        redact_size: long side of the detector's input in that search, a multiple of 32; never less than `det_size`.
        mute: annotated videos have no sound.
        boxes: boxes and labels are drawn (off only together with `redact`).
        track: tracks of persons within each video.
        hash: SHA-256 of every input's bytes.
        skip_duplicates: inputs with the bytes of an earlier one get copies of its rows; images that look like one are flagged.
    """

    annotate: Path | None = None
    crops: Path | None = None
    redact: bool | RedactedPart = False
    boxes: bool = True
    track: bool = False
    hash: bool = False
    skip_duplicates: bool = False
    redact_part: RedactedPart = "faces"
    redact_every_s: float = 0.0
    redact_size: int = REDACT_SIZE
    mute: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError. Folders may be given as strings."""
        for name in ("annotate", "crops"):
            folder = getattr(self, name)
            if folder is not None and not isinstance(folder, Path):
                object.__setattr__(self, name, Path(folder))
        if isinstance(self.redact, str):
            _check_choice("redact (--redact)", self.redact, RedactedPart)
            object.__setattr__(self, "redact_part", self.redact)
            object.__setattr__(self, "redact", True)
        _check_choice("redact_part (--redact-part)", self.redact_part, RedactedPart)
        _check_range("redact_every_s (--redact-every)", self.redact_every_s, 0.0, 60.0)
        _check_range("redact_size (--redact-size)", self.redact_size, STRIDE, 4096)
        if self.redact_size % STRIDE:
            raise UsageError(f"redact_size (--redact-size) must be a multiple of {STRIDE}, not {self.redact_size}")
        if self.mute and self.annotate is None:
            raise UsageError("--mute needs --annotate DIR: no other output has sound")
        if not self.boxes and not self.redact:
            raise UsageError("--no-boxes leaves nothing to draw; use it together with --redact")
        if self.redact and not self.draws:
            raise UsageError("--redact needs --annotate DIR or --crops DIR")

    @property
    def draws(self) -> bool:
        """Whether anything is drawn or cropped."""
        return self.annotate is not None or self.crops is not None


Polygon = tuple[tuple[float, float], ...]
"""Corners in shares of width (to the right) and height (down), 0 to 1, of the upright image."""


def check_polygon(value: object, where: str = "ignore") -> Polygon:
    """A polygon from lists of numbers; raises UsageError that begins with `where`."""
    shown = f"{where}: a polygon is three or more corners [x, y], each a share of width and height from 0 to 1, not {value!r}"
    if not isinstance(value, list | tuple) or len(value) < 3:
        raise UsageError(shown)
    corners = []
    for corner in value:
        if not isinstance(corner, list | tuple) or len(corner) != 2:
            raise UsageError(shown)
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in corner):
            raise UsageError(shown)
        corners.append((float(corner[0]), float(corner[1])))
    return tuple(corners)


@dataclass(frozen=True, slots=True)
class Areas:
    """Parts of a camera's view that must not be looked at: blacked out before anything else sees a frame.

    Attributes:
        ignore: per camera its polygons; a camera may be named once.
    """

    ignore: tuple[tuple[str, tuple[Polygon, ...]], ...] = ()

    def __post_init__(self) -> None:
        """Raises UsageError."""
        checked = tuple((str(name), tuple(check_polygon(p) for p in polygons)) for name, polygons in self.ignore)
        object.__setattr__(self, "ignore", tuple(entry for entry in checked if entry[1]))

    def of(self, camera: str | None) -> tuple[Polygon, ...]:
        """The polygons of a camera."""
        return next((polygons for name, polygons in self.ignore if name == camera), ())


class ScanOptions(TypedDict, total=False):
    """Every single setting by name, for ``maskbatch.scan(..., workers=2)``; what each means stands in its group."""

    detector: str
    classifier: str
    det_size: int
    min_score: float
    min_face: int
    precision: Precision
    tile: Tile
    mode: SamplingMode
    every_s: float
    start_s: float
    end_s: float | None
    gate: Gate
    gate_refresh_s: float
    snap_s: float
    assume_fps: float
    video_stream: str
    max_pixels: int
    device: DeviceName
    workers: int
    executor: str
    batch_size: int
    prefetch_mb: int
    decode_threads: int
    timeout_s: float
    max_memory_mb: int
    unit_images: int
    unit_seconds: float
    ray_address: str | None
    camera: str | None
    time_pattern: str | None
    start_time: str | None
    timezone: str
    manifest: Path | None
    annotate: Path | str | None
    crops: Path | str | None
    redact: bool | RedactedPart
    redact_part: RedactedPart
    redact_every_s: float
    redact_size: int
    mute: bool
    boxes: bool
    track: bool
    hash: bool
    skip_duplicates: bool
    ignore: tuple[tuple[str, tuple[Polygon, ...]], ...]


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """Everything a scan is told except its inputs and where the result goes."""

    models: ModelSettings = field(default_factory=ModelSettings)
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    execution: Execution = field(default_factory=Execution)
    capture: CaptureMetadata = field(default_factory=CaptureMetadata)
    outputs: OutputOptions = field(default_factory=OutputOptions)
    areas: Areas = field(default_factory=Areas)

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.areas.ignore and self.outputs.draws:
            raise UsageError(
                "--annotate and --crops would show what the cameras' ignore areas hide; leave out one of the two"
            )

    def row_settings(self) -> dict[str, Any]:
        """The settings that decide what is in the rows: flat, JSON-ready, for the run's key and the metadata of its files."""
        groups = {
            "detection": dataclasses.asdict(self.models),
            "sampling": dataclasses.asdict(self.sampling),
            "limits": dataclasses.asdict(self.limits),
        }
        if self.areas.ignore:  # which areas are a file's depends on its camera too, so what decides that counts then
            groups["areas"] = {"ignore": dataclasses.asdict(self.areas)["ignore"], **self._camera_settings()}
        # Off is as before there was the option: the keys of older runs stay what they are.
        if self.models.tile == "off":
            del groups["detection"]["tile"]
        for name in ("snap_s", "assume_fps"):
            if not groups["sampling"][name]:
                del groups["sampling"][name]
        if self.sampling.video_stream == "default":
            del groups["sampling"]["video_stream"]
        return {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}

    def _camera_settings(self) -> dict[str, Any]:
        capture = self.capture
        manifest = None
        if capture.manifest is not None and capture.manifest.is_file():
            manifest = hashlib.sha256(capture.manifest.read_bytes()).hexdigest()
        return {"camera": capture.camera, "time_pattern": capture.time_pattern, "manifest": manifest}

    def with_options(self, **options: Unpack[ScanOptions]) -> ScanConfig:
        """The same with some settings changed, each named as in its group (``workers=2, every_s=5, detector="yunet"``).

        Raises:
            UsageError: a name that no group has, or a value that its group refuses.
        """
        groups = {group.name: getattr(self, group.name) for group in dataclasses.fields(self)}
        changes: dict[str, dict[str, object]] = {}
        for name, value in options.items():
            group = next(
                (g for g, values in groups.items() if name in {f.name for f in dataclasses.fields(values)}), None
            )
            if group is None:
                raise UsageError(f"there is no setting called {name}")
            changes.setdefault(group, {})[name] = value
        return dataclasses.replace(
            self, **{g: dataclasses.replace(groups[g], **values) for g, values in changes.items()}
        )
