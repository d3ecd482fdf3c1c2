"""One camera: a thread that reads its stream for as long as it is wanted, whatever happens to the connection.

connect ─▶ frames ─▶ the sampled ones ─▶ one place for the newest ─▶ whoever looks at it
   ▲                                        (what nobody looked at in time is dropped and counted)
   └── back-off ◀── lost, stalled, rubbish, end
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, Protocol

from maskbatch.config import Limits, Sampling
from maskbatch.errors import InputError, InputErrorCode
from maskbatch.sources.areas import hidden
from maskbatch.sources.live.cameras import Camera
from maskbatch.sources.live.clock import UNITS, LiveClock
from maskbatch.sources.live.stream import LiveStream
from maskbatch.sources.videos.frames import DisplayMatrix, FrameConverter
from maskbatch.sources.videos.memory import release_decoders
from maskbatch.sources.videos.sampling import RunningSampler
from maskbatch.types import Frame, Problem

State = Literal["connecting", "live", "lost", "ended", "stopped"]

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
"""Seconds between tries: doubled from the first to the longest, so that a server that is back is seen within ten seconds."""

REFUSED_WAIT_S = 60.0
"""After a refused password: cameras lock out who tries too often."""

STEADY_S = 10.0
"""A connection that held this long resets the waiting time."""

LONGEST_PROBE_S = 3.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a camera is waited for.

    Attributes:
        open_s: seconds for connecting.
        stall_s: seconds without a frame after which it counts as lost.
        speed: recordings behind HTTP are played this many times faster.
    """

    open_s: float = 10.0
    stall_s: float = 10.0
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame to be looked at.

    Attributes:
        frame: with the areas to be ignored blacked out.
        session: number of the connection it came by.
        at: POSIX seconds when it was decoded here.
    """

    frame: Frame
    session: int
    at: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What has come of one connection so far; differences between two of them add up.

    Attributes:
        session: number of the connection, from 1; 0 before the first.
        began: POSIX seconds of its first frame.
        last: POSIX seconds of its latest frame.
        frames: decoded.
        failed: packets that could not be decoded.
        dropped: frames that should have been looked at and were not, since a newer one had come.
        repairs: times the stream's clock was wrong.
        width, height: of the latest frame, upright.
        sizes: how often they changed.
        seconds: of the stream, by its clock.
    """

    session: int = 0
    began: float = 0.0
    last: float = 0.0
    frames: int = 0
    failed: int = 0
    dropped: int = 0
    repairs: int = 0
    width: int = 0
    height: int = 0
    sizes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """How a camera is.

    Attributes:
        state: see `State`.
        since: POSIX seconds since when.
        reason: why it is lost, without anything secret.
        code: the same as an error code.
        connects: connections that gave a frame.
    """

    state: State
    since: float
    reason: str = ""
    code: InputErrorCode | None = None
    connects: int = 0


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that is read as if it were a connection: its name in the folder, and its fingerprint."""

    name: str
    fingerprint: str


class Listener(Protocol):
    """Told by the readers' threads; must not take long."""

    def sampled(self, camera: str) -> None:
        """A frame waits to be looked at."""

    def connected(self, camera: str, at: float, recording: Recording | None = None) -> None:
        """The first frame of a connection came, or a recording begins."""

    def finished(self, camera: str, counts: Counts, problem: Problem | None) -> bool:
        """All of a recording was handed out; whether all of it has been looked at, else ask again."""

    def lost(self, camera: str, counts: Counts, health: Health) -> None:
        """A connection ended (`counts.session` > 0 where it had given frames), or could not be made."""


