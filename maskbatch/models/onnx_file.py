"""Just enough of the protobuf wire format to look into an ONNX file before ONNX Runtime sees it.

The package `onnx` would weigh 60 MB for four questions: is this a whole ONNX file, does it point to other files, what are its
inputs and outputs called, and what does its metadata say. Field numbers are those of ``onnx.proto`` (IR version 3 to 11); the wire format
is described at https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# ModelProto
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
# GraphProto
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO, _GRAPH_SPARSE = 1, 5, 11, 12, 13, 15
# FunctionProto, NodeProto, AttributeProto, SparseTensorProto, TensorProto, ValueInfoProto, TypeProto
_FUNCTION_NODE = 7
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_LOCATION = 8, 13, 14
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_TYPE_SHAPE = 2
# TensorShapeProto, Dimension, StringStringEntryProto
_SHAPE_DIMENSION = 1
_DIMENSION_VALUE = 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_EXTERNAL = 1
# Which fields of a message hold messages that can contain a tensor, by kind of message.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {_MODEL_GRAPH: "graph", _MODEL_FUNCTIONS: "function"},
    "graph": {_GRAPH_NODE: "node", _GRAPH_INITIALIZER: "tensor", _GRAPH_SPARSE: "sparse"},
    "function": {_FUNCTION_NODE: "node"},
    "node": {_NODE_ATTRIBUTE: "attribute"},
    "attribute": {
        _ATTRIBUTE_TENSOR: "tensor",
        _ATTRIBUTE_TENSORS: "tensor",
        _ATTRIBUTE_GRAPH: "graph",
        _ATTRIBUTE_GRAPHS: "graph",
        _ATTRIBUTE_SPARSE: "sparse",
        _ATTRIBUTE_SPARSES: "sparse",
    },
    "sparse": {_SPARSE_VALUES: "tensor", _SPARSE_INDICES: "tensor"},
}
_MAX_DEPTH = 100


class NotOnnxError(ValueError):
    """The bytes are not a whole ONNX model."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What a model file says about itself.

    Attributes:
        inputs: names of the inputs that a caller feeds (initializers left out).
        outputs: names of the outputs.
        external: a tensor's data lies in another file.
        output_sizes: size of the last axis of each output; None where it is not declared.
        metadata: key → value.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external: bool
    output_sizes: tuple[int | None, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def inspect_model(data: bytes) -> Graph:
    """Look into an ONNX file.

    Raises:
        NotOnnxError: the bytes are truncated, or not an ONNX model.
    """
    view = memoryview(data)
    graphs = [value for number, value in _fields(view) if number == _MODEL_GRAPH and isinstance(value, memoryview)]
    if len(graphs) != 1:
        raise NotOnnxError("it holds no graph")
    names: dict[int, list[str]] = {_GRAPH_INPUT: [], _GRAPH_OUTPUT: [], _GRAPH_INITIALIZER: []}
    for number, value in _fields(graphs[0]):
        if number in names and isinstance(value, memoryview):
            names[number].append(_text(value, _TENSOR_NAME if number == _GRAPH_INITIALIZER else _VALUE_NAME))
    held = set(names[_GRAPH_INITIALIZER])
    inputs = tuple(name for name in names[_GRAPH_INPUT] if name not in held)
    sizes = tuple(_last_size(value) for number, value in _fields(graphs[0]) if number == _GRAPH_OUTPUT)
    entries = [value for number, value in _fields(view) if number == _MODEL_METADATA and isinstance(value, memoryview)]
    metadata = {_text(entry, _ENTRY_KEY): _text(entry, _ENTRY_VALUE) for entry in entries}
    return Graph(inputs, tuple(names[_GRAPH_OUTPUT]), _has_external(view, "model", 0), sizes, metadata)


def _last_size(value: int | memoryview) -> int | None:
    """The last axis of a ValueInfoProto's declared shape, None where it is free or not declared."""
    for number in (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_TYPE_SHAPE):
        if not isinstance(value, memoryview):
            return None
        value = next((inner for field_number, inner in _fields(value) if field_number == number), 0)
    if not isinstance(value, memoryview):
        return None
    axes = [inner for number, inner in _fields(value) if number == _SHAPE_DIMENSION and isinstance(inner, memoryview)]
    if not axes:
        return None
    sizes = [inner for number, inner in _fields(axes[-1]) if number == _DIMENSION_VALUE and isinstance(inner, int)]
    return sizes[0] if sizes and sizes[0] > 0 else None


def without_fixed_shapes(data: bytes) -> bytes:
    """The same model with the shapes of its inputs, outputs and intermediate values undeclared.

    Some files (CenterFace) were exported with a toy shape although every operator in them takes any; ONNX Runtime
    enforces the declared one.
    """
    out = bytearray()
    for number, value, raw in _raw_fields(memoryview(data)):
        if number == _MODEL_GRAPH and isinstance(value, memoryview):
            out += _message(number, _free_graph(value))
        else:
            out += raw
    return bytes(out)


def _free_graph(graph: memoryview) -> bytes:
    held = {
        _text(value, _TENSOR_NAME)
        for number, value in _fields(graph)
        if number == _GRAPH_INITIALIZER and isinstance(value, memoryview)
    }
    out = bytearray()
    for number, value, raw in _raw_fields(graph):
        if number == _GRAPH_VALUE_INFO:
            continue
        is_free = isinstance(value, memoryview) and number in (_GRAPH_INPUT, _GRAPH_OUTPUT)
        if is_free and isinstance(value, memoryview) and _text(value, _VALUE_NAME) not in held:
            out += _message(number, _dropped(value, (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_TYPE_SHAPE)))
        else:
            out += raw
    return bytes(out)


def _dropped(message: memoryview, path: tuple[int, ...]) -> bytes:
    """The message without the field at the end of `path`."""
    out = bytearray()
    for number, value, raw in _raw_fields(message):
        if number != path[0]:
            out += raw
        elif len(path) > 1 and isinstance(value, memoryview):
            out += _message(number, _dropped(value, path[1:]))
    return bytes(out)


def _has_external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise NotOnnxError("its graphs are nested too deeply")
    inside = _INSIDE.get(kind, {})
    for number, value in _fields(message):
        if kind == "tensor":
            if number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_LOCATION and value == _EXTERNAL):
                return True
        elif number in inside and isinstance(value, memoryview) and _has_external(value, inside[number], depth + 1):
            return True
    return False


def _text(message: memoryview, wanted: int) -> str:
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            return bytes(value).decode("utf-8", "replace")
    return ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    for number, value, _ in _raw_fields(message):
        yield number, value


def _raw_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Field number, value (an integer, or the bytes) and the field as it stands, tag included."""
    position, end = 0, len(message)
    while position < end:
        start = position
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == _VARINT:
            value, position = _varint(message, position)
        elif wire == _BYTES:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        elif wire in (_FIXED32, _FIXED64):
            width = 4 if wire == _FIXED32 else 8
            value, position = message[position : position + width], position + width
        else:
            raise NotOnnxError("it is not an ONNX file")
        if position > end or number == 0:
            raise NotOnnxError("it is truncated or not an ONNX file")
        yield number, value, message[start:position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise NotOnnxError("it is truncated or not an ONNX file")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _message(number: int, payload: bytes) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(len(payload)) + payload


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
