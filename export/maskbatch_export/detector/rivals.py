"""Other detectors behind the same function, so that the training package compares on the same images with the same code."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskbatch_export.detector.evaluate import Detect, Found, detector, letterbox, onnx_predict, open_session, suppress

STRIDES = (8, 16, 32)


def open_detector(spec: str, size: int = 640, nms_iou: float = 0.5) -> Detect:
    """``FILE`` (ours, with ``nms_iou``), ``yunet=FILE`` or ``scrfd=FILE`` (with the 0.4 customary for them)."""
    kind, _, path = spec.rpartition("=")
    if kind == "yunet":
        return yunet(Path(path), size)
    if kind == "scrfd":
        return scrfd(Path(path), size)
    return detector(onnx_predict(Path(path)), size, iou=nms_iou, close_look=True)


def yunet(path: Path, size: int, nms_iou: float = 0.4, threshold: float = 0.02) -> Detect:
    """YuNet through OpenCV's own wrapper."""

    def detect(image: np.ndarray) -> Found:
        canvas, scale = letterbox(image, size)
        net.setInputSize((size, size))
        rows = net.detect(canvas)[1]
        rows = np.zeros((0, 15), np.float32) if rows is None else rows[np.argsort(-rows[:, 14], kind="stable")]
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1) / scale
        return Found(boxes, rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2) / scale)

    net = cv2.FaceDetectorYN.create(str(path), "", (size, size), threshold, nms_iou, 5000)
    return detect


def scrfd(path: Path, size: int, nms_iou: float = 0.4, threshold: float = 0.02) -> Detect:
    """SCRFD with landmarks (nine outputs: scores, distances, landmarks per stride; two anchors per cell)."""
    session = open_session(path)
    name = session.get_inputs()[0].name

    def detect(image: np.ndarray) -> Found:
        canvas, scale = letterbox(image, size)
        planes = (canvas[..., ::-1].astype(np.float32) - 127.5) / 128.0
        values = [v.reshape(-1, v.shape[-1]) for v in session.run(None, {name: planes.transpose(2, 0, 1)[None]})]
        boxes, scores = [], []
        for level, stride in enumerate(STRIDES):
            ys, xs = np.mgrid[: size // stride, : size // stride]
            centre = np.repeat(np.stack([xs, ys], -1).reshape(-1, 2) * stride, 2, axis=0)
            away = values[level + 3] * stride
            boxes.append(np.concatenate([centre - away[:, :2], centre + away[:, 2:]], 1))
            scores.append(values[level][:, 0])
        box, score = np.concatenate(boxes), np.concatenate(scores)
        chosen = np.nonzero(score >= threshold)[0]
        kept = chosen[suppress(box[chosen], score[chosen], nms_iou)]
        return Found(box[kept] / scale, score[kept], None)

    return detect
