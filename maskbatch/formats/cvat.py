"""CVAT: ``annotations.xml`` for still images ("CVAT for images 1.1"), and ``videos/NAME.xml`` per video with its tracks ("CVAT for video 1.1").

A track has one label in CVAT: that of most of its faces; the label of each face stands in the attribute `face_label`. Somebody who
changes the label of a track (which `track_label` still names as it was) changes all its faces.
https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr

from maskbatch.draw.paths import output_path
from maskbatch.errors import UsageError
from maskbatch.formats.base import Box, Conversion, LabelledImage, Moment
from maskbatch.formats.pictures import write_images_csv
from maskbatch.formats.values import box_of, number, plain, read_xml, xml_text
from maskbatch.storage.atomic import written_whole
from maskbatch.tasks import Task

IMAGES = "annotations.xml"
VIDEOS = "videos"
ATTRIBUTES = ("score", "mask_confidence", "track")
TRACK_ATTRIBUTES = ("face_label", "track_label", *ATTRIBUTES)


class CvatFormat:
    """See the module."""

    name = "cvat"
    title = "CVAT: images, and a file of tracks per video"

    def write(self, job: Conversion) -> list[Path]:
        """See `ResultFormat.write`. One video's faces are held at a time."""
        task, target = job.result.task, job.out / IMAGES
        video: list[Moment] = []
        written = [target]
        with ExitStack() as stack:
            temporary = stack.enter_context(written_whole(target))
            file = stack.enter_context(temporary.open("w", encoding="utf-8"))
            _head(file, task, "images")
            for image in write_images_csv(job.out, job.moments()):
                if video and video[0].source != image.source:
                    _write_video(job.out, video, task)
                    video = []
                if image.media == "video" and not job.pictures.written:
                    video.append(image)
                else:
                    # CVAT names images below the folder that holds them.
                    folder = f"{job.pictures.folder}/" if job.pictures.written else ""
                    _write_image(file, image, job.prefix + image.name.removeprefix(folder))
            if video:
                _write_video(job.out, video, task)
            file.write("</annotations>\n")
        if (job.out / VIDEOS).is_dir():
            written.append(job.out / VIDEOS)
        return written

    def recognizes(self, path: Path) -> bool:
        """See `LabelFormat.recognizes`."""
        first = next(_files(path), None)
        return first is not None and read_xml(first).tag == "annotations"

    def read(self, path: Path) -> Iterator[LabelledImage]:
        """See `LabelFormat.read`. `path` is a file, or a folder as the format writes it."""
        for file in _files(path):
            root = read_xml(file)
            try:
                for image in root.findall("image"):
                    boxes = [_box(item) for item in image.findall("box")]
                    labels = [item.get("label", "") for item in image.findall("box")]
                    size = int(image.get("width") or 0), int(image.get("height") or 0)
                    yield LabelledImage(image.get("name", ""), tuple(boxes), tuple(labels), *size)
                yield from _read_tracks(root, file)
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{file}: not annotations in CVAT's format ({error!r})") from None


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        return iter([path] if path.suffix.lower() == ".xml" else [])
    return iter([*sorted(path.glob("*.xml")), *sorted((path / VIDEOS).rglob("*.xml"))])


def _read_tracks(root: Any, file: Path) -> Iterator[LabelledImage]:
    """Boxes that people or the scan set (key frames), by frame; those between them are CVAT's interpolation."""
    source = root.findtext("meta/source") or root.findtext("meta/task/source")
    frames: dict[int, list[tuple[Box, str]]] = {}
    for track in root.findall("track"):
        for item in track.findall("box"):
            if item.get("outside") == "1" or item.get("keyframe", "1") != "1":
                continue
            label = _label(item, track.get("label", ""))
            frames.setdefault(int(item.attrib["frame"]), []).append((_box(item), label))
    if frames and not source:
        raise UsageError(f"{file}: it does not say of which video it is (meta/source)")
    for frame, found in sorted(frames.items()):
        yield LabelledImage(
            f"{source}/f{frame:07d}.jpg",
            tuple(box for box, _ in found),
            tuple(label for _, label in found),
            source=source,
            frame=frame,
        )


