"""Batch norms and zero padding into convolutions: what the converter leaves behind of them, folded exactly.

tf2onnx folds a batch norm into an ordinary convolution, but leaves a multiplication and an addition behind every
depthwise one. They cost time, and they spoil INT8: the channels of a depthwise convolution before its norm differ by
orders of magnitude and would have to share one scale.

Keras pads on one side before a convolution of stride 2, with a node of its own. ONNX Runtime does not quantize that node, so
the largest tensors of the network would go back to float and be quantized again: a third of the INT8 model's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def fold_norms(model: onnx.ModelProto) -> int:
    """Fold ``Conv → Mul(constant) → Add(constant)`` into the convolution's kernel and bias, in place.

    Only constants with one value per channel, and only where nothing else uses the intermediate results.

    Returns:
        How many nodes were folded away.
    """
    graph = model.graph
    folded = 0
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        while True:
            users = [node for node in graph.node if conv.output[0] in node.input]
            if len(users) != 1 or users[0].op_type not in ("Mul", "Add"):
                break
            if not _fold_one(graph, conv, users[0]):
                break
            folded += 1
    return folded


def _fold_one(graph: onnx.GraphProto, conv: onnx.NodeProto, user: onnx.NodeProto) -> bool:
    from onnx import numpy_helper

    arrays = {entry.name: entry for entry in graph.initializer}
    constant = next((name for name in user.input if name in arrays), None)
    if constant is None or conv.input[1] not in arrays:
        return False
    kernel = numpy_helper.to_array(arrays[conv.input[1]])
    values = _per_channel(numpy_helper.to_array(arrays[constant]), len(kernel))
    if values is None:
        return False
    has_bias = len(conv.input) > 2
    if has_bias and conv.input[2] not in arrays:
        return False
    bias = numpy_helper.to_array(arrays[conv.input[2]]) if has_bias else np.zeros(len(kernel), np.float32)
    if user.op_type == "Mul":
        kernel, bias = kernel * values[:, None, None, None], bias * values
    else:
        bias = bias + values
    stem = conv.output[0]
    names = [f"{stem}_{user.op_type}_kernel", f"{stem}_{user.op_type}_bias"]
    for name, array in zip(names, (kernel, bias), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
    old = [*conv.input[1:]]
    del conv.input[1:]
    conv.input.extend(names)
    conv.output[0] = user.output[0]
    graph.node.remove(user)
    _drop_unused(graph, [*old, constant])
    return True


def fold_pads(model: onnx.ModelProto) -> int:
    """Fold ``Pad(zeros, height and width only) → Conv`` into the convolution's own padding, in place.

    Returns:
        How many nodes were folded away.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    arrays |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in graph.node if node.op_type == "Constant"
    }
    folded = 0
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        users = [node for node in graph.node if pad.output[0] in node.input]
        if len(users) != 1 or users[0].op_type != "Conv" or users[0].input[0] != pad.output[0]:
            continue
        if len(pad.input) < 2 or pad.input[1] not in arrays or len(pad.input) > 3:
            continue
        value = arrays.get(pad.input[2], None) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
        mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
        added = arrays[pad.input[1]].tolist()  # all begins, then all ends, of N, C, H, W
        if mode != b"constant" or value is None or np.any(value) or len(added) != 8:
            continue
        if any(added[axis] for axis in (0, 1, 4, 5)) or min(added) < 0:
            continue
        conv = users[0]
        auto = next((a.s for a in conv.attribute if a.name == "auto_pad"), b"NOTSET")
        if auto not in (b"NOTSET", b"VALID"):
            continue
        own = next((list(a.ints) for a in conv.attribute if a.name == "pads" and auto == b"NOTSET"), [0, 0, 0, 0])
        for attribute in [a for a in conv.attribute if a.name in ("pads", "auto_pad")]:
            conv.attribute.remove(attribute)
        total = [a + b for a, b in zip(own, (added[2], added[3], added[6], added[7]), strict=True)]
        conv.attribute.append(helper.make_attribute("pads", total))
        conv.input[0] = pad.input[0]
        graph.node.remove(pad)
        _drop_unused(graph, list(pad.input[1:]))
        folded += 1
    return folded


def _per_channel(array: NDArray[np.float32], channels: int) -> NDArray[np.float32] | None:
    """The constant as one value per channel of an N×C×H×W tensor, or None if it is something else."""
    shape = (1,) * (4 - array.ndim) + array.shape
    if array.dtype != np.float32 or array.ndim > 4 or shape[0] != 1 or shape[2:] != (1, 1):
        return None
    if shape[1] not in (1, channels):
        return None
    return np.asarray(np.broadcast_to(array.reshape(-1), channels), np.float32)


def _drop_unused(graph: onnx.GraphProto, names: list[str]) -> None:
    for name in names:
        if not any(name in node.input for node in graph.node):
            for entry in [e for e in graph.initializer if e.name == name]:
                graph.initializer.remove(entry)
