"""INT8 that is exact on every x86: weights no pair of which can overflow 16 bits.

x86 processors without VNNI multiply unsigned activations by signed weights two at a time (``pmaddubsw``), and the sum of the two
products *saturates* at 16 bits. With activations up to 255 the sum fits as long as the weights of a pair that have one sign add up to
at most 128: 255 · 128 = 32,640. The customary cure, weights of 7 bits, halves the resolution of every weight; but only pairs matter, so
`exact_integers` keeps 8 bits and cuts, or scales down by channel, the few pairs that could overflow. With such weights both kinds of
processor compute the same integers, and what was measured on one holds on the other.

Which weights form a pair depends on the layout in which ONNX Runtime runs a convolution; both are kept safe. Depthwise layers have
kernels of their own, which add in 32 bits. Without such processors at hand `SaturatingModel` computes what they would: ONNX Runtime
has no setting that makes a processor with VNNI take the older kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

LIMIT = 128
"""Largest sum of two weights of one sign that times 255 fits into 16 bits: 255 · 128 = 32,640 ≤ 32,767."""
_LOW, _HIGH = -32768, 32767


def pair_sums(weights: NDArray[Any]) -> NDArray[Any]:
    """Largest magnitude, per output channel, of the sum of two paired weights of one sign, over both layouts.

    Args:
        weights: O×I×kh×kw of a convolution, O×K of a dense layer.

    Returns:
        O values of the dtype of `weights` (int32 for int8).
    """
    values = weights.astype(np.int32) if weights.dtype == np.int8 else weights
    largest = np.zeros(len(values), values.dtype)
    for rows in _layouts(values):
        for part in (np.maximum(rows, 0), np.maximum(-rows, 0)):
            largest = np.maximum(largest, (part[:, ::2] + part[:, 1::2]).max(axis=1))
    return largest


def _layouts(weights: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """O×K with K even: channels last (the order of the NHWC kernels), and as stored (im2col of NCHW)."""
    rows = [weights.reshape(len(weights), -1)]
    if weights.ndim == 4:
        rows.append(weights.transpose(0, 2, 3, 1).reshape(len(weights), -1))
    for row in rows:
        yield np.pad(row, ((0, 0), (0, row.shape[1] % 2)))


def exact_integers(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as integers of -127…127 no pair of which can overflow, and the scale of every output channel.

    A coarser scale rounds all weights of a channel more, a finer one cuts the pairs that would overflow: of a dozen
    scales between the two ends each channel takes the one with the least squared error.

    Args:
        weights: O×I×kh×kw or O×K float32.
    """
    shape = (-1,) + (1,) * (weights.ndim - 1)
    axes = tuple(range(1, weights.ndim))
    finest = np.maximum(np.abs(weights).max(axis=axes) / 127, 1e-10)
    coarsest = np.maximum(finest, pair_sums(weights) / LIMIT)
    best = np.full(len(weights), np.inf)
    chosen, scales = np.zeros(weights.shape, np.int8), np.ones(len(weights), np.float32)
    for step in np.linspace(0, 1, STEPS):
        scale = (finest * (coarsest / finest) ** step).astype(np.float32)
        integers = _cut_pairs(np.clip(np.rint(weights / scale.reshape(shape)), -127, 127).astype(np.int32))
        error = ((integers * scale.reshape(shape) - weights) ** 2).sum(axis=axes)
        better = error < best
        best[better], scales[better], chosen[better] = error[better], scale[better], integers[better]
    return chosen, scales


STEPS = 12


