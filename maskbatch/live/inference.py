"""The models of a watch: frames of all cameras in one batch, their faces in another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from maskbatch.config import ScanConfig
from maskbatch.errors import InputError
from maskbatch.pipeline.rows import sharpness
from maskbatch.pipeline.worker import ScanWorker, ScanWorkerSpec, cut_faces
from maskbatch.runtime import Device
from maskbatch.sources.live.reader import FrameReader, Sample
from maskbatch.tasks import Task
from maskbatch.types import Detections, Floats, Image, Problem

MAX_BATCH = 8
"""Frames that are looked at together at most: more would make the first wait."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A frame that was looked at.

    Attributes:
        camera: its name.
        sample: the frame.
        found: n faces in pixels of the original.
        crops: n×S×S×3 uint8 BGR.
        probabilities: n×k float32.
        sharpness: of the crops.
        detect_s, classify_s: seconds of CPU.
        problem: the frame could not be looked at, or not in full size.
    """

    camera: str
    sample: Sample | None
    found: Detections
    crops: Image
    probabilities: Floats
    sharpness: list[float]
    detect_s: float = 0.0
    classify_s: float = 0.0
    problem: Problem | None = None


class Desk:
    """Where frames of all cameras wait: whoever has models free takes the newest of those who have waited longest.

    A camera's frames are looked at one after another, so that persons can be followed.
    """

    def __init__(self, readers: Sequence[FrameReader]) -> None:
        self._readers = {reader.camera.name: reader for reader in readers}
        self._order = list(self._readers)
        self._busy: set[str] = set()
        self._changed = threading.Condition()
        self._closed = False

    def ring(self) -> None:
        """A frame waits."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Nobody is to wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, count: int) -> list[str]:
        """Up to `count` cameras with a frame that waits, which are the caller's until `give_back`; empty when closed."""
        with self._changed:
            while not self._closed:
                ready = [name for name in self._order if name not in self._busy and self._readers[name].waits][:count]
                if ready:
                    self._busy.update(ready)
                    self._order = [name for name in self._order if name not in ready] + ready
                    return ready
                self._changed.wait(1.0)
            return []

    def give_back(self, cameras: Sequence[str]) -> None:
        """These may be taken again."""
        with self._changed:
            self._busy.difference_update(cameras)
            self._changed.notify()

    def is_busy(self, camera: str) -> bool:
        """Whether a frame of it is being looked at."""
        with self._changed:
            return camera in self._busy

    def reader(self, camera: str) -> FrameReader:
        """The reader of a camera."""
        return self._readers[camera]


class Models:
    """Threads with models of their own, all taking from one desk.

    Args:
        config: as in a scan.
        devices: on which the models run.
        workers: threads.
        result: called with each frame that was looked at, in the order of its camera; it must not raise.
    """

    def __init__(
        self,
        config: ScanConfig,
        devices: tuple[Device, ...],
        workers: int,
        result: Callable[[Looked], None],
    ) -> None:
        """Raises ModelError, DeviceError."""
        self._config = config
        self._result = result
        spec = ScanWorkerSpec(config, devices)
        self._workers: list[ScanWorker] = [spec.for_worker(number).open() for number in range(workers)]
        for worker in self._workers:
            worker.classifier.warm_up()
        self._threads: list[threading.Thread] = []
        self._desk: Desk | None = None
        self.error: BaseException | None = None

    @property
    def cover(self) -> int:
        """Long side in pixels of the images that the detector wants."""
        return self._workers[0].detector.det_size

    @property
    def task(self) -> Task:
        """What is judged."""
        return self._workers[0].classifier.task

    def start(self, desk: Desk) -> None:
        """Begin to take frames."""
        self._desk = desk
        for worker in self._workers:
            thread = threading.Thread(target=self._run, args=(worker, desk), name="maskbatch-models", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float) -> None:
        """End after the batch in hand."""
        if self._desk is not None:
            self._desk.close()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            for worker in self._workers:
                worker.close()

    def _run(self, worker: ScanWorker, desk: Desk) -> None:
        size = max(worker.detector.batch_size, MAX_BATCH)
        try:
            while cameras := desk.take(size):
                try:
                    self._look(worker, desk, cameras)
                finally:
                    desk.give_back(cameras)
        except BaseException as error:  # the models do not work: the watch ends with it
            self.error = error

    def _look(self, worker: ScanWorker, desk: Desk, cameras: Sequence[str]) -> None:
        taken: list[tuple[str, Sample]] = []
        for camera in cameras:
            try:
                sample = desk.reader(camera).take()
            except InputError as error:
                self._result(_nothing(camera, worker, error))
                continue
            if sample is not None:
                taken.append((camera, sample))
        if not taken:
            return
        clock = time.thread_time()
        found = worker.detector.detect([sample.frame.image for _, sample in taken])
        detect_s = (time.thread_time() - clock) / len(taken)
        cut = []
        for (_, sample), detections in zip(taken, found, strict=True):
            boxes, crops, problem = cut_faces(sample.frame, detections, self._config.models.min_face, worker.classifier)
            cut.append((boxes, crops, problem))
        clock = time.thread_time()
        faces = [len(boxes) for boxes, _, _ in cut]
        probabilities = worker.classifier.classify(np.concatenate([crops for _, crops, _ in cut]))
        classify_s = (time.thread_time() - clock) / max(1, sum(faces))
        begin = 0
        for (camera, sample), (boxes, crops, problem) in zip(taken, cut, strict=True):
            end = begin + len(boxes)
            sharp = [sharpness(crop) for crop in crops]
            part = probabilities[begin:end]
            seconds = detect_s, classify_s * len(boxes)
            self._result(Looked(camera, sample, boxes, crops, part, sharp, *seconds, problem))
            begin = end


def _nothing(camera: str, worker: ScanWorker, error: InputError) -> Looked:
    size, labels = worker.classifier.size, len(worker.classifier.labels)
    crops = np.zeros((0, size, size, 3), np.uint8)
    problem = Problem("partial", error.code, error.message)
    return Looked(camera, None, Detections.empty(), crops, np.zeros((0, labels), np.float32), [], problem=problem)
