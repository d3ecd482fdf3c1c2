"""Classifiers from elsewhere, as their users have them: other labels, other scaling, logits, one sigmoid, float ONNX files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from classifier_data import draw_face, write_set

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from maskbatch_export.classifier.convert import convert
from maskbatch_export.classifier.inputs import Scale, Source
from maskbatch_export.cli import app
from maskbatch_export.onnx_files import OnnxClassifier, get_metadata
from typer.testing import CliRunner

import maskbatch
from maskbatch.errors import ModelError

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning:(tensorflow|keras|tf2onnx|google|flatbuffers|gast|astunparse)"
    ),
]

TWO = ("with_mask", "without_mask")

# As a user writes it: small pictures, RGB, 0..1, two classes, a few steps of training. Nothing of maskbatch is in it.
SCRIPT = """
import sys
from pathlib import Path

import keras
import numpy as np

images, labels = np.load(sys.argv[1]), np.load(sys.argv[2])
keras.utils.set_random_seed(0)
inputs = keras.Input((64, 64, 3))
x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
x = keras.layers.BatchNormalization()(x)
x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
x = keras.layers.Flatten()(x)
outputs = keras.layers.Dense(2, activation="softmax")(x)
model = keras.Model(inputs, outputs)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images / 255.0, labels, epochs=12, batch_size=16, verbose=0)
model.save(Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)


def keras_model(outputs: int, activation: str | None) -> Any:
    import keras

    keras.utils.set_random_seed(3)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="tanh")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(
        inputs, keras.layers.Dense(outputs, activation=activation, kernel_initializer="random_normal")(x)
    )


