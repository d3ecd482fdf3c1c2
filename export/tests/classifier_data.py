"""Small data sets of drawn faces, for tests of the classifier's training package: real files, simple enough to learn in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from maskbatch_export.split import part_of_group

from maskbatch.tasks.mask import LABELS

BOX = (20, 16, 76, 88)


def draw_face(label: str, rng: np.random.Generator) -> np.ndarray:
    """96×104×3 uint8 BGR: a face with eyes, nose and mouth, and a mask where the label says."""
    picture = np.full((104, 96, 3), rng.integers(0, 255, 3), np.uint8)
    skin = tuple(int(v) for v in rng.integers(90, 220, 3))
    cv2.ellipse(picture, (48, 52), (28, 36), 0, 0, 360, skin, -1)
    for x in (38, 58):
        cv2.circle(picture, (x, 42), 4, (20, 20, 20), -1)
    cv2.line(picture, (48, 46), (48, 58), (30, 30, 60), 2)
    cv2.line(picture, (40, 70), (56, 70), (40, 40, 160), 3)
    top = {"with_mask": 52, "mask_weared_incorrect": 64}.get(label)
    if top is not None:
        cv2.rectangle(picture, (24, top), (72, 86), (230, 200, 120), -1)
    return picture


def annotation(name: str, size: tuple[int, int], objects: list[tuple[str, tuple[float, float, float, float]]]) -> str:
    """A Pascal VOC annotation."""
    parts = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}"
        "</ymax></bndbox></object>"
        for label, b in objects
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"{parts}</annotation>"
    )


def write_set(folder: Path, per_part: int = 6, seed: int = 0) -> Path:
    """A VOC folder with `per_part` pictures of every class in every part of the split."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    lines = ["filename,group"]
    group = seed * 100_000
    for label in LABELS:
        left = {"train": per_part, "val": per_part, "test": per_part}
        while any(left.values()):
            group += 1
            part = part_of_group(str(group))
            if not left[part]:
                continue
            left[part] -= 1
            name = f"{label}{group}.png"
            cv2.imwrite(str(folder / "images" / name), draw_face(label, rng))
            (folder / "annotations" / f"{label}{group}.xml").write_text(annotation(name, (96, 104), [(label, BOX)]))
            lines.append(f"{name},{group}")
    (folder / "groups.csv").write_text("\n".join(lines) + "\n")
    return folder
