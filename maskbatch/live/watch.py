"""The watch: cameras in; rows, tracks, events and a state for the page out; until somebody says stop."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pyarrow as pa

from maskbatch.config import Execution, ScanConfig
from maskbatch.draw.faces import Face
from maskbatch.errors import MaskbatchError, OutputError, UsageError
from maskbatch.live.events import Alarms, Event, EventWriter
from maskbatch.live.frames import KeptFrames
from maskbatch.live.inference import Desk, Looked, Models
from maskbatch.live.options import WatchOptions
from maskbatch.live.people import People, Person, track_rows
from maskbatch.live.rolling import Identity, RollingResult
from maskbatch.live.session import Session, gap, source_name, unique_name, with_counts
from maskbatch.live.state import CameraView, View, last_frame
from maskbatch.live.webhook import Webhook, webhook_address
from maskbatch.pipeline.models import model_identity, pin_models
from maskbatch.results.paths import OutputPaths
from maskbatch.results.tracks import TRACKS
from maskbatch.runtime import list_devices, usable_cpus
from maskbatch.sources.capture_metadata import capture_zone
from maskbatch.sources.live.cameras import Camera
from maskbatch.sources.live.folder import ENDED, FolderReader, is_folder
from maskbatch.sources.live.reader import CameraReader, Counts, FrameReader, Health, Recording, Timing
from maskbatch.storage import open_store
from maskbatch.types import Image, PieceResult, Problem

TICK_S = 0.2
STOP_S = 1.5
"""Seconds in which threads are waited for at the end; what then still waits for a camera's answer is left behind."""

LATE_S = 1.0
"""So long after the end of a connection its last frame may still be looked at."""

RECENT_EVENTS = 50


@dataclass(slots=True)
class _Watched:
    """What the watch holds of one camera."""

    camera: Camera
    reader: FrameReader
    session: Session | None = None
    lost_at: float | None = None
    lost_why: str = ""
    gap_name: str = ""
    ended_at: float = 0.0
    latency_s: float = 0.0
    samples: int = 0
    dropped_before: int = 0
    failed_before: int = 0
    day: str = ""
    today: Counter[str] = field(default_factory=Counter)
    shown: tuple[Image, list[Face], float] | None = None


