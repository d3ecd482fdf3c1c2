"""The decoding side of a worker: pieces in, frames out, in order, ahead of the models and within a budget of bytes.

A unit's images are read and decoded by a few threads, at most one image per thread beyond the queue's budget; a video by one
thread, since its frames depend on each other. Each event carries the index of its piece.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

from maskbatch.config import ScanConfig
from maskbatch.detect.tiles import TILE_FROM
from maskbatch.pipeline.prefetch import ByteQueue, Closed
from maskbatch.sources.areas import hidden
from maskbatch.sources.images.decode import decode_image
from maskbatch.sources.images.dhash import dhash
from maskbatch.sources.videos.memory import release_decoders
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.storage.opener import open_binary, read_bytes
from maskbatch.types import Frame, Piece, PieceResult, Problem, ProgressCallback, WorkUnit, as_problem

HASH_BLOCK = 1 << 20
DEFAULT_PREFETCH_MB = 16


SURE_FACE = 16
"""Pixels at the detector's size below which a face is often missed: in mosaics, half of the heads of 23 pixels were found and none of 8."""

SHRUNK = "looked at {:.1f} times smaller than it is, so faces under about {} pixels can be missed; --tile auto or --det-size 1280"


@dataclass(slots=True)
class Decoded:
    """One event of the decoding side: a frame, or (with `frame` None) the end of a piece."""

    index: int
    frame: Frame | None


def new_result(piece: Piece) -> PieceResult:
    """The result of a piece of which nothing is known yet."""
    source = piece.source
    return PieceResult(source.name, source.fingerprint, part=piece.part, parts=max(1, piece.parts))


class Decoder:
    """Decodes the pieces of one unit ahead of its reader.

    Args:
        unit: what to decode.
        config: sampling, limits, prefetch budget and threads.
        cover: long side in pixels that a decoded image must at least have, for the detector's sake.
        report: told when a piece begins, and that something moves.

    Attributes:
        results: one per piece; complete once the piece's end event has been delivered, except faces and model times.
        decode_s: seconds of CPU spent reading and decoding so far.
    """

    def __init__(self, unit: WorkUnit, config: ScanConfig, cover: int, report: ProgressCallback) -> None:
        self._unit = unit
        self._config = config
        self._cover = cover
        self._report = report
        self.results = [new_result(piece) for piece in unit.pieces]

    @property
    def decode_s(self) -> float:
        return sum(result.decode_s for result in self.results)

    @contextmanager
    def events(self) -> Iterator[Iterator[Decoded]]:
        """The events in order; the threads have ended when the block is left, whatever happened in it."""
        queue: ByteQueue[Decoded] = ByteQueue((self._config.execution.prefetch_mb or DEFAULT_PREFETCH_MB) << 20)
        thread = threading.Thread(target=self._produce, args=(queue,), name="maskbatch-decode", daemon=True)
        thread.start()
        try:
            yield iter(queue)
        finally:
            queue.close()
            thread.join()

    def _produce(self, queue: ByteQueue[Decoded]) -> None:
        with closing(self._events()) as events:
            try:
                for event, nbytes in events:
                    queue.put(event, nbytes)
            except Closed:
                queue.finish()
            except BaseException as error:
                queue.finish(error)
            else:
                queue.finish()

    def _events(self) -> Generator[tuple[Decoded, int]]:
        """The events with the bytes that each of them holds."""
        threads = max(1, self._config.execution.decode_threads)
        images = [(i, piece) for i, piece in enumerate(self._unit.pieces) if piece.source.media == "image"]
        videos = [(i, piece) for i, piece in enumerate(self._unit.pieces) if piece.source.media == "video"]
        for index, frame in self._pictures(images, threads):
            if frame is not None:
                yield Decoded(index, frame), frame.image.nbytes
            yield Decoded(index, None), 0
        for index, piece in videos:
            yield from self._video(index, piece)
            release_decoders()

    def _pictures(self, images: list[tuple[int, Piece]], threads: int) -> Iterator[tuple[int, Frame | None]]:
        if threads == 1:
            for index, piece in images:
                yield index, self._decode_image(index, piece)
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="maskbatch-decode") as pool:
            ahead: deque[tuple[int, Future[Frame | None]]] = deque()
            try:
                for index, piece in images:
                    ahead.append((index, pool.submit(self._decode_image, index, piece)))
                    if len(ahead) > threads:
                        first, future = ahead.popleft()
                        yield first, future.result()
                while ahead:
                    first, future = ahead.popleft()
                    yield first, future.result()
            finally:
                for _, future in ahead:
                    future.cancel()

    def _decode_image(self, index: int, piece: Piece) -> Frame | None:
        self._report("begin", index)
        result = self.results[index]
        started = time.thread_time()
        frame = None
        try:
            data = read_bytes(piece.source.path)
            if self._config.outputs.hash:
                result.sha256 = hashlib.sha256(data).hexdigest()
            frame = decode_image(data, cover=self._cover, max_pixels=self._config.limits.max_pixels)
            result.width, result.height, result.frames_read = frame.width, frame.height, 1
            if frame.problem is not None:
                result.note(frame.problem)
                result.frames_skipped = frame.problem.frames_left
            result.taken_at = frame.taken_at
            if self._config.outputs.skip_duplicates:
                result.dhash = dhash(frame.image)
            shrunk = max(frame.width, frame.height) / self._cover if self._cover else 0.0
            if shrunk > TILE_FROM and self._config.models.tile == "off":
                result.note(Problem("ok", None, SHRUNK.format(shrunk, round(shrunk * SURE_FACE))))
            frame = hidden(frame, self._config.areas.of(piece.source.camera))
        except Exception as error:
            result.note(as_problem(error))
            result.frames_failed = 1
        result.decode_s += time.thread_time() - started
        return frame

    def _video(self, index: int, piece: Piece) -> Iterator[tuple[Decoded, int]]:
        self._report("begin", index)
        result = self.results[index]

        def tick() -> None:
            self._report("tick", index)

        started = time.thread_time()
        config = self._config
        areas = config.areas.of(piece.source.camera)
        try:
            if config.outputs.hash and piece.part == 0:
                result.sha256 = _hash_file(piece.source.path, tick)
            with VideoReader(piece, config.sampling, config.limits, self._cover, tick) as reader:
                try:
                    for seen in reader:
                        frame = hidden(seen, areas)
                        result.decode_s += time.thread_time() - started
                        yield Decoded(index, frame), frame.image.nbytes + frame.width * frame.height * 3 // 2
                        started = time.thread_time()
                finally:
                    reader.fill(result)
        except Exception as error:
            result.note(as_problem(error))
        result.decode_s += time.thread_time() - started
        yield Decoded(index, None), 0


def _hash_file(path: str, tick: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
            tick()
    return digest.hexdigest()
