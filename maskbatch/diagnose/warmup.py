"""Meeting every model shape of a scan before the scan: TensorRT builds an engine per shape, and keeps it on disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from maskbatch.classify.classifier import make_classifier
from maskbatch.config import DeviceName, ModelSettings
from maskbatch.detect import make_detector
from maskbatch.runtime import Device, cache_root, list_devices


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What was warmed up.

    Attributes:
        device: the first device.
        seconds: model and GPU → seconds to load it and run all of its shapes.
        shapes: model → shapes that were run, ``N×H×W``.
        engines: where built engines lie; empty where none are built.
    """

    device: Device
    seconds: dict[str, float]
    shapes: dict[str, list[str]]
    engines: str

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "device": self.device.name,
            "provider": self.device.provider,
            "seconds": self.seconds,
            "shapes": self.shapes,
            "engines": self.engines or None,
        }


def warm_up_all(
    config: ModelSettings, name: DeviceName, batch_size: int = 0, report: Callable[[str], None] | None = None
) -> WarmUp:
    """Load both models on every device of that name and run each of their shapes once.

    Raises:
        DeviceError, ModelError, UsageError: as a scan with these settings would.
    """
    devices = list_devices(name)
    seconds: dict[str, float] = {}
    shapes: dict[str, list[str]] = {}
    for device in devices:
        where = f"{device.name}:{device.index}" if device.is_gpu else device.name
        start = time.perf_counter()
        detector = make_detector(config, device, batch_size)
        detector.warm_up()
        seconds[f"{detector.name} on {where}"] = time.perf_counter() - start
        shapes[detector.name] = [f"{detector.batch_size}×{b.height}×{b.width}" for b in detector.buckets]
        start = time.perf_counter()
        classifier = make_classifier(config, device, batch_size)
        classifier.warm_up()
        seconds[f"{classifier.name} on {where}"] = time.perf_counter() - start
        shapes[classifier.name] = [f"{classifier.batch_size}×{classifier.size}×{classifier.size}"]
    if report:
        for what, spent in seconds.items():
            report(f"{what}: {', '.join(shapes[what.partition(' on ')[0]])} in {spent:.1f} s")
    engines = str(cache_root() / "engines") if devices[0].name == "tensorrt" else ""
    return WarmUp(devices[0], seconds, shapes, engines)
