"""A folder into which a recorder writes, read like a camera: file after file, as they are finished, and no frame is dropped.

look ─▶ files at rest, the oldest first ─▶ sampled frames, one at a time ─▶ whoever looks at them
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

from maskbatch.config import CaptureMetadata, Limits, Sampling
from maskbatch.errors import InputError, MaskbatchError
from maskbatch.sources.areas import hidden
from maskbatch.sources.capture_metadata import CaptureMetadataRules
from maskbatch.sources.discovery.discover import discover
from maskbatch.sources.live.cameras import Camera
from maskbatch.sources.live.reader import Counts, FrameReader, Health, Listener, Recording, Sample
from maskbatch.sources.live.rest import Rest
from maskbatch.sources.videos.memory import release_decoders
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.types import Frame, Piece, PieceResult, Problem, Source

ENDED = "the file ended"

Progress = Callable[[str, str], int | None]
"""From the name and fingerprint of a file: how many of its samples were looked at before; None for all."""


class FolderReader(FrameReader):
    """Reads the recordings of a folder.

    Args:
        camera: whose address is a folder; its time zone is that of the files' names.
        sampling: which frames are looked at.
        cover: long side in pixels of the images that the detector wants.
        limits: what is refused.
        listener: told of what happens.
        progress: what was done before.
        settle_s: seconds that a file must stand still.
        wall: POSIX seconds now.
    """

    def __init__(
        self,
        camera: Camera,
        sampling: Sampling,
        cover: int,
        limits: Limits,
        listener: Listener,
        progress: Progress,
        settle_s: float = 5.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(camera, listener, wall)
        self._sampling = sampling
        self._cover = cover
        self._limits = limits
        self._progress = progress
        self._settle_s = settle_s
        self._newest: Sample | None = None
        self._done: dict[str, str] = {}
        self._rules = CaptureMetadataRules(CaptureMetadata(timezone=camera.timezone))

    @property
    def waits(self) -> bool:
        """See `FrameReader`."""
        return self._newest is not None

    def take(self) -> Sample | None:
        """See `FrameReader`."""
        with self._changed:
            newest, self._newest = self._newest, None
            self._changed.notify_all()
            return newest

    def _run(self) -> None:
        assert self.camera.address is not None
        rest = Rest(self._settle_s)
        while not self._stop.is_set():
            try:
                found = [source for source in discover([self.camera.address.url]).sources if source.media == "video"]
                finished = rest.look(found)
                self._is("live")
            except (MaskbatchError, OSError) as error:
                self._is("lost", str(error))
                found, finished = [], {}
            ready = [source for source in found if finished.get(source.name) == source.fingerprint]
            for source in sorted(
                map(self._rules.apply, ready), key=lambda s: (s.start_time or s.mtime_ns / 1e9, s.name)
            ):
                if self._done.get(source.name) != source.fingerprint and not self._stop.is_set():
                    self._file(source)
            self._stop.wait(min(self._settle_s, 5.0))

    def _is(self, state: str, reason: str = "") -> None:
        with self._changed:
            before = self._health
            if state != before.state or reason != before.reason:
                code = "io" if reason else None
                self._health = Health(state, self._wall(), reason, code, before.connects)  # type: ignore[arg-type]
            health = self._health
        if state == "lost":
            self._listener.lost(self.camera.name, Counts(), health)

    def _file(self, source: Source) -> None:
        """One recording, from where an earlier watch left it."""
        before = self._progress(source.name, source.fingerprint)
        if before is None:
            self._done[source.name] = source.fingerprint
            return
        result = PieceResult(source.name, source.fingerprint)
        began = False
        try:
            with VideoReader(Piece(source), self._sampling, self._limits, self._cover) as reader:
                reader.fill(result)  # when it was recorded, and how long it is
                start = self._start(source, result)
                self._begin(source, start)
                began = True
                for number, frame in enumerate(reader):
                    if number >= before and not self._hand_out(frame, start):
                        return
                result = PieceResult(source.name, source.fingerprint)
                reader.fill(result)
        except InputError as error:
            result.note(Problem("error", error.code, error.message))
        except Exception as error:  # a defect of ours or of a decoder costs this file
            result.note(Problem("error", "internal", f"unexpected {type(error).__name__} while reading"))
        finally:
            release_decoders()
        if not began:
            self._begin(source, self._start(source, result))
        problem = None if result.status == "ok" and not result.message else self._problem(result)
        with self._changed:
            total = result.frames_read + result.frames_skipped
            self._counts = replace(
                self._counts,
                frames=max(0, total - before),
                failed=result.frames_failed,
                seconds=result.duration_s or 0.0,
                width=result.width or 0,
                height=result.height or 0,
            )
            counts = self._counts
        while not self._listener.finished(self.camera.name, counts, problem):
            if self._stop.wait(0.02):
                return
        self._done[source.name] = source.fingerprint

    @staticmethod
    def _problem(result: PieceResult) -> Problem:
        return Problem(result.status, result.error, result.message)

    def _start(self, source: Source, result: PieceResult) -> float:
        """POSIX seconds of the first frame: by the name, the container, or when the file was last written."""
        if source.start_time is not None:
            return source.start_time
        if result.started_at is not None:
            return result.started_at
        return source.mtime_ns / 1e9 - (result.duration_s or 0.0)

    def _begin(self, source: Source, start: float) -> None:
        with self._changed:
            self._newest = None
            self._counts = Counts(self._counts.session + 1, start, start)
            self._health = replace(self._health, connects=self._health.connects + 1)
        self._listener.connected(self.camera.name, start, Recording(source.name, source.fingerprint))

    def _hand_out(self, frame: Frame, start: float) -> bool:
        """Wait until the frame is taken; False when the watch ends first."""
        at = start + (frame.time_s or 0.0)
        sample = Sample(hidden(frame, self.camera.ignore), self._counts.session, at)
        with self._changed:
            self._counts = replace(
                self._counts, last=at, frames=self._counts.frames + 1, width=frame.width, height=frame.height
            )
            self._newest = sample
        self._listener.sampled(self.camera.name)
        with self._changed:
            self._changed.wait_for(lambda: self._newest is None or self._stop.is_set())
            return self._newest is None and not self._stop.is_set()


def is_folder(camera: Camera) -> bool:
    """Whether a camera is a folder of recordings."""
    return camera.address is not None and camera.address.kind == "folder" and os.path.isdir(camera.address.url)  # noqa: PTH112