def test_a_two_class_model_of_a_plain_keras_script_is_scanned_end_to_end(tmp_path: Path, face_photo: Any) -> None:
    rng = np.random.default_rng(0)
    drawn = [(draw_face(label, rng), index) for index, label in enumerate(TWO) for _ in range(60)]
    images = np.stack([cv2.resize(image, (64, 64))[..., ::-1] for image, _ in drawn])  # RGB
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", np.array([label for _, label in drawn]))
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "train.py", "images.npy", "labels.npy", "model.keras"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    data = write_set(tmp_path / "faces", 4)
    words = ["convert", tmp_path / "model.keras", "--out", tmp_path / "own.onnx", "--data", data]
    words += ["--scale", "0..1", "--channels", "rgb", "--labels", "with_mask,without_mask"]
    done = CliRunner().invoke(app, ["classifier", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "parity on 12 crops" in done.output
    assert json.loads(get_metadata(tmp_path / "own.onnx")["labels"]) == list(TWO)
    # Evaluated by the training package: faces of the third class count neither way, and the report says how many.
    words = ["evaluate", tmp_path / "own.onnx", "--data", data, "--out", tmp_path / "report"]
    done = CliRunner().invoke(app, ["classifier", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert np.array(report["confusion"]).shape == (2, 2)
    assert np.sum(report["confusion"]) == 8
    assert "4 faces of other classes left out" in report["about"]["Data"]
    # And a faster variant is made of it and judged by its own labels.
    words = [
        "quantize",
        tmp_path / "own.onnx",
        "--out",
        tmp_path / "own.fp16.onnx",
        "--data",
        data,
        "--variant",
        "fp16",
    ]
    done = CliRunner().invoke(app, ["classifier", *map(str, words)])
    assert done.exit_code == 0, done.output
    # Scanned.
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "astronaut.png"), face_photo)
    out = tmp_path / "results.parquet"
    summary = maskbatch.scan(folder, out, classifier=str(tmp_path / "own.onnx"), device="cpu", executor="inline")
    assert tuple(summary.labels) == TWO
    faces = maskbatch.read_results(out)
    assert len(faces) == 1
    assert faces[["p_with_mask", "p_without_mask"]].sum(axis=1).round(4).eq(1).all()


@pytest.mark.parametrize("scale", ["-1..1", "0..1", "0..255", "caffe", "torch"])
@pytest.mark.parametrize("channels", ["bgr", "rgb"])
def test_every_scaling_is_folded_in(scale: Scale, channels: Any, crops: np.ndarray, tmp_path: Path) -> None:
    from keras.applications import imagenet_utils

    model = keras_model(2, "softmax")
    model.save(tmp_path / "m.keras")
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", crops, Source(scale, channels, TWO), say=lambda _text: None)
    # Keras's own function prepares the pictures that the model is asked with.
    rgb = crops[..., ::-1].astype(np.float32)
    modes = {"-1..1": "tf", "caffe": "caffe", "torch": "torch"}
    if scale in modes:
        prepared = imagenet_utils.preprocess_input(rgb.copy(), data_format="channels_last", mode=modes[scale])
        prepared = prepared[..., ::-1] if (channels == "bgr") != (scale == "caffe") else prepared
    else:
        prepared = (rgb if channels == "rgb" else rgb[..., ::-1]) / (255 if scale == "0..1" else 1)
    wanted = np.asarray(model(np.ascontiguousarray(prepared), training=False))
    assert OnnxClassifier(tmp_path / "m.onnx").predict(crops) == pytest.approx(wanted, abs=1e-4)


def test_a_single_sigmoid_becomes_two_probabilities(crops: np.ndarray, tmp_path: Path) -> None:
    model = keras_model(1, "sigmoid")
    model.save(tmp_path / "m.keras")
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", crops, Source("0..1", "rgb", TWO), say=lambda _text: None)
    second = np.asarray(model(crops[..., ::-1].astype(np.float32) / 255, training=False))
    found = OnnxClassifier(tmp_path / "m.onnx").predict(crops)
    assert found == pytest.approx(np.concatenate([1 - second, second], axis=1), abs=1e-4)


def test_logits_are_refused_and_get_a_softmax_on_request(crops: np.ndarray, tmp_path: Path) -> None:
    model = keras_model(4, None)
    model.save(tmp_path / "m.keras")
    labels = ("a", "b", "c", "d")
    with pytest.raises(ModelError, match=r"are not probabilities .* add --softmax"):
        convert(tmp_path / "m.keras", tmp_path / "m.onnx", crops, Source("0..1", "rgb", labels))
    assert not (tmp_path / "m.onnx").exists()
    source = Source("0..1", "rgb", labels, softmax=True)
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", crops, source, say=lambda _text: None)
    logits = np.asarray(model(crops[..., ::-1].astype(np.float32) / 255, training=False))
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classifier = OnnxClassifier(tmp_path / "m.onnx")
    assert classifier.labels == labels
    assert classifier.predict(crops) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("layout", ["nhwc", "nchw", "one at a time"])
def test_a_float_onnx_file_is_taken_as_it_is(layout: str, crops: np.ndarray, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)
    weights = rng.normal(size=(3, 2)).astype(np.float32)
    batch: Any = 1 if layout == "one at a time" else "n"
    shape = [batch, 32, 32, 3] if layout == "nhwc" else [batch, 3, 32, 32]
    axes = [1, 2] if layout == "nhwc" else [2, 3]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["means"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["means", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, tmp_path / "own.onnx")
    convert(tmp_path / "own.onnx", tmp_path / "m.onnx", crops, Source("0..1", "rgb", TWO), say=lambda _text: None)
    logits = (crops[..., ::-1].astype(np.float32) / 255).mean(axis=(1, 2)) @ weights
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert OnnxClassifier(tmp_path / "m.onnx").predict(crops) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "is now `maskbatch export classifier train`"),
        (["quantize", "x.onnx", "--out", "y.onnx"], "is now `maskbatch export classifier quantize`"),
        (["detector", "quantise", "--source", "x"], "is now `maskbatch export detector quantize`"),
        (["detector", "half"], "is now `maskbatch export detector quantize --variant fp16`"),
        (["detector", "blend", "--part", "a"], "is now `maskbatch export detector average`"),
        (["detector", "export", "--run", "x"], "is now `maskbatch export detector convert`"),
    ],
)
def test_commands_of_the_first_edition_name_their_new_spelling(words: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maskbatch_export", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_both_models_have_the_same_commands() -> None:
    runner = CliRunner()
    for kind in ("classifier", "detector"):
        done = runner.invoke(app, [kind, "--help"])
        assert done.exit_code == 0
        for command in ("train", "evaluate", "convert", "quantize", "average", "stats"):
            assert command in done.output, f"{kind} {command}"
            assert runner.invoke(app, [kind, command, "--help"]).exit_code == 0


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from maskbatch_export.__main__ import main; main()"
    (tmp_path / "data").mkdir()
    (tmp_path / "start.npz").write_bytes(b"")
    words = [
        "detector",
        "train",
        "--run",
        "r",
        "--data",
        str(tmp_path / "data"),
        "--start",
        str(tmp_path / "start.npz"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: this command needs the package torch: uv pip install torch"
