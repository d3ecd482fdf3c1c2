"""The types that flow from the discovery of inputs to the rows of the result.

All images are ``H×W×3 uint8`` in **BGR** order and in *display* orientation (EXIF and container rotation applied).
All boxes are ``x1 y1 x2 y2`` in pixels, ``x`` to the right and ``y`` down, ``x2``/``y2`` exclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from maskbatch.errors import InputError, InputErrorCode, MaskbatchError

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Media = Literal["image", "video"]
Status = Literal["ok", "partial", "error"]
SEVERITY: tuple[Status, ...] = ("ok", "partial", "error")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an input: the columns ``status``, ``error`` and ``message`` of the inputs table.

    ``status`` may be ``ok`` for a remark on an input that was read as intended.

    Attributes:
        frames_left: frames or pages of the file that were not looked at because of it.
    """

    status: Status
    error: InputErrorCode | None
    message: str
    frames_left: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """One input file as found by the discovery.

    Attributes:
        path: what is opened: an absolute path, or a URL that fsspec understands.
        name: the contract's ``source``: path relative to its root, ``/``-separated, unique in a run.
        media: what its name and first bytes say it is.
        size: bytes.
        mtime_ns: time of last change, 0 where the store has none.
        etag: the object store's version mark, empty for local files.
        camera: from the manifest, the file-name pattern or ``--camera``; applied when results are merged.
        start_time: wall clock (POSIX seconds, UTC) of the first frame, from the manifest or the file name.
        remark: what should be known of how `start_time` was read.
        problem: set where the discovery already knows that the input cannot be read (FIFO, no permission …).
        stream: which of a file's video streams it is (0-based, cover images not counted); None is the one that is read by default.
    """

    path: str
    name: str
    media: Media
    size: int = 0
    mtime_ns: int = 0
    etag: str = ""
    camera: str | None = None
    start_time: float | None = None
    remark: str | None = None
    problem: Problem | None = None
    stream: int | None = None

    @property
    def fingerprint(self) -> str:
        """Changes when the content does, as far as the file system tells (size and time of last change), and with the stream."""
        version = self.etag or f"{self.size:x}-{self.mtime_ns:x}"
        return f"{version}#v{self.stream}" if self.stream else version  # the first is the file, as it always was


@dataclass(frozen=True, slots=True)
class Piece:
    """What one worker reads of one source in one go: the whole of it, or one time range of a video.

    A range holds the frames with ``start_pts <= pts < stop_pts`` in the stream's time base; ``None`` is open.
    ``parts == 0`` marks a video that nobody has looked into yet: the worker that gets it may split it.
    """

    source: Source
    part: int = 0
    parts: int = 1
    start_pts: int | None = None
    stop_pts: int | None = None


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """Pieces that one worker processes and makes final together. ``id`` is a hash of what it is (`jobs.units`)."""

    id: str
    pieces: tuple[Piece, ...]


def joined(problems: Iterable[Problem | None]) -> Problem | None:
    """The worst of them, with what all of them say; None where there is none."""
    found = [problem for problem in problems if problem is not None]
    if not found:
        return None
    worst = max(found, key=lambda problem: SEVERITY.index(problem.status))
    left = sum(problem.frames_left for problem in found)
    return Problem(worst.status, worst.error, "; ".join(problem.message for problem in found), left)


@dataclass(slots=True)
class Frame:
    """One decoded image.

    Attributes:
        image: BGR image, maybe smaller than the original: large enough for the detector, no larger than needed.
        width: display width of the *original* in pixels.
        height: display height of the original.
        load_full: gives the image at original size (decoding or converting it on first need).
        ordinal: 0-based rank of the frame in the stream in presentation order; None for images.
        pts: presentation time stamp in `time_base`; None for images.
        origin: time stamp of the recording's first frame.
        problem: a partial decode or a remark (truncated tail shown grey, first frame of an animation …).
        skip_detection: the motion gate found nothing new; the frame is counted, not detected.
        taken_at: when an image was taken by its Exif, ISO 8601, mostly without an offset.
    """

    image: Image
    width: int
    height: int
    load_full: Callable[[], Image]
    ordinal: int | None = None
    pts: int | None = None
    origin: int = 0
    time_base: Fraction | None = None
    problem: Problem | None = None
    skip_detection: bool = False
    taken_at: str | None = None

    @property
    def scale(self) -> float:
        """Pixels of `image` per pixel of the original."""
        return float(self.image.shape[1]) / self.width

    @property
    def time_s(self) -> float | None:
        """Seconds since the recording's first frame, exact to the time base."""
        if self.pts is None or self.time_base is None:
            return None
        return float((self.pts - self.origin) * self.time_base)


