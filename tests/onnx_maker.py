"""Writes small, real ONNX files for tests, byte by byte, so that the tests need no package that a scan does not need.

Field numbers are those of ``onnx.proto``; messages are built from the inside out.
"""

from __future__ import annotations

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
