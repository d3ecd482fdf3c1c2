"""The look into a model file never takes anything for granted: it is the first to see bytes from outside."""

from __future__ import annotations

import contextlib

import onnx_maker as make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskbatch.models import packaged_entries
from maskbatch.models.onnx_file import NotOnnxError, inspect_model, without_fixed_shapes
from maskbatch.models.registry import to_file

SMALL = make.colour_classifier(8)


def test_names_of_inputs_leave_initializers_out() -> None:
    x, w = make.value_info("x", make.FLOAT, [1]), make.value_info("w", make.FLOAT, [1])
    weight = make.number(1, 1) + make.number(2, make.FLOAT) + make.message(8, "w") + make.message(9, b"\0\0\0\0")
    data = make.model(
        make.graph([make.node("Add", ["x", "w"], ["y"])], [x, w], [make.value_info("y", 1, [1])], [weight])
    )
    found = inspect_model(data)
    assert (found.inputs, found.outputs, found.external) == (("x",), ("y",), False)


def test_packaged_models_hold_everything_themselves() -> None:
    for entry in packaged_entries():
        found = inspect_model(to_file(entry).path.read_bytes())
        assert not found.external
        assert len(found.inputs) == 1


@given(st.integers(0, len(SMALL) - 1))
def test_every_truncation_is_noticed_or_leaves_a_whole_model(length: int) -> None:
    try:
        found = inspect_model(SMALL[:length])
    except NotOnnxError:
        return
    # Cut between two fields: the graph is whole, only what follows it is gone.
    assert found.outputs == ("probabilities",)


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_a_plain_refusal(data: bytes) -> None:
    with contextlib.suppress(NotOnnxError):
        inspect_model(data)


@given(st.integers(0, len(SMALL) - 1), st.integers(0, 7))
def test_any_flipped_bit_gives_an_answer_or_a_plain_refusal(position: int, bit: int) -> None:
    data = bytearray(SMALL)
    data[position] ^= 1 << bit
    try:
        inspect_model(bytes(data))
        without_fixed_shapes(bytes(data))
    except NotOnnxError:
        pass


def test_graphs_nested_without_end_are_refused() -> None:
    inner = make.graph([], [], [])
    for _ in range(200):
        inner = make.graph([make.node("If", ["c"], ["y"], make.graph_attribute("then_branch", inner))], [], [])
    with pytest.raises(NotOnnxError, match="nested too deeply"):
        inspect_model(make.model(inner))