@dataclass(slots=True)
class Detections:
    """Faces of one image, best score first.

    Attributes:
        boxes: n×4 float32.
        scores: n float32 in 0..1.
        landmarks: n×5×2 float32, or None: left eye, right eye, nose, left and right mouth corner, as seen.
    """

    boxes: Floats
    scores: Floats
    landmarks: Floats | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), None)

    def scaled(self, factor: float) -> Detections:
        """The same faces in the pixels of an image `factor` times as large."""
        factor32 = np.float32(factor)
        landmarks = None if self.landmarks is None else self.landmarks * factor32
        return Detections(self.boxes * factor32, self.scores, landmarks)

    def select(self, keep: npt.NDArray[Any]) -> Detections:
        """The faces that a boolean mask or an index array picks."""
        landmarks = None if self.landmarks is None else self.landmarks[keep]
        return Detections(self.boxes[keep], self.scores[keep], landmarks)


class Session(Protocol):
    """A loaded model, as `maskbatch.runtime` makes it and detectors and the classifier use it."""

    @property
    def metadata(self) -> dict[str, str]:
        """The model file's own metadata."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs, e.g. ``CPUExecutionProvider``."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the order `run` gives them."""

    @property
    def batch_size(self) -> int:
        """The batch that runs best on this device; callers pad to it so that a model never meets a new shape."""

    def run(self, batch: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """One forward pass of the model's only input."""


@dataclass(slots=True)
class PieceResult:
    """What became of one piece; one or more of them make a row of the inputs table.

    Times are seconds of CPU that the stage used (`time.thread_time`), so that they add up over workers.
    """

    name: str
    fingerprint: str
    part: int = 0
    parts: int = 1
    status: Status = "ok"
    error: InputErrorCode | None = None
    message: str = ""
    width: int | None = None
    height: int | None = None
    frames_read: int = 0
    frames_failed: int = 0
    frames_skipped: int = 0
    faces: int = 0
    duration_s: float | None = None
    started_at: float | None = None
    """Wall clock of the first frame (POSIX seconds) as the container's metadata has it."""
    taken_at: str | None = None
    """The same of an image, as its Exif has it: mostly without an offset, so that the merge reads it in the zone that is asked for."""
    decode_s: float = 0.0
    detect_s: float = 0.0
    classify_s: float = 0.0
    sha256: str | None = None
    dhash: str | None = None
    """Of an image whose look-alikes are wanted: its difference hash, 16 hexadecimal digits (`sources.images.dhash`)."""

    def note(self, problem: Problem) -> None:
        """Add a problem; the worse status wins, messages are joined."""
        if SEVERITY.index(problem.status) > SEVERITY.index(self.status):
            self.status = problem.status
            self.error = problem.error
        if problem.message and problem.message not in self.message:
            self.message = f"{self.message}; {problem.message}" if self.message else problem.message


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a finished unit leaves beside its part file.

    Attributes:
        unit: the unit's id, which is also the name of the part file.
        rows: rows in the part file.
        results: one per piece, in the order of the rows in the part.
        labels: faces per label.
        part_bytes: size of the part file.
        part_sha256: checksum of the part file, empty where there are no rows.
        stages: seconds of CPU per stage (``decode, detect, crop, classify, write``) of this unit.
        wall_s: seconds from the start to the end of the unit.
    """

    unit: str
    rows: int
    results: tuple[PieceResult, ...]
    labels: dict[str, int] = field(default_factory=dict)
    part_bytes: int = 0
    part_sha256: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class UnitRows:
    """What a worker made of a unit: the part file's bytes, and what its receipt will say."""

    part: bytes
    rows: int
    results: tuple[PieceResult, ...]
    labels: dict[str, int] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    started: float = 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """A worker's answer to a video nobody had looked into: it is long, and these are its parts."""

    pieces: tuple[Piece, ...]


Event = Literal["begin", "end", "tick"]
ProgressCallback = Callable[[Event, int], None]
"""Called by a worker while it works: a piece (by index) begins, ends, or something moved. May be called from its threads."""


def as_problem(error: Exception, doing: str = "decoding") -> Problem:
    """What an exception while an input is read or drawn says of it.

    Anything but an error of the input or of the output is a defect of ours or of a decoder; it costs its input, not the run, and is
    named as such.
    """
    if isinstance(error, InputError):
        return Problem("error", error.code, error.message)
    if isinstance(error, MaskbatchError | OSError):
        return Problem("error", "io", str(error))
    if isinstance(error, MemoryError):
        return Problem("error", "out_of_memory", f"not enough memory for {doing} this input")
    return Problem("error", "internal", f"unexpected {type(error).__name__} while {doing}: {error}")


def whole_piece(source: Source) -> Piece:
    """The piece that is all of an image, or a video still to be looked into."""
    return Piece(source, parts=1 if source.media == "image" else 0)


def with_range(piece: Piece, part: int, parts: int, start_pts: int | None, stop_pts: int | None) -> Piece:
    """One time range of a video's piece."""
    return replace(piece, part=part, parts=parts, start_pts=start_pts, stop_pts=stop_pts)
