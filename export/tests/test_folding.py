from __future__ import annotations

import numpy as np
import onnx
import pytest
from maskbatch_export.classifier.folding import fold_norms, fold_pads
from onnx import TensorProto, helper, numpy_helper


def graph_of(second_user: bool) -> onnx.ModelProto:
    """A depthwise convolution with the multiplication and addition that a batch norm leaves behind."""
    rng = np.random.default_rng(0)
    arrays = {
        "kernel": rng.normal(size=(4, 1, 3, 3)),
        "scale": rng.normal(size=(1, 4, 1, 1)),
        "shift": rng.normal(size=(4, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"], group=4, pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["scale", "a"], ["b"]),
        helper.make_node("Add", ["b", "shift"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])]
    if second_user:
        nodes.append(helper.make_node("Relu", ["a"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4, 8, 8]))
    initial = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def outputs_of(model: onnx.ModelProto) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)})
    return [np.asarray(value) for value in found]


def test_scale_and_shift_behind_a_depthwise_convolution_are_folded_exactly() -> None:
    model = graph_of(second_user=False)
    wanted = outputs_of(model)[0]
    assert fold_norms(model) == 2
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert outputs_of(model)[0] == pytest.approx(wanted, abs=1e-5)


def test_a_result_that_something_else_uses_is_left_alone() -> None:
    model = graph_of(second_user=True)
    wanted = outputs_of(model)
    assert fold_norms(model) == 0
    for ours, theirs in zip(outputs_of(model), wanted, strict=True):
        assert np.array_equal(ours, theirs)


def strided(
    pads: list[int], value: float | None = 0.0, own: list[int] | None = None, shared: bool = False
) -> onnx.ModelProto:
    """``Pad → Conv`` of stride 2, as Keras pads on one side; `shared` gives the padded tensor out as well."""
    kernel = np.random.default_rng(0).normal(size=(5, 4 + pads[1] + pads[5], 3, 3)).astype(np.float32)
    initial = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array(pads, np.int64), "pads")]
    names = ["x", "pads"]
    if value is not None:
        initial.append(numpy_helper.from_array(np.array(value, np.float32), "value"))
        names.append("value")
    nodes = [
        helper.make_node("Pad", names, ["p"], mode="constant"),
        helper.make_node("Conv", ["p", "kernel"], ["y"], strides=[2, 2], **({"pads": own} if own else {})),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, None, None])]
    if shared:
        nodes.append(helper.make_node("Relu", ["p"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4, None, None]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("value", [0.0, None])
@pytest.mark.parametrize(
    ("pads", "own", "total"),
    [
        ([0, 0, 0, 0, 0, 0, 1, 1], None, [0, 0, 1, 1]),
        ([0, 0, 1, 1, 0, 0, 1, 1], None, [1, 1, 1, 1]),
        ([0, 0, 0, 1, 0, 0, 1, 0], [1, 0, 0, 2], [1, 1, 1, 2]),
    ],
)
def test_zero_padding_before_a_strided_convolution_is_folded_exactly(
    pads: list[int], own: list[int] | None, total: list[int], value: float | None
) -> None:
    model = strided(pads, value, own)
    wanted = outputs_of(model)[0]
    assert fold_pads(model) == 1
    onnx.checker.check_model(model, full_check=True)
    (conv,) = model.graph.node
    assert next(list(a.ints) for a in conv.attribute if a.name == "pads") == total
    assert [entry.name for entry in model.graph.initializer] == ["kernel"]
    found = outputs_of(model)[0]
    assert found.shape == wanted.shape
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        strided([0, 0, 0, 0, 0, 0, 1, 1], shared=True),
        strided([0, 0, 0, 0, 0, 0, 1, 1], value=0.5),
        strided([0, 1, 0, 0, 0, 1, 1, 1]),
        strided([0, 0, -1, 0, 0, 0, 1, 1]),
    ],
    ids=["something else uses it", "not zeros", "channels", "cutting"],
)
def test_padding_that_a_convolution_cannot_do_is_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert fold_pads(model) == 0
    assert model.SerializeToString() == before
    assert len(outputs_of(model)[0])
