from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from classifier_data import write_set

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from maskbatch_export.classifier.architectures import build
from maskbatch_export.classifier.convert import convert
from maskbatch_export.classifier.data import CORRECTION_COLUMNS, read_tables
from maskbatch_export.classifier.inputs import Source
from maskbatch_export.classifier.quantize import make_variant
from maskbatch_export.onnx_files import OnnxClassifier, get_metadata
from maskbatch_export.split import part_of_group
from typer.testing import CliRunner

from maskbatch.errors import InputNotFoundError, ModelError
from maskbatch.tasks.mask import LABELS

# Of TensorFlow and its tools, not of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning:(tensorflow|keras|tf2onnx|google|flatbuffers|gast|astunparse)"
    ),
]


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (24, 48, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with non-trivial batch norms."""
    model = build("small-cnn", 48)
    rng = np.random.default_rng(1)
    weights = [
        w + rng.normal(0, 0.05, w.shape) if w.ndim > 1 else np.abs(w + rng.normal(0, 0.1, w.shape))
        for w in model.get_weights()
    ]
    model.set_weights([w.astype(np.float32) if w.dtype.kind == "f" else w for w in weights])
    path = tmp_path_factory.mktemp("keras") / "small.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def exported(trained: Path, crops: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "small.onnx"
    said: list[str] = []
    difference = convert(trained, out, crops, Source(context=1.5), metadata={"version": "7"}, say=said.append)
    assert difference < 1e-5
    assert "parity on 24 crops" in said[0]
    return out


def test_exported_model_keeps_the_contract(exported: Path, trained: Path, crops: np.ndarray) -> None:
    import keras

    classifier = OnnxClassifier(exported)
    entry, result = classifier.session.get_inputs()[0], classifier.session.get_outputs()[0]
    assert (entry.name, entry.type, entry.shape[1:]) == ("images", "tensor(uint8)", [48, 48, 3])
    assert (result.name, result.type) == ("probabilities", "tensor(float)")
    assert isinstance(entry.shape[0], str)  # a batch of any size
    model = keras.saving.load_model(trained, compile=False)
    wanted = np.asarray(model(crops.astype(np.float32) / 127.5 - 1, training=False))
    for batch in (1, 5):
        assert classifier.predict(crops, batch) == pytest.approx(wanted, abs=1e-5)
    meta = get_metadata(exported)
    assert json.loads(meta["labels"]) == list(LABELS)
    assert (meta["context"], meta["crop_size"], meta["version"], meta["licence"]) == ("1.5", "48", "7", "Apache-2.0")
    assert len(meta["source_sha256"]) == 64


def test_saved_model_and_weights_alone_give_the_same(
    trained: Path, exported: Path, crops: np.ndarray, tmp_path: Path
) -> None:
    import keras

    model = keras.saving.load_model(trained, compile=False)
    model.export(tmp_path / "saved", verbose=False)
    convert(tmp_path / "saved", tmp_path / "saved.onnx", crops)
    wanted = OnnxClassifier(exported).predict(crops)
    assert OnnxClassifier(tmp_path / "saved.onnx").predict(crops) == pytest.approx(wanted, abs=1e-5)
    big = build("small-cnn")
    big.save_weights(tmp_path / "old.weights.h5")
    large = np.random.default_rng(0).integers(0, 255, (4, 128, 128, 3), dtype=np.uint8)
    convert(tmp_path / "old.weights.h5", tmp_path / "old.onnx", large, architecture="small-cnn")
    said = OnnxClassifier(tmp_path / "old.onnx").predict(large)
    assert said == pytest.approx(np.asarray(big(large.astype(np.float32) / 127.5 - 1)), abs=1e-5)


def test_foreign_scale_channels_and_class_order_are_folded_in(trained: Path, crops: np.ndarray, tmp_path: Path) -> None:
    import keras

    order = (LABELS[2], LABELS[0], LABELS[1])
    convert(trained, tmp_path / "x.onnx", crops, Source("0..1", "rgb", order))
    model = keras.saving.load_model(trained, compile=False)
    wanted = np.asarray(model(crops[..., ::-1].astype(np.float32) / 255, training=False))[:, [1, 2, 0]]
    assert OnnxClassifier(tmp_path / "x.onnx").predict(crops) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(ModelError, match="3 outputs but 2 labels were named"):
        convert(trained, tmp_path / "y.onnx", crops, Source(labels=("a", "b")))
    assert not (tmp_path / "y.onnx").exists()


def test_lambda_layers_and_pickles_are_refused_with_the_reason(tmp_path: Path, crops: np.ndarray) -> None:
    import keras

    inputs = keras.Input((48, 48, 3))
    x = keras.layers.Lambda(lambda value: value * 2)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    model.save(tmp_path / "evil.keras")
    with pytest.raises(ModelError, match="Lambda"):
        convert(tmp_path / "evil.keras", tmp_path / "evil.onnx", crops)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match="pickle"):
        convert(tmp_path / "model.pkl", tmp_path / "evil.onnx", crops)
    (tmp_path / "model.h5").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match="disguise"):
        convert(tmp_path / "model.h5", tmp_path / "evil.onnx", crops)
    (tmp_path / "broken.keras").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="neither"):
        convert(tmp_path / "broken.keras", tmp_path / "evil.onnx", crops)
    with pytest.raises(InputNotFoundError):
        convert(tmp_path / "missing.keras", tmp_path / "evil.onnx", crops)
    assert not (tmp_path / "evil.onnx").exists()


def test_int8_takes_the_bytes_as_they_are_and_agrees(exported: Path, crops: np.ndarray, tmp_path: Path) -> None:
    import onnx

    labels = OnnxClassifier(exported).predict(crops).argmax(1)
    found = make_variant(exported, tmp_path / "s.int8.onnx", "int8", crops, crops, labels, allowed_loss=1.0)
    assert found.largest < 0.1
    graph = onnx.load(tmp_path / "s.int8.onnx").graph
    first = next(n for n in graph.node if "images" in n.input)
    after = next(n for n in graph.node if first.output[0] in n.input)
    assert (first.op_type, after.op_type) == ("Transpose", "DequantizeLinear")
    meta = get_metadata(tmp_path / "s.int8.onnx")
    assert meta["variant"] == "int8"
    assert json.loads(meta["labels"]) == list(LABELS)


def test_half_precision_agrees_and_keeps_its_outer_types(exported: Path, crops: np.ndarray, tmp_path: Path) -> None:
    labels = OnnxClassifier(exported).predict(crops).argmax(1)
    found = make_variant(exported, tmp_path / "s.fp16.onnx", "fp16", crops, crops, labels, allowed_loss=1.0)
    assert found.largest < 0.02
    session = OnnxClassifier(tmp_path / "s.fp16.onnx").session
    assert session.get_outputs()[0].type == "tensor(float)"


def test_a_variant_that_loses_too_much_is_refused(exported: Path, crops: np.ndarray, tmp_path: Path) -> None:
    labels = OnnxClassifier(exported).predict(crops).argmax(1)
    with pytest.raises(ModelError, match="points of macro-F1"):
        make_variant(exported, tmp_path / "s.fp16.onnx", "fp16", crops, crops, labels, allowed_loss=-0.1)
    assert not list(tmp_path.iterdir())


def test_evaluation_writes_a_report_with_intervals_and_plots(tmp_path: Path) -> None:
    from maskbatch_export.cli import app

    data = write_set(tmp_path / "faces", 4)
    model = build("small-cnn")
    model.save(tmp_path / "m.keras")
    runner = CliRunner()
    arguments = [
        "classifier",
        "convert",
        str(tmp_path / "m.keras"),
        "--out",
        str(tmp_path / "m.onnx"),
        "--data",
        str(data),
    ]
    done = runner.invoke(app, arguments, catch_exceptions=False)
    assert "parity on 12 crops" in done.output
    out = tmp_path / "report" / "classifier"
    done = runner.invoke(
        app,
        ["classifier", "evaluate", str(tmp_path / "m.onnx"), "--data", str(data), "--out", str(out)],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    summary = json.loads(out.with_suffix(".json").read_text())
    low, high = summary["intervals"]["accuracy"]
    assert 0 <= low <= summary["figures"]["accuracy"] <= high <= 1
    assert sum(map(sum, summary["confusion"])) == 12
    assert summary["jittered"]["draws"] == 5
    assert 0 < summary["log_loss"] < 10
    assert "corrected" not in summary["about"]["Data"]
    page = out.with_suffix(".html").read_text()
    assert page.count("data:image/png;base64,") == 3
    text = out.with_suffix(".md").read_text()
    assert "binomial" in text
    assert "missed by" in text
    face = (
        read_tables([data]).faces.set_index("group").loc[lambda rows: rows.index.map(part_of_group) == "test"].iloc[0]
    )
    listed = tmp_path / "corrections.csv"
    row = ["faces", *face[["filename", "xmin", "ymin", "xmax", "ymax", "label"]], ""]
    listed.write_text(",".join(CORRECTION_COLUMNS) + "\n" + ",".join(map(str, row)) + "\n")
    arguments = ["classifier", "evaluate", str(tmp_path / "m.onnx"), "--data", str(data), "--out", str(out)]
    arguments += ["--corrections", str(listed)]
    runner.invoke(app, arguments, catch_exceptions=False)
    mended = json.loads(out.with_suffix(".json").read_text())
    assert sum(map(sum, mended["confusion"])) == 11
    assert "1 labels corrected or faces left out" in mended["about"]["Data"]
    done = runner.invoke(
        app,
        [
            "classifier",
            "suspects",
            str(tmp_path / "m.onnx"),
            "--data",
            str(data),
            "--out",
            str(tmp_path / "s.csv"),
            "--least",
            "0",
        ],
    )
    listed = (tmp_path / "s.csv").read_text().splitlines()
    assert len(listed) - 1 == 12 - np.trace(summary["confusion"])
