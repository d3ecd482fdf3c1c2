"""Detector families by name: one file each, and those that other packages bring (entry points ``maskbatch.detectors``)."""

from __future__ import annotations

from pathlib import Path

from maskbatch.config import ModelSettings
from maskbatch.detect.base import DetectorFamily
from maskbatch.errors import ModelError
from maskbatch.models import Families, ModelFile, find_model, read_header, variant_files
from maskbatch.registry import Registry
from maskbatch.runtime import Device
from maskbatch.runtime.variants import preferred_precisions

DETECTORS: Registry[DetectorFamily] = Registry(
    "detector family",
    {
        "retinaface": "maskbatch.detect.retinaface:RETINAFACE",
        "yunet": "maskbatch.detect.yunet:YUNET",
        "scrfd": "maskbatch.detect.scrfd:SCRFD",
        "centerface": "maskbatch.detect.centerface:CENTERFACE",
    },
    "maskbatch.detectors",
)


def find_detector(name: str, prefer: tuple[str, ...] = ("fp32",), precision: str = "auto") -> ModelFile:
    """The file that a detector's name means; see `maskbatch.models.find_model`, also for the errors."""
    return find_model(name, "detector", prefer, precision, Families(DETECTORS.names, family_of))


def detector_file(config: ModelSettings, device: Device) -> ModelFile:
    """The very file that `make_detector` opens."""
    prefer = preferred_precisions(device, variant_files(config.detector)) if config.precision == "auto" else ()
    return find_detector(config.detector, prefer, config.precision)


def family_of(path: Path) -> str:
    """Tell a detector's family from the names and number of its outputs.

    Raises:
        ModelError: no family knows such outputs, or the file cannot be read.
    """
    outputs = read_header(path).outputs
    for name in DETECTORS.names:
        if DETECTORS.load(name).recognises(outputs):
            return name
    raise ModelError(
        f"{path} has the outputs {', '.join(outputs[:6])}, as no known detector has: name the family, e.g. scrfd:{path}"
    )
