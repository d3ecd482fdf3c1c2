"""Pascal VOC: ``Annotations/NAME.xml`` per image, and their names in ``ImageSets/Main/default.txt``. Scores, track and time are elements of their own, which other readers pass over."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from maskbatch.draw.paths import output_path
from maskbatch.errors import UsageError
from maskbatch.evaluate.voc import CORNERS, read_voc
from maskbatch.formats.base import Conversion, LabelledImage, Moment
from maskbatch.formats.pictures import write_images_csv
from maskbatch.formats.values import add_elements, box_of, number, plain, read_xml, xml_text
from maskbatch.storage.atomic import as_output_error, written_whole

FOLDER = "Annotations"


class VocFormat:
    """See the module."""

    name = "voc"
    title = "Pascal VOC, an XML file per image"
    folder = "JPEGImages"
    """Where it has the images."""

    def write(self, job: Conversion) -> list[Path]:
        """See `ResultFormat.write`."""
        listing = job.out / "ImageSets" / "Main" / "default.txt"
        with written_whole(listing) as temporary, temporary.open("w", encoding="utf-8") as names:
            for image in write_images_csv(job.out, job.moments()):
                name = PurePosixPath(image.name)
                if job.pictures.written:  # beside the folder of the images, not in a folder of that name
                    name = name.relative_to(job.pictures.folder)
                names.write(f"{xml_text(str(name.with_suffix('')))}\n")
                target = output_path(job.out / FOLDER, str(name.with_suffix(".xml")))
                with as_output_error(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(ET.tostring(_annotation(image), encoding="utf-8", xml_declaration=True))
        with as_output_error(job.out):
            (job.out / FOLDER).mkdir(exist_ok=True)
            # Readers that know only VOC's own twenty classes look here for others.
            classes = "".join(f"{label}:::\n" for label in job.result.task.labels)
            (job.out / "labelmap.txt").write_text(f"# label:color_rgb:parts:actions\n{classes}", encoding="utf-8")
        return [job.out / FOLDER]

    def recognizes(self, path: Path) -> bool:
        """See `LabelFormat.recognizes`."""
        first = next(_files(path), None)
        return first is not None and read_xml(first).tag == "annotation"

    def read(self, path: Path) -> Iterator[LabelledImage]:
        """See `LabelFormat.read`. `path` is a folder as the format writes it, one of XML files beside their images, or one file."""
        base = path if path.is_dir() else path.parent
        for file in _files(path):
            root = read_xml(file)
            try:
                found = read_voc(file)
                if not all(item.has_box for item in found.objects):
                    raise ValueError("an object has no box of four numbers")
            except (OSError, ValueError) as error:
                raise UsageError(f"{file} is not readable as Pascal VOC ({error})") from None
            folder = file.relative_to(base).parent
            parts = [part for part in folder.parts if part.lower() != FOLDER.lower()]
            name = root.findtext("path") or root.findtext("filename") or file.with_suffix(".jpg").name
            if root.find("maskbatch") is None:
                name = str(PurePosixPath(*parts, PurePosixPath(name.replace("\\", "/")).name))
            width, height = (int(float(text or 0)) for text in found.size)
            yield LabelledImage(
                name,
                tuple(item.box for item in found.objects),
                tuple(item.name for item in found.objects),
                width,
                height,
                root.findtext("maskbatch/source"),
                _whole(root.findtext("maskbatch/frame")),
            )


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        return iter([path] if path.suffix.lower() == ".xml" else [])
    return iter(sorted(path.rglob("*.xml")))


def _whole(text: str | None) -> int | None:
    return int(text) if text else None


def _annotation(image: Moment) -> ET.Element:
    name = PurePosixPath(image.name)
    root = ET.Element("annotation")
    add_elements(root, {"folder": str(name.parent), "filename": name.name, "path": image.name, "segmented": 0})
    add_elements(ET.SubElement(root, "size"), {"width": image.width, "height": image.height, "depth": 3})
    about = {"source": image.source, "camera": image.camera, "frame": image.frame, "time_s": image.time_s}
    add_elements(ET.SubElement(root, "maskbatch"), plain({**about, "captured_at": image.captured_at}))
    for row in image.faces:
        item = ET.SubElement(root, "object")
        add_elements(item, {"name": row["label"], "pose": "Unspecified", "truncated": 0, "difficult": 0})
        corners = zip(CORNERS, map(number, box_of(row)), strict=True)
        add_elements(ET.SubElement(item, "bndbox"), dict(corners))
        more = {"score": row["score"], "mask_confidence": row["confidence"], "track": row["track"]}
        add_elements(item, plain(more))
    return root


VOC = VocFormat()
