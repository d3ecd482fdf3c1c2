"""How a classifier wants its pixels, and folding that into the ONNX file, so that a scan can feed it bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskbatch.classify.crops import CROP_CONTEXT
from maskbatch.errors import ModelError
from maskbatch.tasks.mask import LABELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scale = Literal["-1..1", "0..1", "0..255", "caffe", "torch"]
"""Ranges, and two of Keras's ``preprocess_input`` modes (keras.applications.imagenet_utils); its third, ``tf``, is -1..1."""

# Of ImageNet, red, green, blue, as keras.applications.imagenet_utils has them.
_CAFFE_MEANS = (123.68, 116.779, 103.939)
_TORCH_MEANS = (0.485, 0.456, 0.406)
_TORCH_DEVIATIONS = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Source:
    """What a model to convert expects and gives.

    Attributes:
        scale: range of the pixel values that it takes.
        channels: order of the channels that it takes, ``bgr`` or ``rgb``.
        labels: its outputs, in order.
        context: crop context that it was trained with.
        softmax: its outputs are logits, and a softmax is to be added.
    """

    scale: Scale = "-1..1"
    channels: Literal["bgr", "rgb"] = "bgr"
    labels: tuple[str, ...] = LABELS
    context: float = CROP_CONTEXT
    softmax: bool = False

    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Per channel, in the model's order: what a byte is multiplied by, and what is then added."""
        if self.scale == "caffe":
            factor, offset = np.ones(3), -np.array(_CAFFE_MEANS)
        elif self.scale == "torch":
            factor = 1 / (255 * np.array(_TORCH_DEVIATIONS))
            offset = -np.array(_TORCH_MEANS) / np.array(_TORCH_DEVIATIONS)
        else:
            factor = np.full(3, {"-1..1": 1 / 127.5, "0..1": 1 / 255, "0..255": 1.0}[self.scale])
            offset = np.full(3, -1.0 if self.scale == "-1..1" else 0.0)
        if self.channels == "bgr":
            factor, offset = factor[::-1], offset[::-1]
        return factor.astype(np.float32).copy(), offset.astype(np.float32).copy()

    def prepare(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The crops as the model takes them, N×S×S×3 float32, by the definition of its scale and not by `factors`."""
        x = crops.astype(np.float64)  # n×S×S×3 BGR
        if self.channels == "rgb":
            x = x[..., ::-1]
        means, deviations = np.array(_TORCH_MEANS), np.array(_TORCH_DEVIATIONS)
        caffe = np.array(_CAFFE_MEANS)
        if self.channels == "bgr":
            means, deviations, caffe = means[::-1], deviations[::-1], caffe[::-1]
        if self.scale == "-1..1":
            x = x / 127.5 - 1
        elif self.scale == "0..1":
            x = x / 255
        elif self.scale == "caffe":
            x = x - caffe
        elif self.scale == "torch":
            x = (x / 255 - means) / deviations
        return np.ascontiguousarray(x, np.float32)

    def probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """A model's n×k outputs as n×k probabilities: softmax where asked for, and both sides of a single sigmoid."""
        values = outputs.astype(np.float64)
        if values.shape[1] == 1 and len(self.labels) == 2:
            if self.softmax:
                values = 1 / (1 + np.exp(-values))
            return np.concatenate([1 - values, values], axis=1).astype(np.float32)
        if self.softmax:
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        return values.astype(np.float32)


def check_outputs(outputs: NDArray[np.float32], source: Source, path: object) -> None:
    """Refuse a model whose outputs, as they will stand in the file, are not a probability per label.

    Args:
        outputs: n×k, of real crops.
        source: what was said of the model.
        path: of the model, for the message.

    Raises:
        ModelError: another number of outputs than labels, or values that are not probabilities.
    """
    count = outputs.shape[1] if outputs.ndim == 2 else 0
    if count != len(source.labels):
        raise ModelError(
            f"{path} has {count} outputs but {len(source.labels)} labels were named ({', '.join(source.labels)}); "
            "name all of them in order with --labels"
        )
    if outputs.min() < -1e-3 or outputs.max() > 1 + 1e-3 or np.abs(outputs.sum(axis=1) - 1).max() > 1e-2:
        raise ModelError(
            f"the outputs of {path} are not probabilities (from {outputs.min():.3g} to {outputs.max():.3g}, adding up to "
            f"{outputs.sum(axis=1).mean():.3g}); if they are logits, add --softmax"
        )


def bytes_into(model: Any, source: Source) -> int:
    """Let an ONNX classifier of float images take uint8 N×S×S×3 BGR, in place; the side S.

    Args:
        model: one input of float32, N×S×S×3 or N×3×S×S; a batch of 1 is freed.
        source: what it expects.

    Raises:
        ModelError: it takes something else.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    held = {initializer.name for initializer in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in held]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise ModelError("the ONNX file takes something other than one batch of float32 images")
    entry = inputs[0]
    sizes = [axis.dim_value or None for axis in entry.type.tensor_type.shape.dim]
    if len(sizes) != 4 or not (sizes[3] == 3 or sizes[1] == 3):
        raise ModelError(f"the ONNX file takes {sizes}, not N×S×S×3 or N×3×S×S")
    last = sizes[3] == 3
    side = sizes[1] if last else sizes[2]
    if not side or side != (sizes[2] if last else sizes[3]):
        raise ModelError(f"the ONNX file takes {sizes}, not square images of a fixed size")
    factor, offset = source.factors()
    name = entry.name
    nodes = [helper.make_node("Cast", ["images"], ["maskbatch_floats"], to=TensorProto.FLOAT)]
    current = "maskbatch_floats"
    if source.channels == "rgb":
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "maskbatch_order"))
        nodes.append(helper.make_node("Gather", [current, "maskbatch_order"], ["maskbatch_channels"], axis=3))
        current = "maskbatch_channels"
    graph.initializer.append(numpy_helper.from_array(factor, "maskbatch_factor"))
    graph.initializer.append(numpy_helper.from_array(offset, "maskbatch_offset"))
    nodes.append(helper.make_node("Mul", [current, "maskbatch_factor"], ["maskbatch_scaled"]))
    shifted = name if last else "maskbatch_shifted"
    nodes.append(helper.make_node("Add", ["maskbatch_scaled", "maskbatch_offset"], [shifted]))
    if not last:
        nodes.append(helper.make_node("Transpose", [shifted], [name], perm=[0, 3, 1, 2]))
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)
    graph.input.remove(entry)
    graph.input.insert(0, helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", side, side, 3]))
    del graph.value_info[:]
    return int(side)


def probabilities_out_of(model: Any, source: Source, name: str = "probabilities") -> None:
    """Give an ONNX classifier one output N×k of probabilities, in place: see `Source.probabilities`.

    Raises:
        ModelError: the file has several outputs.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    if len(graph.output) != 1:
        raise ModelError(f"the ONNX file has {len(graph.output)} outputs, not one of probabilities")
    old = graph.output[0]
    sizes = [axis.dim_value for axis in old.type.tensor_type.shape.dim]
    single = bool(sizes) and sizes[-1] == 1 and len(source.labels) == 2
    current = old.name
    if source.softmax:
        activated = ["maskbatch_activated"]
        node = (
            helper.make_node("Sigmoid", [current], activated)
            if single
            else helper.make_node("Softmax", [current], activated, axis=1)
        )
        graph.node.append(node)
        current = "maskbatch_activated"
    if single:
        graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "maskbatch_one"))
        graph.node.append(helper.make_node("Sub", ["maskbatch_one", current], ["maskbatch_rest"]))
        graph.node.append(helper.make_node("Concat", ["maskbatch_rest", current], ["maskbatch_both"], axis=1))
        current = "maskbatch_both"
    graph.node.append(helper.make_node("Identity", [current], [name]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(source.labels)]))
