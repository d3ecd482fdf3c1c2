"""Face detectors: one protocol, one file per family, batched."""

from __future__ import annotations

from dataclasses import replace

from maskbatch.config import STRIDE, ModelSettings
from maskbatch.detect.base import Detector, LetterboxDetector
from maskbatch.detect.letterbox import Bucket, make_buckets
from maskbatch.errors import ModelError
from maskbatch.models import ModelFile, find_model
from maskbatch.runtime import Device, OnnxSession, has_fast_int8, open_session

__all__ = ["Detector", "LetterboxDetector", "make_detector", "model_identity", "pin_models", "preferred_precisions"]


def make_detector(config: ModelSettings, device: Device, batch_size: int = 0) -> LetterboxDetector:
    """The detector that the settings name, loaded on a device.

    Args:
        config: `detector`, `det_size`, `min_score` and `precision` are read.
        device: from `maskbatch.runtime.resolve_device`.
        batch_size: pictures per forward pass; 0 is what suits the device. A file with a fixed batch overrules it.

    Raises:
        UsageError: no such detector, or `det_size` is no multiple of 32.
        ModelError: the file is missing, broken, or not of the family.
        DeviceError: the device does not take the model.
    """
    buckets = make_buckets(config.det_size)
    model = detector_file(config, device)
    session = open_session(
        model,
        device,
        batch_size=batch_size or device.detector_batch,
        free_shapes=model.family == "centerface",
    )
    return build_detector(model, session, _honoured(model, session, buckets), config.min_score)


def build_detector(
    model: ModelFile, session: OnnxSession, buckets: tuple[Bucket, ...], min_score: float
) -> LetterboxDetector:
    """A detector over a session that is already open."""
    # Families are imported here, so that a scan loads only the one it uses.
    if model.family == "retinaface":
        from maskbatch.detect.retinaface import make_retinaface as make
    elif model.family == "yunet":
        from maskbatch.detect.yunet import make_yunet as make
    elif model.family == "scrfd":
        from maskbatch.detect.scrfd import make_scrfd as make
    elif model.family == "centerface":
        from maskbatch.detect.centerface import make_centerface as make
    else:
        raise ModelError(f"model {model.name} is no detector")
    return make(model.name, session, buckets, min_score)


def detector_file(config: ModelSettings, device: Device) -> ModelFile:
    """The very file that `make_detector` opens."""
    return find_model(config.detector, "detector", preferred_precisions(device), config.precision)


def classifier_file(config: ModelSettings, device: Device) -> ModelFile:
    """The very file that `make_classifier` opens."""
    return find_model(config.classifier, "classifier", preferred_precisions(device), config.precision)


def model_identity(config: ModelSettings, device: Device) -> dict[str, str]:
    """Name → SHA-256 of the files that will run, detector first; part of the work folder's key and of the metadata.

    Raises:
        UsageError, ModelError: as `make_detector`.
    """
    files = (detector_file(config, device), classifier_file(config, device))
    return {file.name: file.sha256 for file in files}


def pin_models(config: ModelSettings, device: Device) -> ModelSettings:
    """The same settings with the variant chosen for `device` written out (``retinaface`` → ``retinaface.int8``).

    Machines of one run may differ in what is fastest; pinned once by the parent, all of them give the same rows.
    """
    detector, classifier = detector_file(config, device), classifier_file(config, device)
    pinned = config
    if detector.name.startswith(f"{config.detector}."):
        pinned = replace(pinned, detector=detector.name)
    if classifier.name.startswith(f"{config.classifier}."):
        pinned = replace(pinned, classifier=classifier.name)
    return pinned


def preferred_precisions(device: Device) -> tuple[str, ...]:
    """Precisions that run well on a device, fastest first: fp16 on a GPU, int8 on a CPU with VNNI, fp32 everywhere."""
    if device.is_gpu:
        return ("fp16", "fp32")
    return ("int8", "fp32") if has_fast_int8() else ("fp32",)


def _honoured(model: ModelFile, session: OnnxSession, buckets: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    """The buckets, or the one shape that the file was exported with."""
    shape = session.input.shape
    if not shape:  # undeclared: any
        return buckets
    if len(shape) != 4:
        raise ModelError(f"model {model.name} takes no pictures: its input has {len(shape)} axes, not 4")
    height, width = shape[1:3] if model.family == "retinaface" else shape[2:4]
    if height is None or width is None:
        return buckets
    if height % STRIDE or width % STRIDE:
        raise ModelError(f"model {model.name} has a fixed input of {width}×{height}, not of multiples of {STRIDE}")
    return (Bucket(height, width),)
