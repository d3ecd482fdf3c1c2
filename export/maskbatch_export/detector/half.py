"""fp16 of the exported detector, for graphics processors."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16


def to_half(source: Path, target: Path) -> None:
    """Write the fp16 form of ``source``: uint8 in and float32 out as before, fp16 between; same metadata."""
    proto = onnx.load(source)
    half = convert_float_to_float16(proto, keep_io_types=True, op_block_list=[])
    del half.metadata_props[:]
    half.metadata_props.extend(proto.metadata_props)
    onnx.checker.check_model(half)
    onnx.save(half, target)
