"""Writes small, real ONNX files for tests, byte by byte, so that the tests need no package that a scan does not need.

Field numbers are those of ``onnx.proto``; messages are built from the inside out.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

FLOAT, UINT8, INT64 = 1, 2, 7


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, payload: bytes | str) -> bytes:
    data = payload.encode() if isinstance(payload, str) else payload
    return varint(field << 3 | 2) + varint(len(data)) + data


def value_info(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(message(1, message(2, d) if isinstance(d, str) else number(1, d)) for d in shape)
    return message(1, name) + message(2, message(1, number(1, kind) + message(2, dims)))


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: bytes = b"") -> bytes:
    return (
        b"".join(message(1, i) for i in inputs)
        + b"".join(message(2, o) for o in outputs)
        + message(4, kind)
        + attributes
    )


def int_attribute(name: str, value: int) -> bytes:
    return message(5, message(1, name) + number(3, value) + number(20, 2))


def ints_attribute(name: str, values: Sequence[int]) -> bytes:
    return message(5, message(1, name) + b"".join(number(8, v) for v in values) + number(20, 7))


def tensor_attribute(name: str, tensor: bytes) -> bytes:
    return message(5, message(1, name) + message(5, tensor) + number(20, 4))


def graph_attribute(name: str, graph: bytes) -> bytes:
    return message(5, message(1, name) + message(6, graph) + number(20, 5))


def external_tensor(name: str, location: str, count: int) -> bytes:
    """A float tensor whose data lies in another file."""
    entry = message(13, message(1, "location") + message(2, location))
    return number(1, count) + number(2, FLOAT) + message(8, name) + entry + number(14, 1)


def graph(
    nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], initializers: Sequence[bytes] = ()
) -> bytes:
    return (
        b"".join(message(1, n) for n in nodes)
        + message(2, "test")
        + b"".join(message(5, i) for i in initializers)
        + b"".join(message(11, i) for i in inputs)
        + b"".join(message(12, o) for o in outputs)
    )


def model(graph_bytes: bytes, metadata: dict[str, str] | None = None) -> bytes:
    """IR version 8, opset 17."""
    properties = b"".join(message(14, message(1, k) + message(2, v)) for k, v in (metadata or {}).items())
    return number(1, 8) + message(7, graph_bytes) + message(8, message(1, "") + number(2, 17)) + properties


def doubling_model(shape: Sequence[int | str] = ("N", 3), metadata: dict[str, str] | None = None) -> bytes:
    """``y = x + x`` on float32 of a given shape."""
    value = value_info("x", FLOAT, shape)
    return model(graph([node("Add", ["x", "x"], ["y"])], [value], [value_info("y", FLOAT, shape)]), metadata)


def colour_classifier(size: int = 128) -> bytes:
    """Uint8 crops N×S×S×3 → softmax of the mean of each channel: blue, green or red wins."""
    nodes = [
        node("Cast", ["images"], ["pixels"], int_attribute("to", FLOAT)),
        node("ReduceMean", ["pixels"], ["means"], ints_attribute("axes", [1, 2]) + int_attribute("keepdims", 0)),
        node("Softmax", ["means"], ["probabilities"], int_attribute("axis", 1)),
    ]
    return model(
        graph(
            nodes,
            [value_info("images", UINT8, ["N", size, size, 3])],
            [value_info("probabilities", FLOAT, ["N", 3])],
        )
    )


def float_tensor(name: str, values: Sequence[float], shape: Sequence[int]) -> bytes:
    """An initializer of float32."""
    return (
        b"".join(number(1, d) for d in shape)
        + number(2, FLOAT)
        + message(8, name)
        + message(9, struct.pack(f"<{len(values)}f", *values))
    )


def red_detector(cell: int = 32) -> bytes:
    """Float planes N×3×H×W (blue, green, red, 0 to 255) → ``heat`` N×1×H/cell×W/cell: mean red minus mean of the others, over 255.

    All sums are of whole numbers and every division is by a power of two but the last, so that any processor gives the same bits.
    """
    pool = ints_attribute("kernel_shape", [cell, cell]) + ints_attribute("strides", [cell, cell])
    weights = float_tensor("weights", [-0.5, -0.5, 1.0], [1, 3, 1, 1])
    scale = float_tensor("scale", [256.0], [])
    nodes = [
        node("AveragePool", ["planes"], ["means"], pool),
        node("Conv", ["means", "weights"], ["redness"]),
        node("Div", ["redness", "scale"], ["heat"]),
    ]
    inputs = [value_info("planes", FLOAT, ["N", 3, "H", "W"])]
    outputs = [value_info("heat", FLOAT, ["N", 1, "h", "w"])]
    return model(graph(nodes, inputs, outputs, [weights, scale]), {"family": "red"})


def share_classifier(
    labels: Sequence[str], size: int = 128, name_labels: bool = True, normalized: bool = True
) -> bytes:
    """Uint8 crops N×S×S×3 → a probability per label: shares of the mean blue, green, red (and, for four labels, of 64).

    Exact in the sense of `red_detector` but for one division. Not `normalized`, the outputs are the amounts themselves, no probabilities.
    """
    count = len(labels)
    rows = [[1.0 if column == row else 0.0 for column in range(count)] for row in range(3)]
    bias = [0.0] * count
    if count == 2:
        rows = [[1.0, 0.0], [0.0, 0.5], [0.0, 0.5]]
    if count == 4:
        bias[3] = 64.0
    nodes = [
        node("Cast", ["images"], ["pixels"], int_attribute("to", FLOAT)),
        node("ReduceMean", ["pixels"], ["means"], ints_attribute("axes", [1, 2]) + int_attribute("keepdims", 0)),
        node("MatMul", ["means", "mix"], ["mixed"]),
        node("Add", ["mixed", "bias"], ["amounts"]),
        node("ReduceSum", ["amounts", "axis"], ["total"], int_attribute("keepdims", 1)),
        node("Div", ["amounts", "total"], ["probabilities"]),
    ]
    if not normalized:
        nodes = [*nodes[:3], node("Add", ["mixed", "bias"], ["probabilities"])]
    axis = number(1, 1) + number(2, INT64) + message(8, "axis") + message(9, struct.pack("<q", 1))
    initializers = [
        float_tensor("mix", [value for row in rows for value in row], [3, count]),
        float_tensor("bias", bias, [count]),
        axis,
    ]
    metadata = {"labels": json.dumps(list(labels))} if name_labels else None
    inputs = [value_info("images", UINT8, ["N", size, size, 3])]
    outputs = [value_info("probabilities", FLOAT, ["N", count])]
    return model(graph(nodes, inputs, outputs, initializers), metadata)
