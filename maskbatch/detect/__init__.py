"""Face detectors: one protocol, one file per family, batched."""

from __future__ import annotations

from maskbatch.config import STRIDE, ModelSettings
from maskbatch.detect.base import Detector, DetectorFamily, LetterboxDetector
from maskbatch.detect.families import DETECTORS, detector_file, find_detector
from maskbatch.detect.letterbox import Bucket, make_buckets
from maskbatch.errors import ModelError
from maskbatch.models import ModelFile
from maskbatch.runtime import Device, OnnxSession, open_session

__all__ = [
    "DETECTORS",
    "Detector",
    "DetectorFamily",
    "LetterboxDetector",
    "detector_file",
    "find_detector",
    "make_detector",
]


def make_detector(config: ModelSettings, device: Device, batch_size: int = 0) -> LetterboxDetector:
    """The detector that the settings name, loaded on a device.

    Args:
        config: `detector`, `det_size`, `min_score` and `precision` are read.
        device: from `maskbatch.runtime.resolve_device`.
        batch_size: images per forward pass; 0 = auto. A file with a fixed batch overrules it.

    Raises:
        UsageError: no such detector, or `det_size` is not a multiple of 32.
        ModelError: the file is missing, broken, or not of the family.
        DeviceError: the device does not take the model.
    """
    buckets = make_buckets(config.det_size)
    model = detector_file(config, device)
    family = DETECTORS.load(model.family)
    session = open_session(
        model, device, batch_size=batch_size or device.detector_batch, free_shapes=family.free_shapes
    )
    return family.make(model.name, session, _buckets_of_file(model, session, buckets, family), config.min_score)


def _buckets_of_file(
    model: ModelFile, session: OnnxSession, buckets: tuple[Bucket, ...], family: DetectorFamily
) -> tuple[Bucket, ...]:
    """The buckets, or the one shape that the file was exported with."""
    shape = session.input.shape
    if not shape:  # undeclared: any
        return buckets
    if len(shape) != 4:
        raise ModelError(f"model {model.name} takes no images: its input has {len(shape)} axes, not 4")
    height, width = shape[1:3] if family.layout == "NHWC" else shape[2:4]
    if height is None or width is None:
        return buckets
    if height % STRIDE or width % STRIDE:
        raise ModelError(f"model {model.name} has a fixed input of {width}×{height}, not of multiples of {STRIDE}")
    return (Bucket(height, width),)
