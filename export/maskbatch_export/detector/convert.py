"""Keras -> ONNX, layer by layer: batch norms folded, NCHW throughout, uint8 images in, one Transpose at the entry.

The graph is written directly because a converter leaves layout changes between the layers, which cost a tenth of the time.
:func:`check_parity` proves that the file computes what the model computes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from maskbatch_export.detector.anchors import ANCHOR_SIDES, ANCHORS_PER_CELL, STRIDES, VARIANCES
from maskbatch_export.detector.graph import Step, walk

OPSET = 17


def _array(variable: keras.Variable) -> np.ndarray:
    found: np.ndarray = np.asarray(keras.ops.convert_to_numpy(variable.value), np.float32)
    return found


class _Writer:
    """Collects nodes and initializers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def const(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def _folded(step: Step, norm: layers.BatchNormalization | None) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (OIHW) and bias of a convolution with the batch norm behind it taken in."""
    layer = step.layer
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    kernel = _array(layer.kernel).transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)).astype(np.float64)
    bias = np.zeros(kernel.shape[0]) if layer.bias is None else _array(layer.bias).astype(np.float64)
    if norm is not None:
        scale = _array(norm.gamma) / np.sqrt(_array(norm.moving_variance).astype(np.float64) + norm.epsilon)
        kernel = kernel * scale[:, None, None, None]
        bias = (bias - _array(norm.moving_mean)) * scale + _array(norm.beta)
    return kernel.astype(np.float32), bias.astype(np.float32)


def to_onnx(model: keras.Model, metadata: Mapping[str, object] | None = None) -> onnx.ModelProto:
    """The detector as ONNX.

    Input ``images`` uint8 ``[N, H, W, 3]`` BGR (H, W multiples of 32). Outputs ``scores`` ``[N, A]`` (probability of a face), ``deltas``
    ``[N, A, 4]`` and ``landmark_deltas`` ``[N, A, 10]``, float32, to be decoded with the anchors of the metadata.
    """
    steps, outputs = walk(model)
    writer = _Writer()
    alias = {
        "images": writer.node(
            "Cast", [writer.node("Transpose", ["images"], "planes", perm=[0, 3, 1, 2])], "pixels", to=TensorProto.FLOAT
        )
    }
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    padded: dict[str, int] = {}
    for step in steps:
        layer = step.layer
        source = [alias[name] for name in step.inputs]
        if isinstance(layer, layers.ZeroPadding2D):
            padded[step.output] = 1
            alias[step.output] = source[0]
        elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            follower = readers.get(step.output, [])
            norm = follower[0].layer if follower and isinstance(follower[0].layer, layers.BatchNormalization) else None
            kernel, bias = _folded(step, norm)
            size = kernel.shape[-1]
            pad = padded.get(step.inputs[0], size // 2 if layer.padding == "same" else 0)
            inputs = [*source, writer.const(f"{step.output}.kernel", kernel), writer.const(f"{step.output}.bias", bias)]
            groups = kernel.shape[0] if isinstance(layer, layers.DepthwiseConv2D) else 1
            alias[step.output] = writer.node(
                "Conv",
                inputs,
                step.output,
                kernel_shape=[size, size],
                pads=[pad] * 4,
                strides=list(layer.strides),
                group=groups,
            )
        elif isinstance(layer, layers.BatchNormalization):
            alias[step.output] = source[0]
        elif isinstance(layer, layers.ReLU):
            alias[step.output] = writer.node("Relu", source, step.output)
        elif isinstance(layer, layers.Add):
            alias[step.output] = writer.node("Add", source, step.output)
        elif isinstance(layer, layers.Concatenate):
            alias[step.output] = writer.node("Concat", source, step.output, axis=1)
        elif isinstance(layer, layers.UpSampling2D):
            scales = writer.const(f"{step.output}.scales", np.array([1, 1, 2, 2], np.float32))
            alias[step.output] = writer.node(
                "Resize",
                [source[0], "", scales],
                step.output,
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        else:
            raise TypeError(f"layer {layer.name} of type {type(layer).__name__} has no ONNX form here")
    _write_heads(writer, [alias[name] for name in outputs])
    graph = helper.make_graph(
        writer.nodes,
        "retinaface",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", "A"]),
            helper.make_tensor_value_info("deltas", TensorProto.FLOAT, ["N", "A", 4]),
            helper.make_tensor_value_info("landmark_deltas", TensorProto.FLOAT, ["N", "A", 10]),
        ],
        writer.initializers,
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="maskbatch"
    )
    set_metadata(proto, {"anchors": anchor_metadata(), **(metadata or {})})
    onnx.checker.check_model(proto)
    return proto


def _write_heads(writer: _Writer, heads: list[str]) -> None:
    last = {"scores": 1, "deltas": 4, "landmark_deltas": 10}
    parts: dict[str, list[str]] = {name: [] for name in last}
    sizes = [ANCHORS_PER_CELL * width for width in last.values()]
    split = writer.const("head.split", np.array(sizes, np.int64))
    shapes = {
        name: writer.const(f"{name}.shape", np.array([0, -1] if w == 1 else [0, -1, w], np.int64))
        for name, w in last.items()
    }
    for head in heads:
        rows = writer.node("Transpose", [head], f"{head}.rows", perm=[0, 2, 3, 1])
        pieces = [f"{head}.{name}" for name in last]
        writer.nodes.append(helper.make_node("Split", [rows, split], pieces, name=f"{head}.split", axis=3))
        for name, piece in zip(last, pieces, strict=True):
            parts[name].append(writer.node("Reshape", [piece, shapes[name]], f"{piece}.flat"))
    writer.node("Sigmoid", [writer.node("Concat", parts["scores"], "logits", axis=1)], "scores")
    for name in ("deltas", "landmark_deltas"):
        writer.node("Concat", parts[name], name, axis=1)


def anchor_metadata() -> str:
    """The anchors as JSON: strides, sides per stride, variances, order."""
    return json.dumps(
        {
            "strides": STRIDES,
            "sides": ANCHOR_SIDES,
            "variances": VARIANCES,
            "centre": 0.5,
            "order": "stride,row,column,side",
        }
    )


def set_metadata(proto: onnx.ModelProto, values: Mapping[str, object]) -> None:
    """Replace the metadata of the same keys."""
    kept = {entry.key: entry.value for entry in proto.metadata_props}
    kept.update({key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()})
    del proto.metadata_props[:]
    helper.set_model_props(proto, kept)


def check_parity(model: keras.Model, path: Path, height: int = 256, width: int = 320, seed: int = 0) -> float:
    """Largest absolute difference of scores, deltas and landmark deltas between the Keras model and the ONNX file."""
    import onnxruntime as ort

    pictures = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = session.run(["scores", "deltas", "landmark_deltas"], {"images": pictures})
    expected = keras_outputs(model, pictures)
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


def keras_outputs(model: keras.Model, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the exported file returns, computed by Keras: scores, deltas, landmark deltas of uint8 ``(N, H, W, 3)`` images."""
    first = keras.config.image_data_format() == "channels_first"
    x = pictures.astype(np.float32)
    parts = []
    for head in model(x.transpose(0, 3, 1, 2) if first else x, training=False):
        values = np.asarray(keras.ops.convert_to_numpy(head))
        values = values.transpose(0, 2, 3, 1) if first else values
        logits, boxes, points = np.split(values, [ANCHORS_PER_CELL, ANCHORS_PER_CELL * 5], -1)
        n = len(values)
        parts.append((logits.reshape(n, -1), boxes.reshape(n, -1, 4), points.reshape(n, -1, 10)))
    logits, boxes, points = (np.concatenate(p, 1) for p in zip(*parts, strict=True))
    return 1 / (1 + np.exp(-logits)), boxes, points
