"""Faster variants of the ONNX classifier: static INT8 for CPUs, half precision for GPUs, each proven before it is kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskbatch.errors import ModelError
from maskbatch.storage.atomic import written_whole
from maskbatch_export.classifier.metrics import macro_f1
from maskbatch_export.onnx_files import OnnxClassifier, set_metadata, sha256_of
from maskbatch_export.saturation import count_pairs, make_exact

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

Variant = Literal["int8", "fp16"]
ALLOWED_LOSS = 0.003
"""A variant that loses more macro-F1 than this on the validation part is refused."""


@dataclass(frozen=True)
class VariantComparison:
    """A variant beside float32, on the same crops.

    Attributes:
        macro_f1: of the variant.
        macro_f1_float: of float32.
        agreement: share of crops with the same label.
        largest: largest difference of a probability.
        speed: crops per second on one thread, batch 8.
        speed_float: the same of float32.
    """

    macro_f1: float
    macro_f1_float: float
    agreement: float
    largest: float
    speed: float
    speed_float: float


def make_variant(
    path: Path,
    out: Path,
    variant: Variant,
    calibration: NDArray[np.uint8],
    crops: NDArray[np.uint8],
    labels: NDArray[np.int64],
    allowed_loss: float = ALLOWED_LOSS,
) -> VariantComparison:
    """Write a variant of a float32 model, if it is as good.

    Args:
        path: float32 ONNX file from `convert.convert`.
        out: file to write.
        variant: ``int8`` or ``fp16``.
        calibration: n×S×S×3 uint8 BGR crops that set the ranges of INT8; never those that compare.
        crops: m×S×S×3 uint8 BGR crops to compare on.
        labels: m int64, their classes.
        allowed_loss: see `ALLOWED_LOSS`.

    Raises:
        ModelError: the variant loses too much, or the model cannot be turned into one.
    """
    import onnx

    make: dict[str, Callable[[], Any]] = {"int8": lambda: _int8(path, calibration), "fp16": lambda: _half(path)}
    model = make[variant]()
    risky = count_pairs(model).risky
    if risky:
        raise ModelError(
            f"{risky} pairs of weights of the INT8 file can overflow on x86 without VNNI; {out} was not written"
        )
    values = {"name": out.stem, "variant": variant, "float32_sha256": sha256_of(path)}
    set_metadata(model, {entry.key: entry.value for entry in onnx.load(path).metadata_props} | values)
    with written_whole(out) as temporary:
        onnx.save(model, temporary)
        comparison = compare(path, temporary, crops, labels)
        loss = comparison.macro_f1_float - comparison.macro_f1
        if loss > allowed_loss:
            raise ModelError(
                f"{variant} loses {100 * loss:.2f} points of macro-F1 ({comparison.macro_f1_float:.4f} to "
                f"{comparison.macro_f1:.4f}), more than {100 * allowed_loss:g}; {out} was not written"
            )
    return comparison


def compare(path: Path, other: Path, crops: NDArray[np.uint8], labels: NDArray[np.int64]) -> VariantComparison:
    """Two ONNX files on the same crops; the first is the float32 one."""
    first, second = OnnxClassifier(path), OnnxClassifier(other)
    a, b = first.predict(crops), second.predict(crops)
    return VariantComparison(
        macro_f1(labels, b.argmax(1), first.labels),
        macro_f1(labels, a.argmax(1), first.labels),
        float((a.argmax(1) == b.argmax(1)).mean()),
        float(np.abs(a - b).max()),
        _speed(second, crops[:8]),
        _speed(first, crops[:8]),
    )


def _speed(model: OnnxClassifier, crops: NDArray[np.uint8]) -> float:
    """Best of ten batches: on a busy machine the best is what the model can do, the mean what the neighbours left."""
    times = []
    for _ in range(12):
        start = time.perf_counter()
        model.predict(crops, batch=len(crops))
        times.append(time.perf_counter() - start)
    return len(crops) / min(times[2:])


def _half(path: Path) -> Any:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(path)
    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return converted


def _int8(path: Path, calibration: NDArray[np.uint8]) -> Any:
    """QDQ, uint8 activations, int8 weights per channel; the uint8 images themselves are the first quantized tensor.

    A pixel x stands for x / 127.5 - 1 = (x - 128) / 127.5 + 0.5 / 127.5. The first term is a quantized tensor of scale
    1 / 127.5 and zero point 128 as it is; the second is a constant that moves into the bias of the first convolution.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if not len(calibration):
        raise ModelError("INT8 needs real crops to calibrate with")
    with tempfile.TemporaryDirectory() as folder:
        plain, quantized = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        model = onnx.load(path)
        entry = _pixels_as_floats(model)
        scale, zero = np.array(1 / 127.5, np.float32), np.array(128, np.uint8)
        overrides = {entry: [{"quant_type": QuantType.QUInt8, "scale": scale, "zero_point": zero}]}
        for name, (low, high) in _linear_ranges(model, entry, calibration).items():
            overrides[name] = [{"quant_type": QuantType.QUInt8, "rmin": low, "rmax": high}]
        kept = [*_head_nodes(model), *_first_block(model)]
        overrides |= make_exact(model, set(kept))
        onnx.save(model, plain)
        quantize_static(
            str(plain),
            str(quantized),
            _Feed(entry, calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=kept,
            extra_options={"TensorQuantOverrides": overrides},
        )
        result = onnx.load(quantized)
    _bytes_in(result, entry)
    onnx.checker.check_model(result)
    return result


TAIL = 1e-5
"""Share of the values at either end that the range of a linear layer's output leaves out."""


def _linear_ranges(
    model: onnx.ModelProto, entry: str, calibration: NDArray[np.uint8]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Ranges of the tensors that no ReLU6 bounds: a few outliers must not cost all other values their resolution."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    bounded = {name for node in model.graph.node if node.op_type in ("Clip", "Relu", "Softmax") for name in node.input}
    conv_or_add = [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Add")]
    names = [name for name in conv_or_add if name not in bounded]
    for name in names:
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    feed, found = _Feed(entry, calibration), []
    while (batch := feed.get_next()) is not None:
        values = session.run(names, batch)
        found.append([np.quantile(np.asarray(value), (TAIL, 1 - TAIL)) for value in values])
    low, high = np.mean(found, axis=0).T if names else (np.zeros(0), np.zeros(0))
    low, high = np.minimum(low, 0).astype(np.float32), np.maximum(high, 0).astype(np.float32)
    return {name: (np.array(a), np.array(b)) for name, a, b in zip(names, low, high, strict=True)}


class _Feed:
    """Calibration data in the form ONNX Runtime reads it: a dictionary at a time, then None."""

    def __init__(self, name: str, crops: NDArray[np.uint8]) -> None:
        self.name = name
        self.rest = iter([crops[start : start + 16] for start in range(0, len(crops), 16)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, N×3×S×S float32."""
        batch = next(self.rest, None)
        if batch is None:
            return None
        pixels = (batch.astype(np.float32) - 128) / np.float32(127.5)
        return {self.name: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}


def _head_nodes(model: Any) -> list[str]:
    """Names of the nodes from the first dense layer on.

    They stay float: they take no time, and probabilities in steps of 1/255 do not add up to one and tie.
    """
    nodes = list(model.graph.node)
    first = next((index for index, node in enumerate(nodes) if node.op_type in ("MatMul", "Gemm")), len(nodes))
    return [node.name for node in nodes[first:]]


def _first_block(model: Any) -> list[str]:
    """Names of the first depthwise convolution and of the one behind it.

    Their channels' ranges differ most: for an eighth of the speed, two thirds of the labels that INT8 changed come back.
    """
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    depthwise = [i for i, node in enumerate(convs) if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    return [node.name for node in convs[depthwise[0] : depthwise[0] + 2]] if depthwise else []


def _pixels_as_floats(model: onnx.ModelProto) -> str:
    """Cut cast, scaling and transposition off: the model's input becomes (x - 128) / 127.5, float N×3×S×S."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    used = {name: node for node in graph.node for name in node.input}
    name, cut = graph.input[0].name, []
    while True:
        node = used.get(name)
        if node is None or node.op_type not in ("Cast", "Mul", "Div", "Sub", "Add", "Transpose"):
            break
        cut.append(node)
        name = node.output[0]
    if node is None or node.op_type == "Pad":
        pad, name_after = node, node.output[0] if node is not None else ""
        node = used.get(name_after)
    else:
        pad = None
    if node is None or node.op_type != "Conv" or not any(n.op_type == "Transpose" for n in cut):
        kinds = [n.op_type for n in cut]
        raise ModelError(f"the graph does not begin with scaling, transposition and a convolution ({kinds})")
    arrays = {entry.name: entry for entry in graph.initializer}
    kernel = numpy_helper.to_array(arrays[node.input[1]])
    shift = kernel.sum((1, 2, 3)) * np.float32(0.5 / 127.5)
    if len(node.input) > 2:
        old = numpy_helper.to_array(arrays[node.input[2]])
        arrays[node.input[2]].CopyFrom(numpy_helper.from_array((old + shift).astype(np.float32), node.input[2]))
    else:
        graph.initializer.append(numpy_helper.from_array(shift.astype(np.float32), "first_bias"))
        node.input.append("first_bias")
    size = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    for old_node in cut:
        graph.node.remove(old_node)
    needed = {name for rest in graph.node for name in rest.input}
    for entry in [entry for entry in graph.initializer if entry.name not in needed]:
        graph.initializer.remove(entry)
    first = pad if pad is not None else node
    first.input[0] = "pixels"
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, size, size]))
    del graph.value_info[:]
    return "pixels"


def _bytes_in(model: onnx.ModelProto, entry: str) -> None:
    """Feed the uint8 images, transposed, where the quantized model quantized its float input."""
    from onnx import TensorProto, helper

    graph = model.graph
    size = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    quantize = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == entry)
    transpose = helper.make_node("Transpose", ["images"], [quantize.output[0]], "bytes_to_nchw", perm=[0, 3, 1, 2])
    position = list(graph.node).index(quantize)
    graph.node.remove(quantize)
    graph.node.insert(position, transpose)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3]))