def _cut_pairs(integers: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same with both weights of every pair that could overflow made smaller, by half of the excess each."""
    found = integers.copy()
    while (pair_sums(found) > LIMIT).any():
        for axes in ((0, 1, 2, 3), (0, 2, 3, 1)) if found.ndim == 4 else ((0, 1),):
            moved = found.transpose(axes)
            rows = moved.reshape(len(found), -1).copy()
            even = rows[:, : rows.shape[1] // 2 * 2].reshape(len(rows), -1, 2)
            for sign in (1, -1):
                part = np.maximum(sign * even, 0)
                excess = np.maximum(part.sum(axis=2) - LIMIT, 0)
                # The larger weight gives the odd one; neither changes its sign, since each is at least the excess.
                take = np.stack([excess - excess // 2, excess // 2], axis=2)
                swap = part[:, :, 0] < part[:, :, 1]
                take[swap] = take[swap][:, ::-1]
                even -= sign * np.minimum(take, part)
            rows[:, : even.shape[1] * 2] = even.reshape(len(rows), -1)
            found = rows.reshape(moved.shape).transpose(np.argsort(axes)).copy()
    return found


def make_exact(model: onnx.ModelProto, leave: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Round every convolution's weights (not the depthwise ones') to `exact_integers`, in place.

    Args:
        model: the float32 graph that is to be quantized; changed.
        leave: names of nodes that stay in float.

    Returns:
        `TensorQuantOverrides` of ONNX Runtime that quantize these weights to those very integers.
    """
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    arrays = {entry.name: entry for entry in model.graph.initializer}
    found: dict[str, list[dict[str, Any]]] = {}
    for node in model.graph.node:
        name = node.input[1] if node.op_type == "Conv" else ""
        if not name or node.name in leave or name not in arrays or _groups(node) > 1 or name in found:
            continue
        integers, scales = exact_integers(numpy_helper.to_array(arrays[name]))
        rounded = integers * scales.reshape((-1,) + (1,) * (integers.ndim - 1))
        arrays[name].CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), name))
        zero = np.array(0, np.int8)
        found[name] = [
            {"quant_type": QuantType.QInt8, "axis": 0, "scale": np.array(scale, np.float32), "zero_point": zero}
            for scale in scales
        ]
    return found


@dataclass(frozen=True, slots=True)
class Overflow:
    """What saturation does to a quantized file.

    Attributes:
        pairs: pairs of weights, in all.
        risky: those that can overflow for some activations; 0 proves the file exact.
        sums: sums of pairs that were computed on real inputs with a risky pair.
        saturated: those that did overflow.
    """

    pairs: int
    risky: int
    sums: int = 0
    saturated: int = 0


def count_pairs(model: onnx.ModelProto) -> Overflow:
    """How many pairs of weights of a QDQ file can overflow, whatever the input."""
    pairs = risky = 0
    for _, weights, _ in _integer_convs(model):
        for rows in _layouts(weights.astype(np.int32)):
            sums = [np.maximum(s * rows, 0)[:, ::2] + np.maximum(s * rows, 0)[:, 1::2] for s in (1, -1)]
            pairs += sums[0].size
            risky += int((np.maximum(*sums) > LIMIT).sum())
    return Overflow(pairs, risky)


def _groups(node: onnx.NodeProto) -> int:
    return next((entry.i for entry in node.attribute if entry.name == "group"), 1)


