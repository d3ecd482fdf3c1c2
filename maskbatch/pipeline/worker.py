"""The worker: models loaded once, then units turned into rows.

    decode (threads, ahead) ─▶ detect ─▶ crop ─▶ classify ─▶ rows

Detector batches are filled across images, classifier batches across the faces of many images; the last one is padded by the
model's wrapper. A row depends on its own frame alone, so it does not matter which others were in the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from maskbatch.classify.classifier import FaceClassifier, make_classifier
from maskbatch.classify.crops import crop_faces, crops_need_full
from maskbatch.config import ScanConfig
from maskbatch.detect import make_detector
from maskbatch.detect.base import Detector
from maskbatch.detect.tiles import detect_in_tiles, needs_tiles
from maskbatch.pipeline.decode import Decoded, Decoder, new_result
from maskbatch.pipeline.rows import RowBuffer
from maskbatch.runtime import Device
from maskbatch.runtime.opencv import OneOpenCVThread
from maskbatch.sources.videos.packets import ignore_tick
from maskbatch.sources.videos.reader import split_video
from maskbatch.types import (
    Detections,
    Frame,
    Image,
    Piece,
    Problem,
    ProgressCallback,
    Source,
    Split,
    UnitRows,
    WorkUnit,
    as_problem,
)

SAMPLES_PER_PIECE = 20
"""A part of a video holds at least this many sampled frames, as far as the video is long enough: a part costs a receipt."""


@dataclass(frozen=True, slots=True)
class ScanWorkerSpec:
    """What a worker process needs to make its worker.

    Attributes:
        config: the settings of the scan.
        devices: on which the models run; several GPUs are shared out, one to a worker.
    """

    config: ScanConfig
    devices: tuple[Device, ...]

    @property
    def gpus(self) -> int:
        """See `WorkerSpec.gpus`."""
        return len(self.devices) if self.devices[0].is_gpu else 0

    @property
    def folders(self) -> tuple[str, ...]:
        """None: rows go to the work folder."""
        return ()

    def for_worker(self, number: int) -> Self:
        """For one worker: the GPU that is its own, in turn where there are more workers than GPUs."""
        return replace(self, devices=(self.devices[number % len(self.devices)],))

    def open(self) -> ScanWorker:
        """Load the models on the first device; raises ModelError or DeviceError."""
        threads = OneOpenCVThread()
        config, device, batch_size = self.config, self.devices[0], self.config.execution.batch_size
        return ScanWorker(
            config,
            make_detector(config.models, device, batch_size),
            make_classifier(config.models, device, batch_size),
            threads,
        )


class ScanWorker:
    """Turns units into rows. Not thread-safe; one per process."""

    def __init__(
        self, config: ScanConfig, detector: Detector, classifier: FaceClassifier, threads: OneOpenCVThread | None = None
    ) -> None:
        self._config = config
        self._threads = threads
        self.detector = detector
        self.classifier = classifier

    def close(self) -> None:
        """See `Worker.close`."""
        if self._threads is not None:
            self._threads.close()

    def run(self, unit: WorkUnit, report: ProgressCallback) -> UnitRows | Split:
        """Process one unit. Errors of its inputs are in the result; an exception is one of the models or of this machine."""
        started = time.monotonic()
        piece = unit.pieces[0]
        if piece.parts == 0:
            report("begin", 0)
            try:
                pieces = cut_video(piece.source, self._config, lambda: report("tick", 0))
            except Exception as error:
                result = new_result(piece)
                result.note(as_problem(error))
                report("end", 0)
                return UnitRows(b"", 0, (result,), started=started)
            if len(pieces) > 1:
                report("end", 0)
                return Split(pieces)
            unit = WorkUnit(unit.id, pieces)
        return UnitRun(self._config, self.detector, self.classifier, unit, report).run(started)


class UnitRun:
    """The state of one unit while it runs: what waits for the detector, what waits for the classifier, and the rows so far."""

    def __init__(
        self,
        config: ScanConfig,
        detector: Detector,
        classifier: FaceClassifier,
        unit: WorkUnit,
        report: ProgressCallback,
    ) -> None:
        self._config = config
        self._detector = detector
        self._classifier = classifier
        self._unit = unit
        self._report = report
        self._waiting: list[Decoded] = []
        self._crops: list[Image] = []
        self._crop_owners: list[int] = []
        self._rows = RowBuffer(classifier.task)
        self._seconds = dict.fromkeys(("detect", "crop", "classify", "write"), 0.0)
        self._decoder = Decoder(unit, config, detector.det_size, report)

    def run(self, started: float) -> UnitRows:
        """Decode, detect, classify; see `ScanWorker.run`."""
        with self._decoder.events() as events:
            for event in events:
                self._take(event)
            self._detect()
            self._classify(everything=True)
        clock = time.thread_time()
        part, rows = self._rows.to_parquet([result.faces for result in self._decoder.results])
        self._seconds["write"] += time.thread_time() - clock
        return UnitRows(
            part=part,
            rows=rows,
            results=tuple(self._decoder.results),
            labels=self._rows.labels(),
            stages={"decode": self._decoder.decode_s, **self._seconds},
            started=started,
        )

    def _take(self, event: Decoded) -> None:
        result = self._decoder.results[event.index]
        if event.frame is None:
            self._report("end", event.index)
        elif event.frame.skip_detection:
            self._report("tick", event.index)
        elif event.frame.image.size == 0:
            result.frames_failed += 1
        else:
            self._waiting.append(event)
            if len(self._waiting) >= self._detector.batch_size:
                self._detect()
            self._report("tick", event.index)

    def _detect(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        clock = time.thread_time()
        found = self._detector.detect([event.frame.image for event in waiting if event.frame is not None])
        spent = time.thread_time() - clock
        self._seconds["detect"] += spent
        for event, whole in zip(waiting, found, strict=True):
            self._decoder.results[event.index].detect_s += spent / len(waiting)
            detections = whole
            if event.frame is not None and self._config.models.tile == "auto":
                detections = self._in_tiles(event.index, event.frame, whole)
            if event.frame is not None and len(detections):
                clock = time.thread_time()
                self._crop(event.index, event.frame, detections)
                self._seconds["crop"] += time.thread_time() - clock
        self._classify()

    def _in_tiles(self, index: int, frame: Frame, found: Detections) -> Detections:
        """What is found in the whole of a large image and in its tiles, in pixels of `frame.image`."""
        if not needs_tiles(frame.height, frame.width, self._detector.det_size):
            return found
        clock, scale, result = time.thread_time(), frame.scale, self._decoder.results[index]
        try:
            full = frame.load_full()
        except Exception as error:  # decodes reduced but not in full: the reduced image is what there is
            cause = as_problem(error)
            result.note(Problem("partial", cause.error, cause.message))
            return found
        merged = detect_in_tiles(full, found.scaled(1 / scale), self._detector).scaled(scale)
        spent = time.thread_time() - clock
        self._seconds["tiles"] = self._seconds.get("tiles", 0.0) + spent
        result.detect_s += spent
        self._report("tick", index)
        return merged

    def _crop(self, index: int, frame: Frame, found: Detections) -> None:
        boxes, crops, problem = cut_faces(frame, found, self._config.models.min_face, self._classifier)
        if problem is not None:
            self._decoder.results[index].note(problem)
        if len(boxes):
            self._rows.add(frame, boxes, crops)
            self._crops.extend(crops)
            self._crop_owners.extend([index] * len(crops))
            self._decoder.results[index].faces += len(crops)

    def _classify(self, everything: bool = False) -> None:
        """Classify full batches of waiting crops, or all of them."""
        size = self._classifier.batch_size
        while len(self._crops) >= size or (everything and self._crops):
            crops, owners = self._crops[:size], self._crop_owners[:size]
            del self._crops[:size], self._crop_owners[:size]
            clock = time.thread_time()
            self._rows.add_probabilities(self._classifier.classify(np.stack(crops)))
            spent = time.thread_time() - clock
            self._seconds["classify"] += spent
            for owner in owners:
                self._decoder.results[owner].classify_s += spent / len(owners)


def cut_video(source: Source, config: ScanConfig, tick: Callable[[], None] = ignore_tick) -> tuple[Piece, ...]:
    """The parts in which a video is worked on; raises InputError."""
    seconds = config.execution.unit_seconds
    if config.sampling.mode == "every":
        seconds = max(seconds, SAMPLES_PER_PIECE * config.sampling.every_s)
    return split_video(source, config.sampling, seconds, config.limits, tick)


def cut_faces(
    frame: Frame, found: Detections, min_face: int, classifier: FaceClassifier
) -> tuple[Detections, Image, Problem | None]:
    """Keep the faces that are large enough, and cut them out of the smallest image that shows them well.

    Args:
        frame: whose `image` may be smaller than the original.
        found: faces in pixels of `frame.image`.
        min_face: pixels of the original that the longer side of a box must have.
        classifier: whose `size` and `context` the crops must have: those that it was trained with.

    Returns:
        The faces in pixels of the original, their n×S×S×3 crops, and what was wrong with the full image where it was needed.
    """
    scale = frame.scale
    boxes = found.scaled(1 / scale) if scale != 1 else found
    if min_face > 0:
        sides = (boxes.boxes[:, 2:] - boxes.boxes[:, :2]).max(axis=1, initial=0)
        keep = sides >= min_face
        found, boxes = found.select(keep), boxes.select(keep)
    size, context = classifier.size, classifier.context
    crops, problem = crop_faces(frame.image, found.boxes, size, context), None
    if scale < 1 and len(boxes):
        blurred = crops_need_full(found.boxes, scale, size, context)
        if blurred.any():
            try:
                crops[blurred] = crop_faces(frame.load_full(), boxes.boxes[blurred], size, context)
            except Exception as error:  # decodes reduced but not in full: the reduced crop is what there is
                cause = as_problem(error)
                problem = Problem("partial", cause.error, cause.message)
    return boxes, crops, problem
