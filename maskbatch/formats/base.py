"""What a format is: a result goes in, files come out; and for those that people label with, labels come back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from maskbatch.results.reader import ResultReader
from maskbatch.types import Media

if TYPE_CHECKING:
    from maskbatch.formats.pictures import Pictures

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Moment:
    """A still image or a frame of a video, with its faces.

    Attributes:
        number: 1, 2, 3 … in the order of the result.
        name: path of the image as the format's files name it (`Pictures.name`).
        source: as in the result.
        width: of the image in pixels; 0 where the inputs table does not tell.
        height: of the image.
        frame: rank of the frame, None for a still image.
        time_s: presentation time of the frame.
        faces: rows of the result as mappings; empty for an image without faces.
    """

    number: int
    name: str
    source: str
    media: Media
    camera: str | None
    width: int
    height: int
    frame: int | None
    time_s: float | None
    captured_at: dt.datetime | None
    faces: list[dict[str, Any]]


@dataclass(slots=True)
class Conversion:
    """What a format is given.

    Attributes:
        result: the result, with corrections applied where that was asked for.
        out: folder to write to; it exists.
        pictures: names of images, and with ``--frames`` their files.
        prefix: put before the name of an image where a tool wants an address.
        notes: what the user should be told; a format may add to it.
    """

    result: ResultReader
    out: Path
    pictures: Pictures
    prefix: str = ""
    notes: list[str] = field(default_factory=list)

    def moments(self) -> Iterator[Moment]:
        """Every image in which faces were looked for, in the order of the result, those without faces last. Of a video, only the frames
        with faces are known. Each can be read once."""
        from maskbatch.formats.moments import moments

        return moments(self.result, self.pictures)


class ResultFormat(Protocol):
    """Writes a result for another tool. One file in this folder each, or an entry point ``maskbatch.formats`` of another package."""

    @property
    def name(self) -> str:
        """As in ``maskbatch convert --to NAME``."""

    @property
    def title(self) -> str:
        """One line for a person."""

    def write(self, job: Conversion) -> list[Path]:
        """Write the result into a folder that exists, in bounded memory.

        Returns:
            The files (or, of many, the folders) that were written.

        Raises:
            UsageError: the result cannot be read, or does not have what the format needs.
            OutputError: a file cannot be written.
        """


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """What people say of an image.

    Attributes:
        name: of the image, as the labels name it.
        boxes: x1, y1, x2, y2 in pixels, or (where `width` is 0) in parts of the image's width and height.
        labels: one per box.
        width: of the image in pixels, 0 where the labels do not tell.
        height: of the image.
        source: of the result, where the labels tell.
        frame: rank of the frame, where the labels tell.
    """

    name: str
    boxes: tuple[Box, ...]
    labels: tuple[str, ...]
    width: int = 0
    height: int = 0
    source: str | None = None
    frame: int | None = None


@runtime_checkable
class LabelFormat(Protocol):
    """A format that labels come back in."""

    def recognizes(self, path: Path) -> bool:
        """Whether a file or folder looks like this format."""

    def read(self, path: Path) -> Iterator[LabelledImage]:
        """What was labelled.

        Raises:
            UsageError: the file is damaged, or not of this format.
        """