def _integer_convs(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, NDArray[np.int8], NDArray[np.float32]]]:
    """Convolutions between quantized tensors: the node, its int8 weights O×I×kh×kw, their scales O."""
    from onnx import numpy_helper

    arrays = {entry.name: entry for entry in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type != "Conv" or _groups(node) > 1:
            continue
        data, weight = makers.get(node.input[0]), makers.get(node.input[1])
        if data is None or weight is None or {data.op_type, weight.op_type} != {"DequantizeLinear"}:
            continue
        integers = numpy_helper.to_array(arrays[weight.input[0]])
        if integers.dtype == np.int8:
            yield node, integers, numpy_helper.to_array(arrays[weight.input[1]])


class SaturatingModel:
    """A QDQ file as a processor without VNNI runs it: sums of pairs saturate at 16 bits, in the order of the NHWC kernels.

    Everything else runs in ONNX Runtime, node by node without fusion, so that with no risky pair the outputs are those of
    the file up to the rounding of float32. Slow: for checks.
    """

    def __init__(self, path: Path, saturate: bool = True) -> None:
        import onnx

        self._model = onnx.shape_inference.infer_shapes(onnx.load(path))
        self._saturate = saturate
        self._convs = {node.output[0]: (weights, scales) for node, weights, scales in _integer_convs(self._model)}
        self._steps: list[Any] = []
        self.sums = self.saturated = 0
        self._prepare()

    def _prepare(self) -> None:
        """Cut the graph at the integer convolutions: alternately a part for ONNX Runtime and a convolution for NumPy."""
        from onnx import numpy_helper

        graph = self._model.graph
        self._arrays = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}
        part: list[Any] = []
        for node in graph.node:
            if node.output[0] in self._convs:
                self._steps += [self._part(part), node]
                part = []
            else:
                part.append(node)
        self._steps.append(self._part(part))

    def _part(self, nodes: list[Any]) -> Any:
        """A session of some nodes, its inputs and its outputs."""
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper

        graph = self._model.graph
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in node.input if name} - made
        used = {name for name in read if name in self._arrays}
        kinds = {
            value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)
        }
        elsewhere = [node for node in graph.node if node.output[0] not in made]
        later = {name for node in elsewhere for name in node.input} | {entry.name for entry in graph.output}
        later |= {self._makers[node.input[0]].input[0] for node in elsewhere if node.output[0] in self._convs}
        inputs, outputs = sorted(read - used), sorted(made & later)
        if not outputs:
            return None

        def value(name: str) -> Any:
            return helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None)

        body = helper.make_graph(nodes, "part", [value(n) for n in inputs], [value(n) for n in outputs])
        body.initializer.extend(entry for entry in graph.initializer if entry.name in used)
        piece = helper.make_model(body, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(
            onnx.ModelProto.SerializeToString(piece), options, providers=["CPUExecutionProvider"]
        )
        return session, inputs, outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name, for inputs by name."""
        values: dict[str, NDArray[Any]] = dict(feed)
        for step in self._steps:
            if step is None:
                continue
            if isinstance(step, tuple):
                session, inputs, outputs = step
                values |= dict(zip(outputs, session.run(outputs, {name: values[name] for name in inputs}), strict=True))
            else:
                values[step.output[0]] = self._convolve(step, values)
        return {output.name: values[output.name] for output in self._model.graph.output}

    def _convolve(self, node: Any, values: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        data = self._makers[node.input[0]]
        integers, scale = values[data.input[0]], self._arrays[data.input[1]]
        zero = int(self._arrays[data.input[2]]) if len(data.input) > 2 and data.input[2] else 0
        weights, scales = self._convs[node.output[0]]
        settings = {entry.name: list(entry.ints) for entry in node.attribute if entry.ints}
        columns, tall, wide = _columns(integers, weights.shape[2:], settings, zero)
        rows = weights.transpose(0, 2, 3, 1).reshape(len(weights), -1).astype(np.int32)
        # Integers below 2^53 are exact in float64, which has a fast matrix product.
        sums = columns.astype(np.float64) @ rows.T.astype(np.float64)
        if self._saturate:
            self._lose(sums, columns, rows)
        sums -= zero * rows.sum(axis=1)
        found = sums * (np.float64(scale) * scales.astype(np.float64))
        if len(node.input) > 2 and node.input[2]:
            found = found + self._bias(node.input[2], values)
        return np.ascontiguousarray(found.reshape(len(integers), tall, wide, -1).transpose(0, 3, 1, 2), np.float32)

    def _bias(self, name: str, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if name in self._arrays:
            return self._arrays[name]
        return values[name]

    def _lose(self, sums: NDArray[np.float64], columns: NDArray[np.uint8], rows: NDArray[np.int32]) -> None:
        """Take from `sums` what saturation of the risky pairs loses."""
        even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
        first, second = even[:, ::2], even[:, 1::2]
        positive = np.maximum(first, 0) + np.maximum(second, 0)
        negative = np.maximum(-first, 0) + np.maximum(-second, 0)
        for channel, pair in np.argwhere(np.maximum(positive, negative) > LIMIT):
            left = columns[:, 2 * pair].astype(np.int32) * first[channel, pair]
            right = 2 * pair + 1
            both = (
                left + columns[:, right].astype(np.int32) * second[channel, pair] if right < columns.shape[1] else left
            )
            lost = both - np.clip(both, _LOW, _HIGH)
            self.sums += len(both)
            self.saturated += int((lost != 0).sum())
            sums[:, channel] -= lost


def _columns(
    images: NDArray[np.uint8], kernel: tuple[int, ...], settings: Mapping[str, list[int]], zero: int
) -> tuple[NDArray[np.uint8], int, int]:
    """im2col, channels last: (N·H'·W')×(kh·kw·C) uint8 of N×C×H×W, and H', W'."""
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    down, across = settings.get("strides", [1, 1])
    padded = np.pad(
        images.transpose(0, 2, 3, 1), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=np.uint8(zero)
    )
    views = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))[:, ::down, ::across]
    count, tall, wide = views.shape[:3]
    return views.transpose(0, 1, 2, 4, 5, 3).reshape(count * tall * wide, -1), tall, wide