class Watch:
    """A scan without an end.

    ::

        watch = Watch(cameras_of(["gate=rtsp://host/stream"]), WatchOptions(out="live/"))
        watch.run(stop)          # a threading.Event

    Args:
        cameras: at least one, with addresses.
        options: settings.
        wall: POSIX seconds now.

    Raises:
        MaskbatchError: what a person can fix: the models, the device, the output, a package that is missing.
    """

    def __init__(self, cameras: Sequence[Camera], options: WatchOptions, wall: Callable[[], float] = time.time) -> None:
        if not cameras:
            raise UsageError("name at least one camera: NAME=rtsp://host/path, or a file cameras.toml")
        if options.webhook is not None:
            webhook_address(options.webhook)
        self.options = options
        self._wall = wall
        self._lock = threading.RLock()
        self._cleanup = ExitStack()
        devices = list_devices(options.device)
        models = pin_models(options.models, devices[0])
        config = ScanConfig(
            models=models,
            sampling=options.sampling,
            limits=options.limits,
            execution=Execution(device=options.device, workers=1),
        )
        workers = options.workers or (len(devices) if devices[0].is_gpu else max(1, usable_cpus() // 2))
        self.models = Models(config, devices, workers, self._looked)
        self.task = self.models.task
        unknown = [label for label in options.rules.labels if label not in self.task.labels]
        if unknown:
            raise UsageError(f"--alarm {unknown[0]}: the classifier's labels are {', '.join(self.task.labels)}")
        if options.follows_people:
            People(self.task, options.sampling.every_s)  # says now if the library is missing
        self._names: set[str] = set()
        self._ended: list[PieceResult] = []
        self._ended_rows: list[pa.Table] = []
        self._finished: list[pa.Table] = []
        self._commit_error = ""
        self.result: RollingResult | None = None
        settings = config.row_settings()
        identity = Identity(settings, model_identity(models, devices[0]), devices[0].provider)
        self._out = OutputPaths.of(options.out) if options.out is not None else None
        self._identity = identity
        self.device = devices[0].name
        self.alarms = Alarms(options.rules, self.task)
        self.events: list[Event] = []
        self.event_count: Counter[str] = Counter()
        self._pending: list[Event] = []
        self._writer: EventWriter | None = None
        self._webhook: Webhook | None = None
        self._frames: KeptFrames | None = None
        if options.keep_frames == "alarms" and options.frames is not None:
            self._frames = KeptFrames(options.frames, options.retain_s, self.task)
        self._cameras = {camera.name: _Watched(camera, self._reader(camera)) for camera in cameras}
        self.desk = Desk([watched.reader for watched in self._cameras.values()])
        self.started = wall()
        self._changed = threading.Condition()
        self._version = 0
        self._at_end: list[Callable[[], None]] = []
        self.has_ended = False

    def _reader(self, camera: Camera) -> FrameReader:
        options, cover = self.options, self.models.cover
        if is_folder(camera):

            def progress(name: str, fingerprint: str) -> int | None:
                return self._progress(f"{camera.name}/{name}", fingerprint)

            return FolderReader(
                camera, options.sampling, cover, options.limits, self, progress, options.settle_s, self._wall
            )
        timing = Timing(stall_s=options.stall_s, open_s=options.stall_s, speed=options.speed)
        return CameraReader(camera, options.sampling, cover, options.limits, self, timing, self._wall)

    # --- from beginning to end

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set; everything that was looked at is then written.

        Raises:
            OutputError: the table or the events cannot be written; LockedError where another watch writes there.
            MaskbatchError: the models fail.
        """
        options = self.options
        with self._cleanup as cleanup:
            if self._out is not None:
                work = open_store(self._out.path(self._out.work))
                cleanup.enter_context(work.lock("lock"))
                self.result = RollingResult(self._out, self.task, self._identity)
                self._resume(self.result)
            if options.events is not None:
                self._writer = EventWriter(options.events)
                cleanup.callback(self._writer.close)
            if options.webhook is not None:
                self._webhook = Webhook(options.webhook, options.webhook_secret)
            if self.result is not None:
                self._commit()  # so that the result can be read from the beginning, and that it can be written is known
            self.models.start(self.desk)
            for watched in self._cameras.values():
                watched.reader.start()
            try:
                self._loop(stop)
            finally:
                self.has_ended = True
                for call in self._at_end:
                    call()
                self._end()
        if self.models.error is not None:
            raise self.models.error

    def _loop(self, stop: threading.Event) -> None:
        committed, expired = time.monotonic(), float("-inf")
        while not stop.wait(TICK_S) and self.models.error is None:
            now = self._wall()
            with self._lock:
                self._update(now)
                for event in (*self.alarms.check_lost(now), self.alarms.share(now)):
                    self._tell(event)
            self._deliver()
            clock = time.monotonic()
            if clock - committed >= self.options.commit_s:
                committed = clock
                try:
                    self._commit()
                    self._commit_error = ""
                except OutputError as error:  # a full disk may have room again; rows wait meanwhile
                    self._commit_error = str(error)
            if self._frames is not None and clock - expired >= min(60.0, self.options.retain_s / 2):
                expired = clock
                self._frames.expire(now)

    def _end(self) -> None:
        for watched in self._cameras.values():
            watched.reader.stop()
        self.models.stop(STOP_S)
        now = self._wall()
        with self._lock:
            self._update(now)
            for watched in self._cameras.values():
                if watched.session is not None:
                    watched.session.ended = watched.session.ended or "the watch was stopped"
                    self._close_session(watched)
        self._deliver()
        if self.result is not None:
            self._commit(closed=True)
        if self._webhook is not None:
            self._webhook.close(0.5)
        until = time.monotonic() + 0.3
        for watched in self._cameras.values():
            watched.reader.join(max(0.0, until - time.monotonic()))

    # --- what readers tell (Listener)

    def sampled(self, camera: str) -> None:
        """See `Listener`."""
        self.desk.ring()

    def connected(self, camera: str, at: float, recording: Recording | None = None) -> None:
        """See `Listener`."""
        with self._lock:
            watched = self._cameras[camera]
            if watched.lost_at is not None:
                self._ended.append(gap(watched.gap_name, watched.lost_at, at, watched.lost_why))
                watched.lost_at = None
            if watched.session is not None:
                self._close_session(watched)
            self._open_session(watched, watched.reader.counts, at, recording)
            self._tell(self.alarms.back(camera, at))

    def finished(self, camera: str, counts: Counts, problem: Problem | None) -> bool:
        """See `Listener`."""
        with self._lock:
            watched = self._cameras[camera]
            session = watched.session
            if session is None or watched.reader.waits or self.desk.is_busy(camera):
                return session is None
            with_counts(session, counts)
            session.problem, session.ended = problem, ENDED
            self._close_session(watched)
            self._touch()
            return True

    def lost(self, camera: str, counts: Counts, health: Health) -> None:
        """See `Listener`."""
        with self._lock:
            watched = self._cameras[camera]
            at = counts.last if counts.session else health.since
            if watched.session is not None:
                with_counts(watched.session, counts)
                watched.session.ended = watched.session.ended or health.reason
                watched.ended_at = self._wall()
            if watched.lost_at is None:
                watched.lost_at = at
                watched.gap_name = source_name(camera, at, self._names)
            watched.lost_why = health.reason
            self.alarms.lost(camera, at, health.reason)
            self._touch()

    def _open_session(self, watched: _Watched, counts: Counts, at: float, recording: Recording | None) -> None:
        camera = watched.camera.name
        people = People(self.task, self.options.sampling.every_s) if self.options.follows_people else None
        if recording is None:
            name = source_name(camera, at, self._names)
        else:
            name = unique_name(f"{camera}/{recording.name}", self._names)
        watched.session = session = Session(name, camera, counts.session, at, self.task, people, counts)
        if recording is not None:
            session.fingerprint = recording.fingerprint

    def _close_session(self, watched: _Watched) -> None:
        """Its rows are all there. The lock is held."""
        session = watched.session
        assert session is not None
        watched.session = None
        watched.dropped_before += session.counts.dropped
        watched.failed_before += session.counts.failed
        self._finish(session, None)
        rows = session.rows(tracked=self.options.track)
        if rows is not None:
            self._ended_rows.append(rows)
        self._ended.append(session.result())

    # --- what the models tell

    def _looked(self, looked: Looked) -> None:
        with self._lock:
            watched = self._cameras[looked.camera]
            session = watched.session
            sample = looked.sample
            if session is None or (sample is not None and sample.session != session.number):
                return
            tracks = session.add(looked, keep_rows=self.result is not None)
            if sample is None:
                return
            watched.samples += 1
            watched.latency_s = max(0.0, self._wall() - sample.at)
            self._count_today(watched, looked, sample.at)
            faces = _faces(looked, tracks, session)
            watched.shown = (sample.frame.image, [_scaled(face, sample.frame.scale) for face in faces], sample.at)
            if session.people is not None:
                for number in sorted({n for n in tracks if n >= 0}):
                    person = session.people.present[number]
                    event = self.alarms.person(looked.camera, session.name, person, sample.at)
                    if event is not None:
                        self._alarm(event, looked, faces, sample.at)
                self._finish(session, sample.frame.time_s)
            self._touch()

    def _alarm(self, event: Event, looked: Looked, faces: list[Face], at: float) -> None:
        if self._frames is not None and looked.sample is not None:
            try:
                path = self._frames.keep(looked.sample.frame.load_full(), faces, looked.camera, at, event["id"])
                event["image"] = str(path)
            except (MaskbatchError, OSError) as error:
                event["image_error"] = str(error)
        self._tell(event)

    def _count_today(self, watched: _Watched, looked: Looked, at: float) -> None:
        zone = capture_zone(watched.camera.timezone)
        day = _day(at, zone)
        if day != watched.day:
            watched.day, watched.today = day, Counter()
        for index in looked.probabilities.argmax(axis=1) if len(looked.found) else ():
            watched.today[self.task.labels[int(index)]] += 1

    def _finish(self, session: Session, time_s: float | None) -> None:
        """Let go of those who have left."""
        if session.people is None:
            return
        gone = session.people.leave(time_s)
        for person in gone:
            self.alarms.finished(person, person.last_at / 1e6)
        if gone and self.options.track and self.result is not None:
            self._finished.append(track_rows(session.name, session.camera, gone, self.task))

    # --- events

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._pending.append(event)
            self.event_count[event["event"]] += 1
            self.events = [*self.events[-RECENT_EVENTS + 1 :], event]
            self._touch()
            if event["event"] == "no_mask":
                self._deliver()  # at once; the others wait for the next tick

    def _deliver(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, []
        for event in pending:
            if self._writer is not None:
                self._writer.write(event)
            if self._webhook is not None:
                self._webhook.send(event)

    # --- the result

    def _resume(self, result: RollingResult) -> None:
        """What an earlier watch left: names that are taken, and the time since its last commit if it was killed."""
        self._names.update(entry.name.removesuffix(".gap") for entry in result.inputs)
        if result.resumed is None:
            return
        at, closed = result.resumed
        if not closed:
            for camera in result.open_cameras:
                if camera in self._cameras and is_folder(self._cameras[camera].camera):
                    continue  # its files are still there
                name = source_name(camera, at, self._names)
                reason = "the watch was killed or the machine stopped; what came after its last commit is lost"
                result.inputs.append(gap(name, at, self._wall(), reason))

    def _progress(self, name: str, fingerprint: str) -> int | None:
        """How many samples of a recording are in the result; None for all of them."""
        with self._lock:
            entries = [*(self.result.inputs if self.result is not None else []), *self._ended]
        mine = [e for e in entries if e.fingerprint == fingerprint and name in (e.name, e.name.rpartition("~")[0])]
        if any(f"ended: {ENDED}" in entry.message for entry in mine):
            return None
        return sum(entry.frames_read for entry in mine)

    def _commit(self, *, closed: bool = False) -> None:
        """Make all rows so far final. Raises OutputError; they are then tried again with the next commit."""
        result = self.result
        assert result is not None
        with self._lock:
            now = self._wall()
            self._update(now)
            sessions = [w.session for w in self._cameras.values() if w.session is not None]
            self._ended_rows += [r for s in sessions if (r := s.rows(tracked=self.options.track)) is not None]
            tables, finished, ended = self._ended_rows, self._finished, self._ended
            open_inputs = [session.result() for session in sessions]
            for watched in self._cameras.values():
                if watched.lost_at is not None:
                    open_inputs.append(gap(watched.gap_name, watched.lost_at, now, watched.lost_why))
            present = [
                track_rows(s.name, s.camera, list(s.people.present.values()), self.task)
                for s in sessions
                if s.people is not None
            ]
            self._ended_rows, self._finished, self._ended = [], [], []
        track = self.options.track
        result.inputs += ended
        try:
            result.commit(
                pa.concat_tables(tables).unify_dictionaries() if tables else None,
                open_inputs,
                finished=pa.concat_tables([TRACKS.empty_table(), *finished]) if track else None,
                present=pa.concat_tables([TRACKS.empty_table(), *present]) if track else None,
                cameras={n: w.camera.address.shown for n, w in self._cameras.items() if w.camera.address},
                at=now,
                closed=closed,
            )
        except BaseException:
            with self._lock:  # nothing of it counts
                del result.inputs[len(result.inputs) - len(ended) :]
                self._ended_rows, self._finished = [*tables, *self._ended_rows], [*finished, *self._finished]
                self._ended = [*ended, *self._ended]
            raise

    def _update(self, now: float) -> None:
        for watched in self._cameras.values():
            session = watched.session
            if session is None:
                continue
            if session.ended is None:
                with_counts(session, watched.reader.counts)
            elif now - watched.ended_at > LATE_S:
                self._close_session(watched)

    # --- what the page shows

    def _touch(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def wait_for_change(self, version: int, timeout_s: float) -> int:
        """Wait until something is newer than `version`; the newest version."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version, timeout_s)
            return self._version

    def at_end(self, call: Callable[[], None]) -> None:
        """Call this when the watch ends."""
        self._at_end.append(call)

    def view(self) -> View:
        """All that a page or a monitor shows, with nothing secret in it."""
        with self._lock:
            cameras = tuple(self._camera_view(watched) for watched in self._cameras.values())
            return View(
                labels=self.task.labels,
                headline=self.task.headline,
                cameras=cameras,
                events=tuple(reversed(self.events)),
                event_count=dict(self.event_count),
                suppressed=self.alarms.suppressed,
                rows=0 if self.result is None else self.result.rows,
                commit_error=self._commit_error,
                webhook_failed=0 if self._webhook is None else self._webhook.failed + self._webhook.dropped,
                started=self.started,
                at=self._wall(),
            )

    def frame(self, camera: str, *, show_faces: bool) -> bytes | None:
        """The last frame that was looked at, as JPEG, blurred unless `show_faces`; None where there is none."""
        watched = self._cameras.get(camera)
        shown = None if watched is None else watched.shown
        return None if shown is None else last_frame(shown[0], shown[1], self.task, show_faces=show_faces)

    def _camera_view(self, watched: _Watched) -> CameraView:
        session, health, counts = watched.session, watched.reader.health, watched.reader.counts
        people: Counter[str] = Counter()
        if session is not None and session.people is not None:
            for person in session.people.near(session.counts.seconds):
                people[self.task.labels[person.winner[0]]] += 1
        today = watched.today if watched.day == _day(self._wall(), capture_zone(watched.camera.timezone)) else {}
        address = watched.camera.address
        open_dropped = counts.dropped if session is not None else 0
        open_failed = counts.failed if session is not None else 0
        return CameraView(
            name=watched.camera.name,
            address=address.shown if address else "",
            state=health.state,
            since=health.since,
            reason=health.reason if health.state != "live" else "",
            connects=health.connects,
            frames=counts.frames,
            samples=watched.samples,
            dropped=watched.dropped_before + open_dropped,
            failed=watched.failed_before + open_failed,
            latency_s=watched.latency_s,
            shown_at=watched.shown[2] if watched.shown else None,
            people=dict(people),
            today=dict(today),
        )


def _faces(looked: Looked, tracks: list[int], session: Session) -> list[Face]:
    faces = []
    for index, box in enumerate(looked.found.boxes):
        x1, y1, x2, y2 = (float(v) for v in box)
        best = int(looked.probabilities[index].argmax())
        track = tracks[index] if tracks and tracks[index] >= 0 else None
        confidence = float(looked.probabilities[index][best])
        faces.append(Face(x1, y1, x2, y2, session.task.labels[best], confidence, track))
    return faces


def _scaled(face: Face, scale: float) -> Face:
    return replace(face, x1=face.x1 * scale, y1=face.y1 * scale, x2=face.x2 * scale, y2=face.y2 * scale)


def _day(at: float, zone: dt.tzinfo | None) -> str:
    return dt.datetime.fromtimestamp(at, zone).date().isoformat()


__all__ = ["Person", "Watch"]