class FrameReader(ABC):
    """What the watch reads frames from, in a thread of its own: a camera, or a folder of recordings.

    Args:
        camera: what to read.
        listener: told of what happens.
        wall: POSIX seconds now.
    """

    def __init__(self, camera: Camera, listener: Listener, wall: Callable[[], float]) -> None:
        self.camera = camera
        self._listener = listener
        self._wall = wall
        self._stop = threading.Event()
        self._changed = threading.Condition(threading.Lock())
        self._counts = Counts()
        self._health = Health("connecting", wall())
        self._thread = threading.Thread(target=self._run, name=f"maskbatch-{camera.name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does with the next frame, or when what it waits for times out."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def counts(self) -> Counts:
        """Of the present connection, or the last one."""
        with self._changed:
            return self._counts

    @property
    def health(self) -> Health:
        """How the camera is now."""
        with self._changed:
            return self._health

    @property
    @abstractmethod
    def waits(self) -> bool:
        """Whether a frame waits to be looked at."""

    @abstractmethod
    def take(self) -> Sample | None:
        """The frame that waits, if one does. Raises InputError where its pixels cannot be converted."""

    @abstractmethod
    def _run(self) -> None:
        """What the thread does until `_stop` is set; `_changed` guards what others read."""


class CameraReader(FrameReader):
    """Reads one camera.

    Args:
        camera: what to read.
        sampling: which frames are looked at, by the stream's own time.
        cover: long side in pixels of the images that the detector wants.
        limits: what is refused.
        listener: told of what happens.
        timing: how long is waited.
        wall: POSIX seconds now.
    """

    def __init__(
        self,
        camera: Camera,
        sampling: Sampling,
        cover: int,
        limits: Limits,
        listener: Listener,
        timing: Timing | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(camera, listener, wall)
        self._sampling = sampling
        self._limits = limits
        self._timing = timing or Timing()
        self._newest: tuple[Any, DisplayMatrix, int, int, int, float] | None = None
        self._converter = FrameConverter(cover)
        self._fresh = False

    @property
    def waits(self) -> bool:
        """See `FrameReader`."""
        return self._newest is not None

    def take(self) -> Sample | None:
        """See `FrameReader`."""
        with self._changed:
            newest, self._newest = self._newest, None
        if newest is None:
            return None
        picture, matrix, session, ordinal, at, wall = newest
        width, height = matrix.size(picture.width, picture.height)
        converter = self._converter
        frame = Frame(
            image=converter.small(picture, matrix),
            width=width,
            height=height,
            load_full=lambda: converter.full(picture, matrix),
            ordinal=ordinal,
            pts=at,
            time_base=Fraction(1, UNITS),
        )
        return Sample(hidden(frame, self.camera.ignore), session, wall)

    def _run(self) -> None:
        wait = FIRST_WAIT_S
        while not self._stop.is_set():
            began = time.monotonic()
            error = self._connection()
            if self._stop.is_set():
                break
            if self._counts.session and time.monotonic() - began > STEADY_S:
                wait = FIRST_WAIT_S
            self._lose(error)
            self._stop.wait(REFUSED_WAIT_S if error.code == "permission" else wait)
            wait = min(LONGEST_WAIT_S, wait * 2)
        with self._changed:
            self._health = replace(self._health, state="stopped", since=self._wall())

    def _connection(self) -> InputError:
        """One connection from beginning to end; why it ended."""
        address = self.camera.address
        assert address is not None
        self._fresh = False
        try:
            stream = LiveStream(address, self._limits, self._timing.open_s, self._timing.stall_s)
        except InputError as error:
            return error
        try:
            self._read(stream)
        except InputError as error:
            return error
        except Exception as error:  # a defect of ours or of a decoder costs this connection, not the others
            return InputError("internal", f"unexpected {type(error).__name__} while reading")
        finally:
            stream.close()
            del stream
            release_decoders()
        return InputError("io", "the stream ended")

    def _read(self, stream: LiveStream) -> None:
        # Frames wait in FFmpeg while it finds out what the stream is. Were time to count from when it is done, all that follows would
        # stay as late for as long as the connection holds.
        began = max(stream.opened, time.monotonic() - LONGEST_PROBE_S) if stream.paced else None
        clock = LiveClock(self._timing.speed, began)
        sampler = RunningSampler(Fraction(1, UNITS), 0, self._sampling)
        size, matrix = (0, 0), DisplayMatrix()
        for ordinal, picture in enumerate(stream.frames()):
            if self._stop.is_set():
                return
            pts = picture.pts if stream.stamped else None
            at = clock.read(pts, picture.time_base, time.monotonic())
            if stream.paced and (early := clock.wait_s(at, time.monotonic())) > 0 and self._stop.wait(early):
                return
            wall = self._wall()
            taken = sampler.takes(at, bool(picture.key_frame))
            if (picture.width, picture.height) != size:
                # Asked once, not of every frame: PyAV's side data refer to their frame and it to them, so that a frame that was asked stays
                # in memory until Python collects cycles (at 720p and 25 frames a second, 35 MB every second).
                size = (picture.width, picture.height)
                matrix = DisplayMatrix.of(picture)
            upright = matrix.size(*size)
            if ordinal == 0:
                with self._changed:
                    self._begin(upright, wall)
                self._listener.connected(self.camera.name, wall)  # before anybody can take the frame
            with self._changed:
                counts = self._counts
                self._counts = replace(
                    counts,
                    last=wall,
                    frames=counts.frames + 1,
                    failed=stream.failed,
                    dropped=counts.dropped + (taken and self._newest is not None),
                    repairs=clock.repairs,
                    width=upright[0],
                    height=upright[1],
                    sizes=counts.sizes + (upright != (counts.width, counts.height)),
                    seconds=at / UNITS,
                )
                if taken:
                    self._newest = (picture, matrix, counts.session, ordinal, at, wall)
            if taken:
                self._listener.sampled(self.camera.name)

    def _begin(self, size: tuple[int, int], wall: float) -> None:
        """A connection's first frame; the lock is held."""
        self._fresh = True
        self._newest = None  # what waits is of the connection before
        self._health = Health("live", wall, connects=self._health.connects + 1)
        self._counts = Counts(self._counts.session + 1, wall, wall, width=size[0], height=size[1])

    def _lose(self, error: InputError) -> None:
        with self._changed:
            same = self._health.state == "lost"
            since = self._health.since if same else self._wall()
            self._health = Health("lost", since, error.message, error.code, self._health.connects)
            counts = self._counts if self._fresh else Counts()
            health = self._health
        self._listener.lost(self.camera.name, counts, health)
