"""INT8 weights that no processor's 16-bit sums can overflow, and what the customary ones lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from maskbatch_export.cli import app
from maskbatch_export.saturation import LIMIT, SaturatingModel, count_pairs, exact_integers, make_exact, pair_sums
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from typer.testing import CliRunner

from maskbatch.models.registry import packaged_entries
from maskbatch.models.registry import to_file as packaged_file

RNG = np.random.default_rng(3)


def pmaddubsw(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Intel's instruction on uint8 and int8 of even length: sums of neighbours, saturated at 16 bits."""
    products = a.astype(np.int32) * w.astype(np.int32)
    return np.clip(products[..., ::2] + products[..., 1::2], -32768, 32767)


def test_no_activation_overflows_a_pair_of_exact_weights() -> None:
    weights = RNG.standard_t(2, (24, 16, 3, 3)).astype(np.float32)
    weights[3, 4:6] = 9.0
    weights[4, :2] = -9.0
    integers, scales = exact_integers(weights)
    assert pair_sums(integers).max() <= LIMIT
    rows = integers.transpose(0, 2, 3, 1).reshape(24, -1)
    for a in (np.full(rows.shape[1], 255, np.uint8), *RNG.integers(0, 256, (50, rows.shape[1]), dtype=np.uint8)):
        wanted = (a.astype(np.int64) * rows).reshape(24, -1, 2).sum(2)
        np.testing.assert_array_equal(pmaddubsw(a, rows), wanted)
    # Also when activations are 0 wherever a weight has the other sign, which is the worst case.
    for sign in (1, -1):
        a = np.where(sign * rows > 0, 255, 0).astype(np.uint8)
        np.testing.assert_array_equal(pmaddubsw(a, rows), (a.astype(np.int64) * rows).reshape(24, -1, 2).sum(2))
    seven_bits = np.abs(weights).reshape(24, -1).max(1) / 64
    coarse = np.clip(np.rint(weights / seven_bits[:, None, None, None]), -64, 64) * seven_bits[:, None, None, None]
    fine = integers * scales[:, None, None, None]
    assert ((fine - weights) ** 2).sum() < 0.6 * ((coarse - weights) ** 2).sum()


def test_a_channel_of_zeros_stays_zero() -> None:
    integers, scales = exact_integers(np.zeros((2, 3, 1, 1), np.float32))
    assert not integers.any()
    assert (scales > 0).all()


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions with strong neighbouring weights, padding and a stride."""
    first = RNG.normal(0, 1, (16, 8, 3, 3)).astype(np.float32)
    first[:, 2:4] = np.abs(first[:, 2:4]) + 3
    second = RNG.normal(0, 1, (4, 16, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2"], ["y"], "second"),
    ]
    arrays = {"w1": first, "b1": RNG.normal(0, 1, 16).astype(np.float32), "w2": second}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "h2", "w2"])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    path = tmp_path_factory.mktemp("saturation") / "float.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


class _Feed:
    def __init__(self) -> None:
        self.rest = iter([IMAGES])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.rest, None)
        return None if batch is None else {"x": batch}


IMAGES = RNG.random((3, 8, 10, 12)).astype(np.float32)


def quantized(source: Path, target: Path, exact: bool) -> Path:
    model = onnx.load(source)
    overrides = make_exact(model, set()) if exact else {}
    onnx.save(model, target.with_suffix(".float.onnx"))
    quantize_static(
        target.with_suffix(".float.onnx"),
        target,
        _Feed(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"TensorQuantOverrides": overrides},
    )
    return target


def test_the_simulation_without_saturation_is_onnx_runtime(float_model: Path, tmp_path: Path) -> None:
    path = quantized(float_model, tmp_path / "exact.onnx", exact=True)
    assert count_pairs(onnx.load(path)).risky == 0
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted = onnxruntime.InferenceSession(str(path), options).run(None, {"x": IMAGES})[0]
    exact, lossy = (SaturatingModel(path, saturate).run({"x": IMAGES})["y"] for saturate in (False, True))
    np.testing.assert_array_equal(exact, lossy)
    step = np.ptp(wanted) / 255
    assert np.abs(exact - wanted).max() <= 1.01 * step  # a value between two steps may round either way
    assert (np.abs(exact - wanted) < 1e-4).mean() > 0.98


def test_customary_weights_lose_where_pairs_overflow(float_model: Path, tmp_path: Path) -> None:
    path = quantized(float_model, tmp_path / "customary.onnx", exact=False)
    assert count_pairs(onnx.load(path)).risky > 0
    model = SaturatingModel(path)
    lossy, exact = model.run({"x": IMAGES})["y"], SaturatingModel(path, saturate=False).run({"x": IMAGES})["y"]
    assert model.saturated > 0
    assert np.abs(lossy - exact).max() > 0.02 * np.ptp(exact)


@pytest.mark.parametrize("name", [entry.name for entry in packaged_entries() if entry.name.endswith(".int8")])
def test_packaged_int8_files_are_exact_on_every_processor(name: str) -> None:
    entry = next(entry for entry in packaged_entries() if entry.name == name)
    path = packaged_file(entry).path
    found = count_pairs(onnx.load(path))
    assert found.pairs > 100_000
    assert found.risky == 0
    said = CliRunner().invoke(app, ["overflow", str(path)])
    assert "exact on every processor" in said.output


def test_a_file_that_is_no_int8_model_is_refused(float_model: Path) -> None:
    said = CliRunner().invoke(app, ["overflow", str(float_model)])
    assert "no quantized convolutions" in str(said.exception)
