"""The two models of a scan together: which files run, and what is judged."""

from __future__ import annotations

from dataclasses import replace

from maskbatch.classify.classifier import classifier_file
from maskbatch.config import ModelSettings
from maskbatch.detect import detector_file
from maskbatch.models import read_header, variant_files
from maskbatch.runtime import Device
from maskbatch.runtime.variants import Choice, choose
from maskbatch.tasks import Task, classifier_labels, task_of


def model_identity(config: ModelSettings, device: Device) -> dict[str, str]:
    """Name → SHA-256 of the files that will run, detector first; part of the run's key and of the metadata.

    Raises:
        UsageError, ModelError: as `make_detector` and `make_classifier`.
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


def variant_choices(config: ModelSettings, device: Device) -> list[Choice]:
    """How ``--precision auto`` chose between the variants of the two models, detector first; nothing where it had no choice."""
    if config.precision != "auto":
        return []
    found = [choose(variant_files(name), device) for name in (config.detector, config.classifier)]
    return [choice for choice in found if choice is not None]


def task_of_models(config: ModelSettings, device: Device) -> Task:
    """What the classifier of these settings judges, as its file says, without loading it.

    Raises:
        UsageError, ModelError: there is no such classifier, or its labels cannot be told.
    """
    model = classifier_file(config, device)
    header = read_header(model.path)
    outputs = header.output_sizes[0] if header.output_sizes else None
    return task_of(classifier_labels(header.metadata, outputs, model.name))
