"""`maskbatch evaluate` as a function: models by name, an annotated folder, one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from maskbatch.classify.classifier import classifier_file, make_classifier
from maskbatch.config import CLASSIFIER, DETECTOR, DeviceName, ModelSettings
from maskbatch.detect import detector_file, make_detector
from maskbatch.errors import UsageError
from maskbatch.evaluate.report import Evaluation, Rules, evaluate
from maskbatch.evaluate.run import FLOOR, PictureDetector
from maskbatch.evaluate.truth import PartName, read_truth
from maskbatch.runtime import cpu_name, resolve_device
from maskbatch.tasks.mask import LABELS


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What is to be evaluated.

    Attributes:
        data: annotated images (`maskbatch.evaluate.truth.read_truth`).
        detectors: names as for a scan.
        classifier: name as for a scan; None leaves the end-to-end figures out.
        part: of the data, by near-duplicate group.
        precision: variant of the models.
        device: where they run.
        limit: at most this many images.
        rules: how figures are made.
    """

    data: Path
    detectors: tuple[str, ...] = (DETECTOR,)
    classifier: str | None = CLASSIFIER
    part: PartName = "all"
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    device: DeviceName = "auto"
    limit: int | None = None
    rules: Rules = field(default_factory=Rules)


def evaluate_models(
    request: EvaluationRequest,
    progress: Callable[[int, int], None] | None = None,
    others: Sequence[PictureDetector] = (),
) -> Evaluation:
    """Load the models, run them over the data, score and compare.

    Args:
        request: what is to be evaluated.
        progress: told images done and images in all.
        others: detectors that are not maskbatch's own and join the comparison.

    Raises:
        UsageError, ModelError, DeviceError: as the command line reports them.
    """
    if len(set(request.detectors)) != len(request.detectors):
        raise UsageError("the same detector was given twice")
    device = resolve_device(request.device)
    base = ModelSettings(
        classifier=request.classifier or "",
        det_size=request.rules.det_size,
        min_score=FLOOR,
        precision=request.precision,
    )
    configs = [replace(base, detector=name) for name in request.detectors]
    detectors = [make_detector(config, device) for config in configs]
    classifier = None if request.classifier is None else make_classifier(base, device)
    labels = LABELS if classifier is None else classifier.labels
    truths = read_truth(request.data, request.part, request.limit, labels)
    checksums = {
        detector.name: detector_file(config, device).sha256 for detector, config in zip(detectors, configs, strict=True)
    }
    if classifier is not None:
        checksums[classifier.name] = classifier_file(base, device).sha256
    setting: dict[str, object] = {
        "data": request.data.resolve().name,
        "part": request.part,
        "det_size": request.rules.det_size,
        "min_score": request.rules.min_score,
        "false_per_picture": request.rules.false_per_picture,
        "bootstrap_draws": request.rules.draws,
        "seed": request.rules.seed,
        "device": device.name,
        "hardware": device.hardware or cpu_name(),
        "models": checksums,
        "labels": list(labels),
    }
    return evaluate(truths, [*detectors, *others], classifier, request.rules, setting, progress)
