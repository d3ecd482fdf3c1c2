"""Faster variants of the converted detector: fp16 for graphics processors, and static INT8: QDQ, unsigned activations, signed weights per channel, calibrated on training images.

Measured per node in ONNX Runtime, the first block (320 x 320 pixels, 8 to 16 channels) is up to three times *slower* in INT8 than in float,
so it stays in float, as do the heads, whose outputs of different kinds would share one scale.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from maskbatch.errors import ModelError
from maskbatch.storage.atomic import write_bytes
from maskbatch_export.detector.data import Picture
from maskbatch_export.detector.evaluate import detector, evaluate, letterbox, onnx_predict
from maskbatch_export.saturation import count_pairs, make_exact

FLOAT_PREFIXES = ("stem", "stage1_1", "stage1_2", "stage1_3_depthwise", "head")
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pictures: Sequence[Picture], size: int) -> None:
        self.rest: Iterator[Picture] = iter(pictures)
        self.size = size

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self.rest, None)
        return None if picture is None else {"images": letterbox(picture.image, self.size)[0][None]}


def choose_pictures(pictures: Sequence[Picture], count: int, seed: int = 0) -> list[Picture]:
    """``count`` images, evenly from all data sets."""
    rng = np.random.default_rng(seed)
    pools = [[p for p in pictures if p.origin == origin] for origin in dict.fromkeys(p.origin for p in pictures)]
    chosen: list[Picture] = []
    for pool in pools:
        chosen.extend(pool[i] for i in rng.permutation(len(pool))[: -(-count // len(pools))])
    return chosen[:count]


def to_int8(
    source: Path,
    target: Path,
    pictures: Sequence[Picture],
    size: int = 640,
    method: str = "minmax",
    float_prefixes: tuple[str, ...] = FLOAT_PREFIXES,
) -> None:
    """Write the INT8 form of ``source``; same inputs, outputs and metadata; exact on processors without VNNI too.

    Args:
        source: float32 ONNX file.
        target: file to write.
        size: side of the images, letterboxed.
        pictures: images of the training part to calibrate on.
        method: how the range of an activation follows from what was seen: ``minmax``, ``percentile`` or ``entropy``.
        float_prefixes: nodes with these names stay in float.
    """
    proto = onnx.load(source)
    kept = [n.name for n in proto.graph.node if n.name.startswith(float_prefixes)]
    with tempfile.TemporaryDirectory() as folder:
        plain, output = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        rounded = onnx.ModelProto()
        rounded.CopyFrom(proto)
        overrides = make_exact(rounded, set(kept))
        onnx.save(rounded, plain)
        quantize_static(
            plain,
            output,
            _Pictures(pictures, size),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            nodes_to_exclude=kept,
            extra_options={"TensorQuantOverrides": overrides},
            op_types_to_quantize=["Conv", "Add", "Concat", "Resize", "Relu"],
        )
        quantized = onnx.load(output)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(proto.metadata_props)
    write_bytes(target, quantized.SerializeToString())


ALLOWED_LOSS = 0.003
"""INT8 that loses more AP at IoU .5 than this is refused."""


def make_int8(
    source: Path,
    target: Path,
    pictures: Sequence[Picture],
    judged: Sequence[Picture],
    method: str = "minmax",
    allowed_loss: float = ALLOWED_LOSS,
) -> tuple[float, float]:
    """`to_int8`, if it is as good on the images `judged`: their AP at IoU .5 in float32 and in INT8.

    Raises:
        ModelError: it loses more than `allowed_loss`, or pairs of its weights can overflow; ``target`` is not written.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "int8.onnx"
        to_int8(source, made, pictures, method=method)
        if risky := count_pairs(onnx.load(made)).risky:
            raise ModelError(f"{risky} pairs of weights can overflow on x86 without VNNI; {target} was not written")
        before, after = (evaluate(detector(onnx_predict(path)), judged)["ap50"] for path in (source, made))
        if before - after > allowed_loss:
            raise ModelError(
                f"INT8 loses {100 * (before - after):.2f} points of AP.5 ({before:.4f} to {after:.4f}), "
                f"more than {100 * allowed_loss:g}; {target} was not written"
            )
        write_bytes(target, made.read_bytes())
    return before, after


def to_fp16(source: Path, target: Path) -> None:
    """Write the fp16 form of ``source``: uint8 in and float32 out as before, fp16 between; same metadata."""
    proto = onnx.load(source)
    half = convert_float_to_float16(proto, keep_io_types=True, op_block_list=[])
    del half.metadata_props[:]
    half.metadata_props.extend(proto.metadata_props)
    onnx.checker.check_model(half)
    write_bytes(target, half.SerializeToString())
