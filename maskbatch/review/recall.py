"""How many faces the detector missed: people look at a random sample of the frames that the scan looked at, and draw what is not there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from maskbatch.draw.originals import Originals
from maskbatch.errors import InputError
from maskbatch.results.corrections import Correction
from maskbatch.review.estimates import Estimate, interval_of_ratio
from maskbatch.review.faces import NOT_A_FACE, Array, Decisions, FaceTable
from maskbatch.types import Image, Media

FRAMES_PER_FACE = 5
"""One frame is asked for so many faces of the sample."""


@dataclass(frozen=True, slots=True)
class AuditFrame:
    """A frame to look at.

    Attributes:
        source: name.
        media: of the source.
        place: rank among the frames of the source that the scan looked at.
    """

    source: str
    media: Media
    place: int


class FrameSample:
    """Frames drawn at random from all that were looked at, with or without faces; the same for the same inputs and seed.

    Args:
        inputs: the table of the inputs.
        faces: the result.
        originals: where the inputs are.
        count: frames to draw.
        seed: of the draw.
    """

    def __init__(self, inputs: pa.Table, faces: FaceTable, originals: Originals, count: int, seed: int) -> None:
        self._faces = faces
        self._originals = originals
        names = inputs["source"].cast(pa.string()).to_pylist()
        media = inputs["media"].cast(pa.string()).to_pylist()
        read = np.array(inputs["frames_read"].to_pylist(), np.int64)
        self.population = int(read.sum())
        ends = np.cumsum(read)
        # A larger sample holds a smaller one: frames come in the order of one permutation.
        rng = np.random.default_rng([seed, 1])
        order = rng.permutation(self.population)[: min(count, self.population)] if self.population else np.empty(0, int)
        at = np.searchsorted(ends, order, side="right")
        self.frames = [
            AuditFrame(names[i], media[i], int(place - (ends[i] - read[i]))) for i, place in zip(at, order, strict=True)
        ]
        self._codes = {name: code for code, name in enumerate(faces.sources)}

    def __len__(self) -> int:
        return len(self.frames)

    def moment(self, number: int) -> tuple[int | None, float | None]:
        """Rank and presentation time of a frame in its video, None in a still image. Raises InputError where it cannot be found (any more)."""
        frame = self.frames[number]
        if frame.media == "image":
            return None, None
        ordinals, times = self._originals.looked_at(frame.source)
        if not len(ordinals):
            raise InputError("corrupt", f"{frame.source} has no frame that can be found again")
        place = min(frame.place, len(ordinals) - 1)
        return int(ordinals[place]), float(times[place])

    def image(self, number: int) -> Image:
        """The frame, upright, in the pixels of the boxes. Raises InputError."""
        ordinal, _ = self.moment(number)
        source = self.frames[number].source
        return self._originals.image(source) if ordinal is None else self._originals.frame(source, ordinal)

    def rows(self, number: int) -> Array:
        """Rows of the faces that were found in a frame."""
        ordinal, _ = self.moment(number)
        code = self._codes.get(self.frames[number].source)
        if code is None:
            return np.empty(0, np.int64)
        found: Array = np.flatnonzero(
            (self._faces.source == code) & (self._faces.frame == (-1 if ordinal is None else ordinal))
        )
        return found

    def drawn(self, number: int, decisions: Decisions) -> list[Correction]:
        """Faces that people drew in a frame."""
        _, time_s = self.moment(number)
        source = self.frames[number].source
        return [item for item in decisions.drawn if item.source == source and _same(item.time_s, time_s)]

    def is_checked(self, number: int, decisions: Decisions) -> bool:
        """Whether somebody looked at the whole of a frame."""
        try:
            ordinal, _ = self.moment(number)
        except InputError:
            return False
        return (self.frames[number].source, ordinal) in decisions.checked

    def estimate(self, decisions: Decisions) -> dict[str, Any]:
        """The detector's recall from the frames that were checked: found over all faces, with a 95 % interval over frames."""
        found, missed = [], []
        for number in range(len(self.frames)):
            if self.is_checked(number, decisions):
                rows = self.rows(number)
                found.append(int((self._faces.decided[rows] != NOT_A_FACE).sum()))
                missed.append(len(self.drawn(number, decisions)))
        share = interval_of_ratio(
            np.array(found, float), np.array(found, float) + np.array(missed, float), self.population
        )
        return {
            "asked": len(self.frames),
            "checked": len(found),
            "population": self.population,
            "found": sum(found),
            "missed": sum(missed),
            "estimate": None if share is None else _shown(share),
        }


def _same(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, abs_tol=0.0006)


def _shown(share: Estimate) -> dict[str, float]:
    return {"value": round(share.value, 4), "low": round(share.low, 4), "high": round(share.high, 4)}
