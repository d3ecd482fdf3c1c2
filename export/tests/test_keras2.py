"""Old Keras 2 models: real files, written by Keras 2 itself where it is installed (`tf_keras`), and judged against its own word."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from classifier_data import write_set

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from maskbatch_export.classifier.architectures import build
from maskbatch_export.classifier.convert import convert
from maskbatch_export.onnx_files import OnnxClassifier
from typer.testing import CliRunner

from maskbatch.errors import MissingExtraError, ModelError

# Of TensorFlow and its tools, not of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning:(tensorflow|tf_keras|keras|tf2onnx|google|flatbuffers|gast|astunparse)"
    ),
]

needs_keras2 = pytest.mark.skipif(
    importlib.util.find_spec("tf_keras") is None,
    reason="writes files with Keras 2; install it with `uv pip install --no-deps tf_keras` (its own dependency is the TensorFlow that is here)",
)

# Keras 2 in a process of its own, as whoever left the old file had it: a MobileNetV2 in a Sequential; one whose scaling is
# TensorFlow arithmetic, with an augmentation layer; and our own network.
WRITER = """
import sys
import numpy as np, tf_keras
folder = sys.argv[1]
layers, rng = tf_keras.layers, np.random.default_rng(0)
def backbone():
    return tf_keras.applications.MobileNetV2((128, 128, 3), alpha=0.35, include_top=False, weights=None)
sequential = tf_keras.Sequential([
    backbone(), layers.AveragePooling2D((4, 4)), layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dropout(0.5),
    layers.Dense(3, activation="softmax"),
])
inputs = layers.Input((128, 128, 3))
x = backbone()(layers.RandomFlip("horizontal")(inputs) / 127.5 - 1.0)
functional = tf_keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
sys.modules["keras"] = tf_keras
from maskbatch_export.classifier.architectures import build
crops = np.load(folder + "/crops.npy").astype(np.float32)
for name, model in (("sequential", sequential), ("functional", functional), ("own", build("small-cnn"))):
    shown = crops if name == "functional" else crops / 127.5 - 1
    for layer in (part for part in model.submodules if isinstance(part, layers.BatchNormalization)):
        layer.momentum = 0.0
        layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
        layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
    model(shown, training=True)  # norms as a trained network has them, so that the answers differ from picture to picture
    model.compile("adam", "categorical_crossentropy")
    model.save(f"{folder}/{name}.h5")
    said = model(shown, training=False).numpy()
    assert said.std(0).min() > 1e-3, said
    np.save(f"{folder}/{name}.npy", said)
sequential.save(folder + "/sequential.keras")
sequential.save(folder + "/saved", save_format="tf")
functional.save_weights(folder + "/weights.h5")
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras2")
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 255, (6, 1, 1, 3)) // 2 + rng.integers(0, 128, (6, 128, 128, 3))
    np.save(folder / "crops.npy", flat.astype(np.uint8))
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2]), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@needs_keras2
@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("sequential.h5", []),
        ("sequential.keras", []),
        ("saved", []),
        ("functional.h5", ["--scale", "0..255"]),
        ("own.h5", []),
        ("own.h5", ["--architecture", "small-cnn"]),
    ],
)
def test_models_of_keras_2_say_the_same_after_the_command(
    written: Path, tmp_path: Path, file: str, options: list[str]
) -> None:
    from maskbatch_export.cli import app

    data = write_set(tmp_path / "faces", 1)
    out = tmp_path / "old.onnx"
    arguments = ["classifier", "convert", str(written / file), "--out", str(out), "--data", str(data), *options]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "parity on 3 crops" in done.output
    name = "sequential" if file == "saved" else Path(file).stem
    said = OnnxClassifier(out).predict(np.load(written / "crops.npy"))
    assert said == pytest.approx(np.load(written / f"{name}.npy"), abs=1e-5)


@needs_keras2
def test_weights_that_keras_2_saved_alone_ask_for_their_architecture(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--architecture"):
        convert(written / "weights.h5", tmp_path / "x.onnx", np.load(written / "crops.npy"))


CROPS = np.zeros((1, 128, 128, 3), np.uint8)


def old_file(path: Path, *layers: dict[str, object]) -> Path:
    """An ``.h5`` as Keras 2.12 describes itself, with these layers and no weights."""
    config = {"class_name": "Sequential", "config": {"name": "old", "layers": list(layers)}}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.12.0"
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_without_keras_2_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"name": "d", "kernel_size": [3, 3], "groups": 1, "batch_input_shape": [None, 128, 128, 3]}
    path = old_file(tmp_path / "old.h5", {"class_name": "DepthwiseConv2D", "config": settings})
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(MissingExtraError, match=r"--no-deps 'tf_keras==2\.\d+\.\*'.*--architecture"):
        convert(path, tmp_path / "x.onnx", CROPS)


def test_a_tensorflow_call_that_is_no_arithmetic_is_refused(tmp_path: Path) -> None:
    layer = {"class_name": "TFOpLambda", "config": {"name": "w", "function": "io.write_file"}}
    with pytest.raises(ModelError, match=r"tf\.io\.write_file"):
        convert(old_file(tmp_path / "evil.h5", layer), tmp_path / "x.onnx", CROPS)


def test_weights_alone_ask_for_their_architecture(tmp_path: Path) -> None:
    build("small-cnn").save_weights(tmp_path / "alone.weights.h5")
    with pytest.raises(ModelError, match="--architecture"):
        convert(tmp_path / "alone.weights.h5", tmp_path / "x.onnx", CROPS)
