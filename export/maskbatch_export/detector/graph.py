"""One walk over the Keras model's layers, used twice: to run them in PyTorch with its fused kernels, and to write them to ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers


@dataclass(frozen=True)
class Step:
    """One layer of the model, in an order in which it can be run.

    Attributes:
        layer: the Keras layer.
        inputs: names of the values it reads.
        output: name of the value it makes.
    """

    layer: Any
    inputs: tuple[str, ...]
    output: str


def walk(model: keras.Model) -> tuple[list[Step], tuple[str, ...]]:
    """The model's steps in order, and the names of its outputs. The input is called ``images``."""
    names: dict[int, str] = {id(model.inputs[0]): "images"}
    steps: list[Step] = []
    for layer in _ordered(model):
        given = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
        steps.append(Step(layer, tuple(names[id(t)] for t in given), layer.name))
        names[id(layer.output)] = layer.name
    return steps, tuple(names[id(t)] for t in model.outputs)


def _ordered(model: keras.Model) -> Iterator[Any]:
    for operation in model.operations:
        if not isinstance(operation, layers.InputLayer):
            yield operation
