"""The Keras model, the starting weights and the exported files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from maskbatch_export.detector.anchors import make_anchors
from maskbatch_export.detector.convert import check_parity, keras_outputs, to_onnx
from maskbatch_export.detector.data import Picture
from maskbatch_export.detector.evaluate import onnx_predict
from maskbatch_export.detector.model import Architecture, build_model
from maskbatch_export.detector.quantize import to_fp16, to_int8
from maskbatch_export.detector.weights import load_starting_weights

# Keras 3.15 turns TensorFlow's tensors into arrays in a way that NumPy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

OURS = Architecture(stem=16, refine=("1_3", "1_5", "2_6"))
PICTURES = np.random.default_rng(5).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)


def shaken(architecture: Architecture) -> keras.Model:
    """A model whose batch norms are not the identity, so that folding them wrongly shows."""
    keras.utils.set_random_seed(0)
    model = build_model(architecture)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.ndim == 1:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    # Raw pixels are large; without this all that follows would be.
    model.get_layer("stem_bn").moving_variance.assign(np.full(architecture.stem, 1e4))
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    model = shaken(OURS)
    path = tmp_path_factory.mktemp("detector") / "float.onnx"
    onnx.save(to_onnx(model, {"name": "retinaface", "score_threshold": 0.35}), path)
    return model, path


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(),
        OURS,
        Architecture(neck=32, merge="separable", context=((16, 8, 0),) * 3, context_separable=(True, False, False)),
        Architecture(merge="none", context=((16, 0, 0),) * 3),
    ],
)
def test_exported_file_computes_what_keras_computes(architecture: Architecture, tmp_path: Path) -> None:
    model = shaken(architecture)
    onnx.save(to_onnx(model), tmp_path / "model.onnx")
    scale = max(np.abs(v).max() for v in keras_outputs(model, PICTURES))
    assert check_parity(model, tmp_path / "model.onnx", 64, 96) < 1e-4 * max(scale, 1.0)


def test_outputs_count_the_anchors_and_scores_are_probabilities(exported: tuple[keras.Model, Path]) -> None:
    scores, deltas, points = onnx_predict(exported[1])(PICTURES)
    count = len(make_anchors(96, 128))
    assert (scores.shape, deltas.shape, points.shape) == ((2, count), (2, count, 4), (2, count, 10))
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_batch_gives_what_single_pictures_give(exported: tuple[keras.Model, Path]) -> None:
    predict = onnx_predict(exported[1])
    for together, alone in zip(
        predict(PICTURES), zip(*(predict(PICTURES[i : i + 1]) for i in range(2)), strict=True), strict=True
    ):
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-4)


def test_metadata_tells_how_to_decode(exported: tuple[keras.Model, Path]) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(exported[1]).metadata_props}
    anchors = json.loads(metadata["anchors"])
    assert anchors["strides"] == [8, 16, 32]
    assert anchors["sides"] == [[10, 20], [32, 64], [128, 256]]
    assert anchors["variances"] == [0.1, 0.2]
    assert metadata["score_threshold"] == "0.35"


def test_file_takes_any_multiple_of_32(exported: tuple[keras.Model, Path]) -> None:
    predict = onnx_predict(exported[1])
    for tall, wide in ((32, 32), (64, 160), (224, 96)):
        assert predict(np.zeros((1, tall, wide, 3), np.uint8))[0].shape[1] == len(make_anchors(tall, wide))


def test_half_precision_is_near(exported: tuple[keras.Model, Path], tmp_path: Path) -> None:
    to_fp16(exported[1], tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < exported[1].stat().st_size * 0.6
    for half, full in zip(
        onnx_predict(tmp_path / "half.onnx")(PICTURES), onnx_predict(exported[1])(PICTURES), strict=True
    ):
        assert half.dtype == np.float32
        assert np.abs(half - full).max() < 0.02 * np.abs(full).max()


def test_int8_is_near_and_keeps_the_metadata(exported: tuple[keras.Model, Path], tmp_path: Path) -> None:
    nothing = np.zeros((0, 4), np.float32)
    pictures = [
        Picture(str(i), "x", p, nothing, np.zeros(0, bool), np.zeros((0, 5, 2))) for i, p in enumerate(PICTURES)
    ]
    to_int8(exported[1], tmp_path / "int8.onnx", pictures, size=128)
    full, int8 = onnx.load(exported[1]), onnx.load(tmp_path / "int8.onnx")
    assert {e.key: e.value for e in full.metadata_props} == {e.key: e.value for e in int8.metadata_props}
    assert any(node.op_type == "QuantizeLinear" for node in int8.graph.node)
    _, wanted, _ = onnx_predict(exported[1])(PICTURES)
    _, found, _ = onnx_predict(tmp_path / "int8.onnx")(PICTURES)
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.99


def test_architecture_survives_json() -> None:
    assert Architecture.from_dict(json.loads(json.dumps(OURS.to_dict()))) == OURS


@pytest.fixture
def starting_file() -> Path:
    folder = Path(os.environ.get("MASKBATCH_SHARED") or Path(__file__).parents[3] / "shared")
    path = folder / "weights" / "retinaface_mobilenet025.npz"
    if not path.exists():
        pytest.skip(f"needs the starting weights, which are not at {path} (set MASKBATCH_SHARED)")
    return path


@pytest.mark.shared
def test_all_starting_arrays_fit(starting_file: Path) -> None:
    assert load_starting_weights(build_model(), starting_file) == []


@pytest.mark.shared
def test_wider_stem_and_residuals_start_as_the_starting_model(starting_file: Path) -> None:
    start, ours = build_model(), build_model(OURS)
    for model in (start, ours):
        load_starting_weights(model, starting_file)
    for a, b in zip(keras_outputs(start, PICTURES), keras_outputs(ours, PICTURES), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
