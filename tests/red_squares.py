"""Small inputs for the toy detector: lossless pictures and a lossless video with red squares on coloured ground."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT, CELL = 320, 192, 32
GROUNDS = {"blue": (230, 40, 0), "green": (30, 220, 0), "dark": (8, 8, 60)}
"""Colour around a square, BGR: what the toy classifiers judge by."""

Place = tuple[int, int, str]
"""Column and row of the cell, and the ground."""


def picture(places: Sequence[Place]) -> npt.NDArray[np.uint8]:
    """HEIGHT×WIDTH×3 BGR with a red square in each of these cells."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for column, row, ground in places:
        x, y = column * CELL, row * CELL
        image[max(0, y - CELL) : y + 2 * CELL, max(0, x - CELL) : x + 2 * CELL] = GROUNDS[ground]
    for column, row, _ in places:
        x, y = column * CELL, row * CELL
        image[y : y + CELL, x : x + CELL] = (0, 0, 255)
    return image


def write_archive(folder: Path, *, video: bool = True) -> Path:
    """Five pictures of two cameras with none to three squares, and a clip in which one square walks."""
    scenes: dict[str, list[Place]] = {
        "gate/2026-03-01_08-00-00.png": [(1, 1, "blue"), (5, 1, "green"), (8, 3, "dark")],
        "gate/2026-03-01_09-30-00.png": [(2, 2, "blue")],
        "yard/2026-03-01_08-00-00.png": [(3, 3, "green"), (7, 2, "green")],
        "yard/2026-03-02_08-00-00.png": [],
        "yard/plain.png": [(4, 2, "dark")],
    }
    for name, places in scenes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), picture(places))
    (folder / "yard" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    if video:
        write_video(folder / "gate_20260301_100000.mkv")
    return folder


def write_video(path: Path, seconds: int = 6, rate: int = 4) -> None:
    """FFV1 in BGR: what is decoded is what was written, on any processor."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        stream.time_base = Fraction(1, rate)
        for number in range(seconds * rate):
            image = picture([(1 + number // rate, 2, "blue" if number < 3 * rate else "green")])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="bgr0")))
        container.mux(stream.encode())


def write_voc(folder: Path, labels: dict[str, str]) -> Path:
    """The pictures of `write_archive` as a Pascal VOC data set; `labels` gives each ground its label."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    scenes = [[(1, 1, "blue"), (5, 1, "green")], [(2, 2, "dark"), (7, 3, "blue")], [(4, 4, "green")]]
    for number, places in enumerate(scenes):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture(places))
        root = ET.Element("annotation")
        for column, row, ground in places:
            item = ET.SubElement(root, "object")
            ET.SubElement(item, "name").text = labels[ground]
            box = ET.SubElement(item, "bndbox")
            x, y = column * CELL - CELL // 2, row * CELL - CELL // 2
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + 2 * CELL, y + 2 * CELL), strict=True):
                ET.SubElement(box, key).text = str(value)
        ET.ElementTree(root).write(folder / "annotations" / f"{number}.xml")
    return folder
