"""The dense layers at the end of an ONNX classifier: taken out, trained on with cached features, and put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskbatch.errors import ModelError
from maskbatch_export.onnx_files import set_metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

Weights = tuple["NDArray[np.float32]", "NDArray[np.float32]"]
Batch = Callable[[], "tuple[NDArray[np.float32], NDArray[np.float32]]"]
_FEATURES = "maskbatch_features"


@dataclass(frozen=True)
class Head:
    """Dense layers with ReLU between them and a softmax at the end.

    Attributes:
        layers: weights inputs×outputs and bias of each.
    """

    layers: tuple[Weights, ...]

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """n×k of n×d features."""
        return self._forward(features)[-1]

    def _forward(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        values = [x]
        for number, (weight, bias) in enumerate(self.layers):
            x = values[-1] @ weight + bias
            values.append(np.maximum(x, 0) if number < len(self.layers) - 1 else _softmax(x))
        return values

    def fitted(self, batch: Batch, steps: int, rate: float = 3e-4, pull: float = 1e-3) -> Head:
        """After `steps` of Adam on the cross entropy (Kingma and Ba 2015), the rate falling by a cosine.

        Args:
            batch: gives n×d features and n×k targets.
            steps: number of them.
            rate: at the start.
            pull: weight of the squared distance from where it began.
        """
        start = [array for layer in self.layers for array in layer]
        now = [array.astype(np.float32) for array in start]
        first, second = [np.zeros_like(a) for a in now], [np.zeros_like(a) for a in now]
        for step in range(1, steps + 1):
            x, targets = batch()
            head = Head(tuple((now[i], now[i + 1]) for i in range(0, len(now), 2)))
            pace = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
            for index, gradient in enumerate(head._gradients(x, targets)):
                slope = gradient + pull * (now[index] - start[index])
                first[index] = np.asarray(0.9 * first[index] + 0.1 * slope, np.float32)
                second[index] = np.asarray(0.999 * second[index] + 0.001 * slope**2, np.float32)
                size = np.sqrt(second[index] / (1 - 0.999**step)) + 1e-8
                now[index] = (now[index] - pace * first[index] / (1 - 0.9**step) / size).astype(np.float32)
        return Head(tuple((now[i], now[i + 1]) for i in range(0, len(now), 2)))

    def _gradients(self, x: NDArray[np.float32], targets: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        values = self._forward(x)
        error = np.asarray((values[-1] - targets) / len(x), np.float32)
        found: list[NDArray[np.float32]] = []
        for number in range(len(self.layers) - 1, -1, -1):
            found = [
                np.asarray(values[number].T @ error, np.float32),
                np.asarray(error.sum(axis=0), np.float32),
                *found,
            ]
            if number:
                error = np.asarray((error @ self.layers[number][0].T) * (values[number] > 0), np.float32)
        return found


class HeadModel:
    """An ONNX classifier split before its dense layers.

    Args:
        path: float32 file.

    Raises:
        ModelError: it does not end in dense layers with weights of float32 (an INT8 file does not, nor a convolution as the last layer).
    """

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        try:
            self._model = onnx.load(path)
        except Exception as error:
            raise ModelError(f"{path} is not an ONNX model: {error}") from error
        self._path = path
        held = {entry.name: numpy_helper.to_array(entry) for entry in self._model.graph.initializer}
        self._names, self._input = _dense_layers(self._model.graph, held, path)
        self.head = Head(tuple((held[weight], held[bias]) for weight, bias in self._names))
        self._session = self._features_session()

    def features(self, crops: NDArray[np.uint8], batch: int = 16) -> NDArray[np.float32]:
        """n×d float32 of n×S×S×3 uint8 BGR crops: what the first dense layer gets."""
        name = self._session.get_inputs()[0].name
        parts = [
            self._session.run(None, {name: np.ascontiguousarray(crops[at : at + batch])})[0]
            for at in range(0, len(crops), batch)
        ]
        return np.concatenate(parts)

    def with_head(self, head: Head, metadata: Mapping[str, str]) -> Candidate:
        """The whole model with other dense layers."""
        import onnx
        from onnx import numpy_helper

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        arrays = {
            name: array
            for names, layer in zip(self._names, head.layers, strict=True)
            for name, array in zip(names, layer, strict=True)
        }
        for entry in model.graph.initializer:
            if entry.name in arrays:
                entry.CopyFrom(numpy_helper.from_array(arrays[entry.name].astype(np.float32), entry.name))
        set_metadata(model, metadata)
        onnx.checker.check_model(model)
        return Candidate(model.SerializeToString())

    def _features_session(self) -> Any:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info(self._input, onnx.TensorProto.FLOAT, None))
        return _session(model.SerializeToString())


class Candidate:
    """A model in memory.

    Attributes:
        data: the ONNX file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._session = _session(data)

    def predict(self, crops: NDArray[np.uint8], batch: int = 16) -> NDArray[np.float32]:
        """n×k float32 probabilities of n×S×S×3 uint8 BGR crops."""
        name = self._session.get_inputs()[0].name
        parts = [self._session.run(None, {name: crops[at : at + batch]})[0] for at in range(0, len(crops), batch)]
        return np.concatenate(parts)


def _session(data: bytes) -> Any:
    """On one thread that does not spin: the answers do not depend on the machine's other work, nor its cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _dense_layers(graph: Any, held: Mapping[str, Any], path: Path) -> tuple[list[tuple[str, str]], str]:
    """Names of weights and bias of the dense layers at the end, first to last, and of what the first one gets."""
    makers = {name: node for node in graph.node for name in node.output}
    layers: list[tuple[str, str]] = []
    current = graph.output[0].name
    while makers.get(current) is not None and makers[current].op_type in ("Softmax", "Relu", "Identity", "Add"):
        node = makers[current]
        if node.op_type != "Add":
            current = node.input[0]
            continue
        bias = next((name for name in node.input if name in held), None)
        other = next((name for name in node.input if name not in held), "")
        product = makers.get(other)
        if bias is None or product is None or product.op_type != "MatMul" or product.input[1] not in held:
            break
        layers.insert(0, (product.input[1], bias))
        current = product.input[0]
    last = makers.get(graph.output[0].name)
    if not layers or last is None or last.op_type not in ("Softmax", "Identity"):
        raise ModelError(
            f"{path.name} does not end in dense layers of float32 that can be trained on; name a float32 file, as "
            "`maskbatch export classifier convert` makes it"
        )
    return layers, current


def _softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    values = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(values / values.sum(axis=1, keepdims=True), np.float32)
