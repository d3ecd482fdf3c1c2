from __future__ import annotations

import numpy as np
import onnx
import pytest
from maskbatch_export.folding import fold_norms
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
