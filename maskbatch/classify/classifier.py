"""The classifier: face crops in, a probability per label out."""

from __future__ import annotations

import numpy as np

from maskbatch.classify.crops import CROP_CONTEXT
from maskbatch.config import ModelSettings
from maskbatch.errors import ModelError
from maskbatch.models import ModelFile, find_model, variant_files
from maskbatch.runtime import Device, OnnxSession, open_session
from maskbatch.runtime.variants import preferred_precisions
from maskbatch.tasks import Task, classifier_labels, task_of
from maskbatch.types import Floats, Image


class FaceClassifier:
    """Classifies crops in batches of one fixed size, so that a crop's probabilities depend on that crop alone.

    Not for several threads at once: the batch buffer is reused.

    Attributes:
        size: side of a crop in pixels.
        context: side of the square that is cut, as a multiple of the longer side of a face's box.
        batch_size: crops per forward pass.
        labels: in the order of the outputs.
    """

    def __init__(self, session: OnnxSession) -> None:
        shape = session.input.shape
        if len(shape) != 4 or shape[3] != 3 or not shape[1] or shape[1] != shape[2] or session.input.dtype != np.uint8:
            raise ModelError(
                f"model {session.name} is not a face classifier: it takes {session.input.dtype} {list(shape)}, "
                "not uint8 crops of one fixed size (N×S×S×3)"
            )
        self._session = session
        self.size = int(shape[1])
        try:
            self.context = float(session.metadata.get("context", CROP_CONTEXT))
        except ValueError:
            raise ModelError(f"model {session.name} has a context that is not a number in its metadata") from None
        self.batch_size = session.batch_size
        self._batch = np.zeros((self.batch_size, self.size, self.size, 3), np.uint8)
        self._checked = False
        self.labels = classifier_labels(session.metadata, session.output_size, session.name)

    @property
    def name(self) -> str:
        """Of the model, as in the registry."""
        return self._session.name

    @property
    def task(self) -> Task:
        """What is judged."""
        return task_of(self.labels)

    def classify(self, crops: Image) -> Floats:
        """Probabilities of the classes, in the order of `labels`.

        Args:
            crops: n×size×size×3 uint8, BGR (`maskbatch.classify.crops.crop_faces`); any n, also 0.

        Returns:
            n×k float32 for k labels; rows add up to 1.
        """
        if crops.ndim != 4 or crops.shape[1:] != self._batch.shape[1:] or crops.dtype != np.uint8:
            raise ValueError(f"expected uint8 crops of n×{self.size}×{self.size}×3, got {crops.dtype} {crops.shape}")
        found = np.empty((len(crops), len(self.labels)), np.float32)
        for start in range(0, len(crops), self.batch_size):
            part = crops[start : start + self.batch_size]
            if len(part) < self.batch_size:
                self._batch[: len(part)] = part
                part = self._batch
            probabilities = self._session.run(part)[0]
            if probabilities.shape != (self.batch_size, len(self.labels)):
                raise ModelError(
                    f"model {self.name} gives {list(probabilities.shape)} for {self.batch_size} faces, not a probability for each of "
                    f"the labels {', '.join(self.labels)}"
                )
            if not self._checked:
                self._check(probabilities[: len(found) - start])
            found[start : start + self.batch_size] = probabilities[: len(found) - start]
        return found

    def _check(self, outputs: Floats) -> None:
        """Refuse, at the first batch, a model whose outputs for its faces (padding aside) are something else than probabilities."""
        low, high, total = float(outputs.min()), float(outputs.max()), float(outputs.sum(axis=1).mean())
        if not (low >= -1e-3 and high <= 1 + 1e-3 and abs(total - 1) <= 0.02):
            raise ModelError(
                f"the outputs of model {self.name} are not probabilities (from {low:.3g} to {high:.3g}, adding up to {total:.3g}); "
                "convert it with `maskbatch export classifier convert … --softmax`"
            )
        self._checked = True

    def warm_up(self) -> None:
        """Run the one shape once."""
        self._session.run(self._batch)


def classifier_file(config: ModelSettings, device: Device) -> ModelFile:
    """The very file that `make_classifier` opens."""
    prefer = preferred_precisions(device, variant_files(config.classifier)) if config.precision == "auto" else ()
    return find_model(config.classifier, "classifier", prefer, config.precision)


def make_classifier(config: ModelSettings, device: Device, batch_size: int = 0) -> FaceClassifier:
    """The classifier that the settings name, loaded on a device.

    Args:
        config: `classifier` and `precision` are read.
        device: from `maskbatch.runtime.resolve_device`.
        batch_size: crops per forward pass; 0 = auto.

    Raises:
        UsageError: no such classifier.
        ModelError: the file is missing, broken, or not a classifier of faces.
        DeviceError: the device does not take the model.
    """
    model = classifier_file(config, device)
    return FaceClassifier(open_session(model, device, batch_size=batch_size or device.classifier_batch))
