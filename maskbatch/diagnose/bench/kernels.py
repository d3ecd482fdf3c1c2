"""The kernels alone, on one core: no threads, no queues, no other process.

Each frame goes through the stages one after the other, so that its pixels are as warm in the caches as they can be; what is timed are
the very functions that a worker calls. Times are of the wall clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from maskbatch.classify.classifier import FaceClassifier
from maskbatch.config import ScanConfig
from maskbatch.detect.base import Detector
from maskbatch.errors import InputError
from maskbatch.jobs.ledger import Ledger
from maskbatch.jobs.units import make_unit
from maskbatch.pipeline.rows import RowBuffer
from maskbatch.pipeline.worker import ScanWorkerSpec, cut_faces, cut_video
from maskbatch.runtime import Device
from maskbatch.sources.images.decode import decode_image
from maskbatch.sources.videos.packets import packet_index
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.storage.local import LocalStore
from maskbatch.storage.opener import read_bytes
from maskbatch.types import Detections, Floats, Frame, Image, Piece, PieceResult, Source, UnitRows, whole_piece

STAGES = ("decode", "detect", "crop", "classify", "write")

Value = TypeVar("Value")


@dataclass(slots=True)
class KernelTimes:
    """What the kernels took for a sample of the inputs.

    Attributes:
        frames: images, or sampled frames of video.
        faces: found in them.
        seconds: by stage, for all of them.
    """

    frames: int = 0
    faces: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def per_frame(self) -> dict[str, float]:
        """Seconds of one core per frame, by stage."""
        return {stage: seconds / max(1, self.frames) for stage, seconds in self.seconds.items()}

    def ceiling(self, cores: int) -> float:
        """Frames per second if the cores did nothing but run kernels."""
        total = sum(self.seconds.values())
        return cores * self.frames / total if total else 0.0


class KernelBench:
    """Loads the models once, then times the kernels as often as it is asked to."""

    def __init__(self, config: ScanConfig, device: Device) -> None:
        self._config = config
        self._detector, self._classifier = _models(config, device)
        self._times = KernelTimes()
        self._index_per_frame = 0.0

    def measure(self, sources: Sequence[Source], budget_s: float) -> KernelTimes:
        """Time the kernels over `sources` until about `budget_s` seconds have gone; every input counts whole.

        The inputs should be mixed as in the set they stand for (`spread`).
        """
        self._times = KernelTimes()
        end = time.perf_counter() + budget_s
        with tempfile.TemporaryDirectory(prefix="maskbatch-bench-") as folder:
            ledger = Ledger(LocalStore(Path(folder)))
            for pieces in self._parcels(sources):
                self._unit(pieces, ledger)
                if time.perf_counter() > end:
                    break
        return self._times

    def _parcels(self, sources: Sequence[Source]) -> Iterator[list[Piece]]:
        """Units as a scan cuts them, of one kind each; of a video, pieces from all over it."""
        execution, images = self._config.execution, []
        for source in sources:
            if source.media == "image":
                images.append(whole_piece(source))
                if len(images) == execution.unit_images:
                    yield images
                    images = []
                continue
            pieces = self._split(source)
            for piece in spread(pieces, len(pieces)):
                yield [piece]
        if images:
            yield images

    def _split(self, source: Source) -> Sequence[Piece]:
        config = self._config
        started = time.perf_counter()
        index = packet_index(source, config.limits, assume_fps=config.sampling.assume_fps)
        spent = time.perf_counter() - started
        pieces = cut_video(source, config)
        # Every worker reads the index once; its share of a frame is small and the number of frames not known yet.
        sampled = max(1.0, (index.duration_s() or 0.0) / config.sampling.every_s)
        self._index_per_frame = spent / sampled
        return pieces

    def _unit(self, pieces: list[Piece], ledger: Ledger) -> None:
        times, rows = self._times, RowBuffer(self._classifier.task)
        results = [
            PieceResult(piece.source.name, piece.source.fingerprint, piece.part, max(1, piece.parts))
            for piece in pieces
        ]
        crops: list[Image] = []
        for frame, result in self._decoded(pieces, results):
            times.frames += 1
            found = self._timed("detect", lambda: self._detector.detect([frame.image])[0])  # noqa: B023
            if len(found):
                cut = self._timed("crop", lambda: self._cut(rows, frame, found))  # noqa: B023
                result.faces += len(cut)
                crops.extend(cut)
            size = self._classifier.batch_size
            while len(crops) >= size:
                self._classify(rows, crops[:size])
                del crops[:size]
        if crops:
            self._classify(rows, crops)
        times.faces += sum(result.faces for result in results)

        def write() -> None:
            part, count = rows.to_parquet([result.faces for result in results])
            unit_rows = UnitRows(part, count, tuple(results), rows.labels())
            ledger.commit(make_unit(pieces, "bench"), unit_rows)

        self._timed("write", write)

    def _decoded(self, pieces: list[Piece], results: list[PieceResult]) -> Iterator[tuple[Frame, PieceResult]]:
        config, cover = self._config, self._detector.det_size
        for piece, result in zip(pieces, results, strict=True):
            if piece.source.media == "image":
                frame = self._timed("decode", lambda: self._picture(piece.source.path, cover))  # noqa: B023
                if frame is not None:
                    yield frame, result
                continue
            started = time.perf_counter()
            with VideoReader(piece, config.sampling, config.limits, cover) as reader:
                for frame in reader:
                    self._times.seconds["decode"] += time.perf_counter() - started + self._index_per_frame
                    yield frame, result
                    started = time.perf_counter()
            self._times.seconds["decode"] += time.perf_counter() - started

    def _picture(self, path: str, cover: int) -> Frame | None:
        try:
            return decode_image(read_bytes(path), cover=cover, max_pixels=self._config.limits.max_pixels)
        except InputError:
            return None

    def _cut(self, rows: RowBuffer, frame: Frame, found: Detections) -> Image:
        boxes, crops, _ = cut_faces(frame, found, self._config.models.min_face, self._classifier)
        if len(boxes):
            rows.add(frame, boxes, crops)
        return crops

    def _classify(self, rows: RowBuffer, crops: list[Image]) -> None:
        def classify() -> Floats:
            return self._classifier.classify(np.stack(crops))

        rows.add_probabilities(self._timed("classify", classify))

    def _timed(self, stage: str, kernel: Callable[[], Value]) -> Value:
        started = time.perf_counter()
        value = kernel()
        self._times.seconds[stage] += time.perf_counter() - started
        return value


def spread(items: Sequence[Value], count: int) -> list[Value]:
    """`count` of the items in an order in which any beginning of the list is spread over the whole of it (van der Corput)."""
    bits = max(1, (len(items) - 1).bit_length())
    order = (int(f"{index:0{bits}b}"[::-1], 2) for index in range(1 << bits))
    return [items[position] for position in order if position < len(items)][:count]


def _models(config: ScanConfig, device: Device) -> tuple[Detector, FaceClassifier]:
    worker = ScanWorkerSpec(config, (device,)).open()
    return worker.detector, worker.classifier
