"""Results for other tools, and labels from them: one file per format, registered by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from maskbatch.errors import UsageError
from maskbatch.formats.base import Conversion, LabelFormat, ResultFormat
from maskbatch.formats.pictures import Pictures, write_pictures
from maskbatch.registry import Registry
from maskbatch.results.reader import ResultReader
from maskbatch.storage.atomic import as_output_error

FORMATS: Registry[ResultFormat] = Registry(
    "format",
    {
        "csv": "maskbatch.formats.csv:CSV",
        "jsonl": "maskbatch.formats.jsonl:JSONL",
        "coco": "maskbatch.formats.coco:COCO",
        "voc": "maskbatch.formats.voc:VOC",
        "yolo": "maskbatch.formats.yolo:YOLO",
        "labelstudio": "maskbatch.formats.labelstudio:LABELSTUDIO",
        "cvat": "maskbatch.formats.cvat:CVAT",
        "fiftyone": "maskbatch.formats.fiftyone:FIFTYONE",
    },
    "maskbatch.formats",
)

__all__ = ["FORMATS", "Conversion", "Converted", "LabelFormat", "ResultFormat", "convert", "label_format"]


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion did.

    Attributes:
        files: files (or folders of many) that were written.
        not_written: images that could not be written, a line each.
        notes: what else the user should know.
    """

    files: list[Path]
    not_written: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert(
    results: str,
    to: str,
    out: Path,
    *,
    frames: bool = False,
    redact: bool = False,
    corrections: bool | Path = False,
    prefix: str = "",
) -> Converted:
    """Write a result in another format.

    Args:
        results: ``results.parquet``, the folder of a data set, or a URL.
        to: name of the format.
        out: folder to write to; it is made.
        frames: write the images too, those of videos as the exact frames; else they are only named.
        redact: faces in these images are blurred.
        corrections: the result as people decided, see `ResultReader`.
        prefix: put before the names of images in formats that hold addresses.

    Raises:
        UsageError: no such format, `results` is not a result, or the format needs what was not asked for.
        OutputError: the folder or a file cannot be written.
    """
    chosen = FORMATS.load(to)
    if redact and not frames:
        raise UsageError("--redact blurs faces in the images that --frames writes; without it no image is written")
    reader = ResultReader(results, corrections)
    _ = reader.task, reader.corrections  # refuses what is not a result before anything is written
    pictures = Pictures(frames, getattr(chosen, "folder", "images"))
    job = Conversion(reader, out, pictures, prefix)
    with as_output_error(out):
        out.mkdir(parents=True, exist_ok=True)
    written = chosen.write(job)
    missing = write_pictures(reader, pictures, out, redact=redact) if frames else []
    return Converted(written, missing, job.notes)


def label_format(path: Path, name: str | None = None) -> LabelFormat:
    """The format that labels are in.

    Args:
        path: file or folder.
        name: of the format; None = by what the file looks like.

    Raises:
        UsageError: it is none that labels can be read from.
    """
    readable = [known for known in FORMATS.names if isinstance(FORMATS.load(known), LabelFormat)]
    if name is not None:
        chosen = FORMATS.load(name)
        if not isinstance(chosen, LabelFormat):
            raise UsageError(f"labels cannot be imported from {name}; from {', '.join(readable)} they can")
        return chosen
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    for known in readable:
        candidate = FORMATS.load(known)
        if isinstance(candidate, LabelFormat) and candidate.recognizes(path):
            return candidate
    raise UsageError(f"{path}: not labels in a known format ({', '.join(readable)}); name it with --format")
