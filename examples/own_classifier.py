"""Scan with a classifier of your own: ``python own_classifier.py FOLDER MODEL.onnx``.

The model file says what it judges: its ONNX metadata ``labels`` (a JSON list) names the outputs in order. The training package writes
it, folds the scaling of the pixels into the file, and proves that nothing changed::

    maskbatch export classifier convert my_model.keras --out MODEL.onnx --data faces/ \\
        --labels cloth_mask,surgical_mask,no_mask,face_shield --scale 0..1 --channels rgb

For a file that takes uint8 crops (N×S×S×3, BGR) already, the metadata alone are enough::

    import onnx
    model = onnx.load("MODEL.onnx")
    entry = model.metadata_props.add()
    entry.key, entry.value = "labels", '["cloth_mask", "surgical_mask", "no_mask", "face_shield"]'
    onnx.save(model, "MODEL.onnx")
"""

from __future__ import annotations

import sys
from pathlib import Path

import maskbatch


def main(folder: Path, model: Path, out: Path = Path("results.parquet")) -> None:
    summary = maskbatch.scan(folder, out, classifier=str(model))
    print("labels:", ", ".join(summary.labels))

    faces = maskbatch.read_results(out)
    columns = [f"p_{label}" for label in summary.labels]
    print(faces[["source", "label", *columns]].head().to_string(index=False))

    found = maskbatch.summarize(out, by=("source",))
    print(f"{found.total['count']} faces; {found.headline}: {found.total['share']:.0%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
