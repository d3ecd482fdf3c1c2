"""Training on with corrected faces: what is better is written, what is not is refused, and nothing is judged on what it has seen."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from classifier_data import BOX, draw_face, write_set
from maskbatch_export.classifier.heads import HeadModel
from maskbatch_export.classifier.improve import REPLAYED, ImproveConfig, _groups, improve, require_better
from maskbatch_export.duplicates import hashes_of, perceptual_hash
from maskbatch_export.onnx_files import OnnxClassifier
from onnx import TensorProto, helper, numpy_helper

from maskbatch.errors import ModelError, UsageError
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import Correction
from maskbatch.tasks.mask import LABELS

SIDE = 64


def classifier(path: Path, seed: int = 0) -> Path:
    """A classifier of random dense layers over the means of 8×8 pixels: it knows nothing, and can learn."""
    rng = np.random.default_rng(seed)
    cells = (SIDE // 8) ** 2 * 3
    weights = {
        "scale": np.array(1 / 255, np.float32),
        "w1": rng.normal(0, 0.08, (cells, 32)).astype(np.float32),
        "b1": np.zeros(32, np.float32),
        "w2": rng.normal(0, 0.1, (32, 3)).astype(np.float32),
        "b2": np.zeros(3, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("MatMul", ["features", "w1"], ["m1"]),
        helper.make_node("Add", ["m1", "b1"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["a2"]),
        helper.make_node("Softmax", ["a2"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"classes": json.dumps(LABELS), "context": "1.4"})
    onnx.save(model, path)
    return path


@pytest.fixture
def reviewed(tmp_path: Path) -> tuple[ImproveConfig, Path]:
    """A reviewed folder of 150 drawn faces, a replay set, and a classifier that knows nothing."""
    rng = np.random.default_rng(5)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    decisions = []
    for number in range(150):
        name, label = f"{number:03d}.png", LABELS[number % 3]
        noise = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)  # otherwise all drawn faces are near copies
        picture = cv2.resize(noise, (96, 104), interpolation=cv2.INTER_CUBIC)
        face = draw_face(label, rng)
        x1, y1, x2, y2 = BOX
        picture[y1:y2, x1:x2] = face[y1:y2, x1:x2]
        cv2.imwrite(str(pictures / name), np.pad(picture, ((0, 200), (0, 200), (0, 0)), mode="symmetric"))
        decisions.append(Correction(name, tuple(map(float, BOX)), "label", label))  # type: ignore[arg-type]
    log = tmp_path / "results.corrections.csv"
    CorrectionLog(log).append(decisions)
    (tmp_path / "results.run.json").write_text(json.dumps({"roots": {"pictures": str(pictures)}}))
    replay = write_set(tmp_path / "replay", per_part=12)
    base = classifier(tmp_path / "base.onnx")
    config = ImproveConfig(base, str(tmp_path / "results.parquet"), log, (replay,), steps=1000, draws=300)
    return config, tmp_path


def test_better_model_is_written_and_what_it_answers_is_what_was_compared(
    reviewed: tuple[ImproveConfig, Path],
) -> None:
    config, folder = reviewed
    found = improve(config, folder / "new.onnx", lambda line: None)
    require_better(found)
    assert found.corrected.low > 0.2  # from guessing to knowing
    assert found.trained + found.corrected.faces == 150
    new, old = OnnxClassifier(folder / "new.onnx"), OnnxClassifier(config.base)
    assert new.labels == old.labels
    assert new.metadata["improved_from"]
    crops = np.random.default_rng(0).integers(0, 255, (5, SIDE, SIDE, 3)).astype(np.uint8)
    model = HeadModel(folder / "new.onnx")
    np.testing.assert_allclose(model.head.probabilities(model.features(crops)), new.predict(crops), atol=1e-5)
    again = improve(config, folder / "again.onnx", lambda line: None)
    assert again == found
    # Trained on from what is good already, with the same faces, it is no better, and nothing is written.
    from dataclasses import replace

    nothing = improve(replace(config, base=folder / "new.onnx", steps=5), folder / "third.onnx", lambda line: None)
    with pytest.raises(ModelError, match="not promoted, nothing was written"):
        require_better(nothing)
    assert not (folder / "third.onnx").exists()


def test_reviewer_who_guesses_promotes_nothing(reviewed: tuple[ImproveConfig, Path]) -> None:
    config, folder = reviewed
    rng = np.random.default_rng(1)
    log = CorrectionLog(config.corrections)
    log.append([Correction(d.source, d.box, "label", LABELS[int(rng.integers(3))]) for d in log.read()])
    found = improve(config, folder / "new.onnx", lambda line: None)
    assert found.refusal
    assert not (folder / "new.onnx").exists()


def test_too_few_faces_and_other_models_are_refused(reviewed: tuple[ImproveConfig, Path]) -> None:
    from dataclasses import replace

    config, folder = reviewed
    few = folder / "few.corrections.csv"
    CorrectionLog(few).append(CorrectionLog(config.corrections).read()[:30])
    with pytest.raises(UsageError, match="review more"):
        improve(replace(config, corrections=few), folder / "new.onnx", lambda line: None)
    model = onnx.load(config.base)
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("Sigmoid", ["a2"], ["probabilities"]))
    onnx.save(model, folder / "other.onnx")
    with pytest.raises(ModelError, match="dense layers"):
        HeadModel(folder / "other.onnx")


def test_frames_of_a_video_and_near_copies_stay_together_and_copies_of_replay_images_are_not_judged(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(2)
    images = [
        cv2.resize(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)
        for _ in range(5)
    ]
    images.append(images[0][:, ::-1].copy())
    cv2.imwrite(str(tmp_path / "learnt.png"), images[4])
    hashes = np.array([[perceptual_hash(i), perceptual_hash(np.ascontiguousarray(i[:, ::-1]))] for i in images])
    groups = _groups(["", "", "v.mp4", "v.mp4", "", ""], hashes, [tmp_path / "learnt.png"])
    assert len(hashes_of([tmp_path / "learnt.png"])) == 1
    assert groups[0] == groups[5] != groups[1]
    assert groups[2] == groups[3] != groups[1]
    assert groups[4] == REPLAYED