def _box(item: Any) -> Box:
    x1, y1, x2, y2 = (float(item.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
    return x1, y1, x2, y2


def _label(item: Any, label: str) -> str:
    values = {value.get("name"): value.text for value in item.findall("attribute")}
    own = values.get("face_label")
    return own if own and values.get("track_label") == label else label


def _head(file: IO[str], task: Task, mode: str, source: str | None = None, size: tuple[int, int] = (0, 0)) -> None:
    attributes = "".join(
        f"<attribute><name>{name}</name><mutable>True</mutable><input_type>text</input_type><default_value></default_value>"
        "<values></values></attribute>"
        for name in (ATTRIBUTES if mode == "images" else TRACK_ATTRIBUTES)
    )
    labels = "".join(
        f"<label><name>{escape(label)}</name><attributes>{attributes}</attributes></label>" for label in task.labels
    )
    own = "" if source is None else f"<source>{escape(xml_text(source))}</source>"
    if size[0]:
        own += f"<original_size><width>{size[0]}</width><height>{size[1]}</height></original_size>"
    file.write(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        f"<meta><task><name>maskbatch</name><mode>{'annotation' if mode == 'images' else 'interpolation'}</mode>"
        f"<labels>{labels}</labels></task>{own}</meta>\n"
    )


def _write_image(file: IO[str], image: Moment, name: str) -> None:
    shown = quoteattr(xml_text(name))
    file.write(f'<image id="{image.number - 1}" name={shown} width="{image.width}" height="{image.height}">\n')
    for row in image.faces:
        corners = _corners(row)
        file.write(f'<box label={quoteattr(row["label"])} source="auto" occluded="0" {corners} z_order="0">')
        file.write(f"{_attributes(row, ATTRIBUTES)}</box>\n")
    file.write("</image>\n")


def _write_video(out: Path, frames: list[Moment], task: Task) -> None:
    first = frames[0]
    target = output_path(out / VIDEOS, f"{first.source}.xml")
    people: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    alone = -1
    for image in frames:
        for row in image.faces:
            track = row["track"]
            if track is None:  # of nobody who was followed: a track of one face
                track, alone = alone, alone - 1
            people.setdefault(track, []).append((image.frame or 0, row))
    order = sorted(people, key=lambda track: (track < 0, abs(track)))
    with written_whole(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        _head(file, task, "video", first.source, (first.width, first.height))
        for number_, track in enumerate(order):
            seen = people[track]
            label = Counter(row["label"] for _, row in seen).most_common(1)[0][0]
            file.write(f'<track id="{number_}" label={quoteattr(label)} source="auto">\n')
            for frame, row in seen:
                file.write(_track_box(frame, row, label, outside=False))
            last, row = seen[-1]
            file.write(_track_box(last + 1, row, label, outside=True) + "</track>\n")
        file.write("</annotations>\n")


def _track_box(frame: int, row: dict[str, Any], label: str, *, outside: bool) -> str:
    gone = int(outside)
    box = f'<box frame="{frame}" outside="{gone}" occluded="0" keyframe="1" {_corners(row)} z_order="0">'
    return f"{box}{_attributes({**row, 'track_label': label}, TRACK_ATTRIBUTES)}</box>\n"


def _corners(row: dict[str, Any]) -> str:
    names = ("xtl", "ytl", "xbr", "ybr")
    return " ".join(f'{name}="{number(value)}"' for name, value in zip(names, box_of(row), strict=True))


def _attributes(row: dict[str, Any], names: tuple[str, ...]) -> str:
    shown = plain({**row, "mask_confidence": row["confidence"], "face_label": row["label"]})
    return "".join(
        f'<attribute name="{name}">{escape(xml_text(str(shown.get(name, ""))))}</attribute>' for name in names
    )


CVAT = CvatFormat()
