"""The ONNX files of the training package: what stands in their metadata, and running them on crops."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskbatch.classify.crops import CROP_CONTEXT
from maskbatch.errors import ModelError
from maskbatch.tasks import classifier_labels

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, or of the names and contents of all files of a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if len(files) > 1 or path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def set_metadata(model: onnx.ModelProto, values: Mapping[str, str]) -> None:
    """Replace or add entries of ``metadata_props``."""
    kept = {entry.key: entry.value for entry in model.metadata_props} | dict(values)
    del model.metadata_props[:]
    for key, value in sorted(kept.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def get_metadata(path: Path) -> dict[str, str]:
    """``metadata_props`` of an ONNX file."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}


class OnnxClassifier:
    """An exported classifier on one CPU thread.

    Raises:
        ModelError: the file is not a classifier of crops: its input is not uint8 N×S×S×3, or it does not name its labels.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
        entry = self.session.get_inputs()[0]
        shape = entry.shape
        if entry.type != "tensor(uint8)" or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ModelError(f"{path} takes {entry.type} {shape}, not uint8 crops of N×S×S×3")
        self.size = int(shape[1])
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        last = self.session.get_outputs()[0].shape[-1:]
        outputs = next((size for size in last if isinstance(size, int)), None)
        self.labels = classifier_labels(self.metadata, outputs, path.name)
        self.context = float(self.metadata.get("context", CROP_CONTEXT))

    def predict(self, crops: NDArray[np.uint8], batch: int = 16) -> NDArray[np.float32]:
        """n×k float32 probabilities of n×S×S×3 uint8 BGR crops."""
        name = self.session.get_inputs()[0].name
        parts: list[Any] = [
            self.session.run(None, {name: crops[start : start + batch]})[0] for start in range(0, len(crops), batch)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)
