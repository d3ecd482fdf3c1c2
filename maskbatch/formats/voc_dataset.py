"""Labelled images as a Pascal VOC folder: the data set that ``maskbatch evaluate`` and the training package read."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import PIL.Image

from maskbatch.errors import UsageError
from maskbatch.evaluate.voc import CORNERS
from maskbatch.formats.base import Box, LabelledImage
from maskbatch.formats.importing import Imported
from maskbatch.formats.pictures import FOLDERS
from maskbatch.formats.values import add_elements, number
from maskbatch.storage.atomic import as_output_error


def import_dataset(labels: Iterable[tuple[Path, LabelledImage]], out: Path, images: Path | None = None) -> Imported:
    """Write labelled images as a Pascal VOC folder.

    Args:
        labels: with the place of each: images are looked for in `images`, or beside and above the labels, also in folders of the usual names.
        out: the folder; ``annotations/`` and ``images/`` are made in it.
        images: root of the images.

    Raises:
        UsageError: labels give boxes in parts of an image that cannot be read.
        OutputError: the folder cannot be written.
    """
    done = Imported(written=out)
    with as_output_error(out):
        (out / "annotations").mkdir(parents=True, exist_ok=True)
        (out / "images").mkdir(exist_ok=True)
    for base, image in labels:
        near = [root / folder for root in (base, base.parent) for folder in ("", *FOLDERS)]
        path = _image_file(image, [images] if images else near)
        if path is None:
            done.unknown.append(image.name)
            continue
        name = "__".join(PurePosixPath(image.source or image.name).parts)
        if image.frame is not None:
            name += f"__f{image.frame:07d}"
        target = out / "images" / (name if name.lower().endswith(path.suffix.lower()) else name + path.suffix.lower())
        with as_output_error(target):
            shutil.copyfile(path, target)
            size = _size(path)
            scale: tuple[float, float] = (1.0, 1.0) if image.width else size
            boxes = [(x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]) for x1, y1, x2, y2 in image.boxes]
            xml = _voc(target.name, size, boxes, image.labels)
            (out / "annotations" / f"{target.stem}.xml").write_bytes(xml)
        done.images += 1
    return done


def _image_file(image: LabelledImage, roots: Sequence[Path]) -> Path | None:
    names = [image.name, *([image.source] if image.source and image.frame is None else [])]
    for root in roots:
        for name in names:
            relative = PurePosixPath(name.split("?d=")[-1].replace("\\", "/"))
            if relative.is_absolute() or ".." in relative.parts:  # names come from files of unknown origin
                relative = PurePosixPath(relative.name)
            for candidate in (root / relative, root / relative.name):
                found = next((p for p in (candidate, *_other_endings(candidate)) if p.is_file()), None)
                if found is not None:
                    return found
    return None


def _other_endings(path: Path) -> Iterator[Path]:
    return (path.with_suffix(ending) for ending in (".jpg", ".jpeg", ".png", ".bmp", ".webp"))


def _size(path: Path) -> tuple[int, int]:
    try:
        with PIL.Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{path} is not an image that can be read: {error}") from None


def _voc(name: str, size: tuple[int, int], boxes: Sequence[Box], labels: Sequence[str]) -> bytes:
    root = ET.Element("annotation")
    add_elements(root, {"filename": name})
    add_elements(ET.SubElement(root, "size"), {"width": size[0], "height": size[1], "depth": 3})
    for box, label in zip(boxes, labels, strict=True):
        item = ET.SubElement(root, "object")
        add_elements(item, {"name": label})
        add_elements(ET.SubElement(item, "bndbox"), dict(zip(CORNERS, map(number, box), strict=True)))
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))
