"""How many faces of large images are found, and what it costs: annotated images side by side, with and without tiles.

    python benchmarks/mosaic.py ../shared/data/face_mask_detection --part test --size 6000x4000

Images of the part are laid out at their own size, none enlarged, into mosaics with a black rest; their boxes go with them. A face counts
as found if a box of the scan overlaps it by an IoU of .35 or more, each box for one face.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

import maskbatch
from maskbatch.detect.nms import iou_matrix
from maskbatch.evaluate.split import part_of_group
from maskbatch.evaluate.voc import read_voc

IOU = 0.35


def annotated(folder: Path, part: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of a part (H×W×3 uint8 BGR) and their boxes (n×4)."""
    lines = (folder / "groups.csv").read_text(encoding="utf-8").splitlines()[1:]
    names = sorted(line.split(",")[0] for line in lines if part in ("all", part_of_group(line.split(",")[1])))
    found = []
    for name in names:
        image = cv2.imread(str(folder / "images" / name))
        boxes = [
            item.box for item in read_voc((folder / "annotations" / name).with_suffix(".xml")).objects if item.has_box
        ]
        if image is not None and boxes:
            found.append((image, np.array(boxes, np.float32)))
    return found


def lay_out(
    pictures: list[tuple[np.ndarray, np.ndarray]], width: int, height: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Full mosaics of width×height: row after row, each image once."""
    made, canvas, boxes = [], np.zeros((height, width, 3), np.uint8), []
    x = y = tall = 0
    for image, faces in pictures:
        h, w = image.shape[:2]
        if x + w > width:
            x, y, tall = 0, y + tall, 0
        if y + h > height:
            made.append((canvas, np.concatenate(boxes)))
            canvas, boxes = np.zeros((height, width, 3), np.uint8), []
            x = y = tall = 0
        canvas[y : y + h, x : x + w] = image
        boxes.append(faces + np.array([x, y, x, y], np.float32))
        x, tall = x + w, max(tall, h)
    return [*made, (canvas, np.concatenate(boxes))] if boxes else made


def found_faces(boxes: np.ndarray, faces: np.ndarray) -> int:
    """How many faces have a box of their own, best overlaps first."""
    overlaps, count = iou_matrix(boxes, faces), 0
    while overlaps.size and overlaps.max() >= IOU:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row], overlaps[:, column] = 0, 0
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", default="test", choices=("train", "val", "test", "all"))
    parser.add_argument("--size", default="6000x4000", help="of a mosaic, in pixels")
    given = parser.parse_args()
    width, height = (int(number) for number in given.size.split("x"))
    mosaics = lay_out(annotated(given.data, given.part), width, height)
    total = sum(len(faces) for _, faces in mosaics)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "in"
        inputs.mkdir()
        for number, (image, _) in enumerate(mosaics):
            cv2.imwrite(str(inputs / f"{number:03}.jpg"), image, (cv2.IMWRITE_JPEG_QUALITY, 92))
        print(f"{len(mosaics)} images of {given.size}, {total} faces")
        for tile in ("off", "auto"):
            out = Path(folder) / f"{tile}.parquet"
            summary = maskbatch.scan([inputs], out, tile=tile, device="cpu", executor="inline")  # type: ignore[arg-type]
            rows = maskbatch.read_results(out)
            found = 0
            for number, (_, faces) in enumerate(mosaics):
                own = rows[rows["source"] == f"{number:03}.jpg"]
                found += found_faces(own[["x1", "y1", "x2", "y2"]].to_numpy(np.float32), faces)
            seconds = sum(summary.stages.values()) / len(mosaics)
            print(
                f"--tile {tile}: {found} of {total} faces found, {len(rows) - found} other boxes, {seconds:.2f} s of CPU an image"
            )


if __name__ == "__main__":
    main()
