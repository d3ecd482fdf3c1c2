from __future__ import annotations

import csv
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from classifier_data import write_set

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from maskbatch_export.classifier import train as training
from maskbatch_export.classifier.architectures import ARCHITECTURES
from maskbatch_export.classifier.augment import degrade, geometry_layers, mixup, warp_crop
from maskbatch_export.classifier.batches import Batches, CropRecipe
from maskbatch_export.classifier.convert import load_keras
from maskbatch_export.classifier.data import cut_patches, read_tables
from maskbatch_export.classifier.distil import Teachers
from maskbatch_export.classifier.events import _masked_crc
from maskbatch_export.classifier.metrics import macro_f1, per_class
from maskbatch_export.classifier.train import TrainConfig, TrainResult, parts_of, train

from maskbatch.errors import ModelError, SettingsChangedError, UsageError
from maskbatch.tasks.mask import LABELS

# Of TensorFlow and its tools, not of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning:(tensorflow|keras|tf2onnx|google|flatbuffers|gast|astunparse)"
    ),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("voc") / "faces", 8)


@pytest.fixture(scope="module")
def config(data: Path) -> TrainConfig:
    recipe = CropRecipe(size=48, cctv=0.3, balance=1.0, smoothing=0.0)
    return TrainConfig((str(data),), "small-cnn", epochs=3, patience=0, batch=8, rate=3e-3, average=0.5, recipe=recipe)


@pytest.fixture(scope="module")
def clean(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    folder = tmp_path_factory.mktemp("run")
    return folder, train(config, folder)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_run_leaves_everything_behind(clean: tuple[Path, TrainResult], config: TrainConfig) -> None:
    folder, result = clean
    assert len(rows_of(folder)) == 3
    assert json.loads((folder / "config.json").read_text())["architecture"] == "small-cnn"
    assert (folder / "history.png").stat().st_size > 1000
    kept = json.loads((folder / "result.json").read_text())
    best = max(float(row["val_macro_f1"]) for row in rows_of(folder))
    assert kept["val_macro_f1"] == pytest.approx(best)
    assert result.model.is_file()


def test_the_kept_model_scores_what_the_history_says(clean: tuple[Path, TrainResult], config: TrainConfig) -> None:
    import keras

    faces = read_tables([Path(config.data[0])]).faces
    check = cut_patches(faces[parts_of(faces, config) == "val"])
    views = check.crops(config.recipe.context, 48)
    views[::2] = check.crops(config.recipe.context, 48, config.recipe.jitter, seed=1)[::2]
    model = keras.saving.load_model(clean[1].model, compile=False)
    assert model.input_shape == (None, 48, 48, 3)
    assert macro_f1(check.labels, training.predict(model, views).argmax(1)) == pytest.approx(clean[1].macro_f1)


def test_interrupted_and_resumed_run_equals_clean_run(
    clean: tuple[Path, TrainResult], config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = training._Run._save

    def save_and_stop(self: training._Run, epochs_done: int) -> None:
        saved(self, epochs_done)
        if epochs_done == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training._Run, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
    train(config, tmp_path)
    for ours, theirs in zip(rows_of(tmp_path), rows_of(clean[0]), strict=True):
        assert {k: float(v) for k, v in ours.items()} == pytest.approx(
            {k: float(v) for k, v in theirs.items()}, abs=1e-4
        )


def test_a_run_folder_is_not_reused_for_other_settings(clean: tuple[Path, TrainResult], config: TrainConfig) -> None:
    with pytest.raises(SettingsChangedError, match="other settings"):
        train(replace(config, rate=1e-5), clean[0])


def test_log_is_a_valid_tensorboard_event_file(clean: tuple[Path, TrainResult]) -> None:
    (path,) = (clean[0] / "tensorboard").glob("events.out.tfevents.*")
    data, records = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        message = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12])[0] == _masked_crc(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == _masked_crc(message)
        records.append(message)
        data = data[16 + length :]
    assert len(records) == 4  # the version and three epochs
    assert b"brain.Event:2" in records[0]
    assert all(b"val_macro_f1" in record for record in records[1:])


def test_crc_is_crc32c() -> None:
    # RFC 3720, appendix B.4: 32 bytes of zero have the CRC-32C 0x8a9136aa.
    crc = (_masked_crc(bytes(32)) - 0xA282EAD8) & 0xFFFFFFFF
    assert ((crc << 15) | (crc >> 17)) & 0xFFFFFFFF == 0x8A9136AA


def test_parts_are_disjoint_by_group_also_in_cross_validation(config: TrainConfig) -> None:
    faces = read_tables([Path(config.data[0])]).faces
    held: list[str] = []
    for fold in range(4):
        parts = parts_of(faces, replace(config, folds=4, fold=fold))
        assert set(faces["group"][parts == "val"]).isdisjoint(faces["group"][parts == "train"])
        held += faces.index[parts == "val"].tolist()
    assert sorted(held) == faces.index.tolist()
    both = parts_of(faces, replace(config, with_validation=True))
    assert set(both) == {"train", "test"}
    assert (both == "test").tolist() == (parts_of(faces, config) == "test").tolist()


def test_a_class_missing_from_training_is_said(tmp_path: Path, config: TrainConfig) -> None:
    folder = write_set(tmp_path / "set", 2)
    for xml in (folder / "annotations").glob("without_mask*.xml"):
        xml.unlink()
    with pytest.raises(UsageError, match="without_mask"):
        train(replace(config, data=(str(folder),)), tmp_path / "run")


def test_batches_depend_on_seed_epoch_and_step_alone(config: TrainConfig) -> None:
    faces = read_tables([Path(config.data[0])]).faces
    patches = cut_patches(faces)
    first, second = Batches(patches, config.recipe, 6, 0), Batches(patches, config.recipe, 6, 0)
    first(0, 0)
    assert np.array_equal(first(2, 1)[0], second(2, 1)[0])
    assert not np.array_equal(first(2, 1)[0], first(2, 2)[0])
    images, targets = first(0, 0)
    assert images.shape == (6, 48, 48, 3)
    assert -1 <= images.min() < images.max() <= 1
    assert targets.sum(1) == pytest.approx(np.ones(6))


def test_balance_one_draws_classes_equally_often(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 4)
    for xml in sorted((folder / "annotations").glob("mask_weared*.xml"))[:9]:
        xml.unlink()
    patches = cut_patches(read_tables([folder]).faces)
    assert Batches(patches, CropRecipe(balance=1.0), 8, 0).class_share == pytest.approx([1 / 3] * 3)
    assert Batches(patches, CropRecipe(balance=0.0), 8, 0).class_share == pytest.approx([12 / 27, 12 / 27, 3 / 27])


def test_degradation_of_strength_zero_keeps_a_large_face_as_it_is() -> None:
    crop = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(degrade(crop, 500.0, np.random.default_rng(0), 0.0), crop)


def test_degradation_makes_some_crops_grey_and_keeps_shape() -> None:
    crop = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    made = [degrade(crop, 500.0, np.random.default_rng(seed)) for seed in range(60)]
    assert {m.shape for m in made} == {(64, 64, 3)}
    grey = [m for m in made if np.abs(np.ptp(m.astype(int), axis=2)).mean() < 6]
    assert 1 <= len(grey) <= 25


def test_geometry_keeps_the_face_in_place() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[90:110, 90:110] = 255
    box = np.array([60, 60, 140, 140], np.float32)
    for seed in range(20):
        crop = warp_crop(image, box, 64, 1.4, np.random.default_rng(seed))
        assert crop[28:36, 28:36].mean() > 200
        assert crop[:6].max() == 0


def test_keras_geometry_layers_repeat_with_the_seed() -> None:
    import keras

    pictures = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)

    def run(seed: int) -> np.ndarray:
        value = pictures
        for layer in geometry_layers(seed):
            value = layer(value, training=True)
        return np.asarray(keras.ops.convert_to_numpy(value))

    assert run(5) == pytest.approx(run(5))
    assert np.abs(run(5) - run(99)).mean() > 1
    assert run(5).min() >= 0


def test_mixup_keeps_targets_sums_and_the_larger_share() -> None:
    rng = np.random.default_rng(0)
    images, targets = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), np.eye(4, dtype=np.float32)
    mixed, blended = mixup(images, targets, rng, 0.4)
    assert blended.sum(1) == pytest.approx(np.ones(4))
    assert (blended.argmax(1) == np.arange(4)).all()
    assert mixed.reshape(4, 4) == pytest.approx(blended)
    assert mixup(images, targets, rng, 0.0)[0] is images


def test_scores_of_a_known_confusion() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2], np.int64)
    said = np.array([0, 0, 1, 1, 1, 0], np.int64)
    scores = per_class(labels, said)
    assert scores[LABELS[0]]["precision"] == pytest.approx(2 / 3)
    assert scores[LABELS[1]]["recall"] == 1.0
    assert scores[LABELS[2]]["f1"] == 0.0
    assert macro_f1(labels, said) == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_map_crops_to_probabilities(name: str) -> None:
    from maskbatch_export.classifier.architectures import build

    model = build(name, 64)
    said = np.asarray(model(np.zeros((2, 64, 64, 3), np.float32)))
    assert said.shape == (2, 3)
    assert said.sum(1) == pytest.approx(np.ones(2), abs=1e-5)
    hidden = {
        "mobilenet-v2": 128,
        "mobilenet-v2-half": 128,
        "mobilenet-v2-flat": 64,
        "small-cnn": 64,
        "efficientnet-lite2": None,
    }[name]
    assert [layer.units for layer in model.layers if layer.name == "hidden"] == ([hidden] if hidden else [])
    assert model.get_layer("dropout").rate == 0.5


def test_average_of_two_runs_is_the_mean_of_their_weights(clean: tuple[Path, TrainResult], tmp_path: Path) -> None:
    import keras
    from maskbatch_export.classifier.architectures import build
    from maskbatch_export.classifier.average import average_weights

    first, second, other = clean[1].model, tmp_path / "second.keras", tmp_path / "other.keras"
    model = keras.saving.load_model(first, compile=False)
    one = model.get_weights()
    model.set_weights([array + 2 for array in one])
    model.save(second)
    average_weights([first, second], tmp_path / "mean.keras")
    mean = keras.saving.load_model(tmp_path / "mean.keras", compile=False).get_weights()
    assert all(np.allclose(a, b + 1, atol=1e-6) for a, b in zip(mean, one, strict=True))
    build("mobilenet-v2", 32).save(other)
    with pytest.raises(UsageError, match="not of the architecture"):
        average_weights([first, other], tmp_path / "no.keras")
    with pytest.raises(UsageError, match="two models"):
        average_weights([first], tmp_path / "no.keras")


def test_efficientnet_is_padded_as_at_the_size_it_was_trained_at() -> None:
    """260, 130, 65, 33 and 17 pixels: TensorFlow's "SAME" is lopsided for the even ones alone, the last with a 5×5 kernel."""
    from maskbatch_export.classifier.backbones import efficientnet_lite2

    model = efficientnet_lite2(128)
    assert model.output_shape == (None, 4, 4, 1280)
    assert model.count_params() == 4_869_168
    borders = [layer.padding[0] for layer in model.layers if layer.name.endswith("_pad")]
    assert borders == [(0, 1), (0, 1), (2, 2), (1, 1), (2, 2)]


def test_teachers_answers_become_a_share_of_the_targets(clean: tuple[Path, TrainResult], config: TrainConfig) -> None:
    faces = read_tables([Path(config.data[0])]).faces
    images, targets = Batches(cut_patches(faces), config.recipe, 8, seed=0)(0, 0)
    answers = training.predict(load_keras(clean[1].model), np.round((images + 1) * 127.5).astype(np.uint8))
    mixed = Teachers([clean[1].model] * 2, 0.25)(images, targets)
    assert mixed == pytest.approx(0.75 * targets + 0.25 * answers, abs=1e-5)


def test_a_student_learns_what_its_teacher_says_and_not_what_the_labels_say(
    clean: tuple[Path, TrainResult], config: TrainConfig, tmp_path: Path
) -> None:
    """The teacher has its classes turned round; a student without labels must say them as it does."""
    teacher = load_keras(clean[1].model)
    *others, kernel, bias = teacher.get_weights()
    teacher.set_weights([*others, np.roll(kernel, 1, axis=1), np.roll(bias, 1)])
    teacher.save(tmp_path / "teacher.keras")
    student = replace(config, teachers=(str(tmp_path / "teacher.keras"),), distil=1.0, start=str(clean[1].model))
    result = train(replace(student, epochs=8, keep_last=True, average=0.0), tmp_path / "run")
    crops = cut_patches(read_tables([Path(config.data[0])]).faces).crops(config.recipe.context, 48)
    told = training.predict(load_keras(tmp_path / "teacher.keras"), crops).argmax(1)
    said = training.predict(load_keras(result.model), crops).argmax(1)
    assert (said == told).mean() > 0.8
    with pytest.raises(UsageError, match="one size"):
        train(replace(student, small_epochs=1), tmp_path / "other")


def test_wrong_weights_and_names_are_one_sentence(tmp_path: Path) -> None:
    from maskbatch_export.classifier.architectures import build

    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ModelError, match="torchvision"):
        build("mobilenet-v2", 64, start=tmp_path / "other.npz")
    with pytest.raises(ModelError, match="cannot read"):
        build("mobilenet-v2", 64, start=tmp_path / "missing.npz")
    with pytest.raises(UsageError, match="small-cnn"):
        build("resnet")


def _shared_weights() -> Path:
    root = Path(os.environ.get("MASKBATCH_SHARED", Path(__file__).parents[2].parent / "shared"))
    return root / "weights" / "imagenet_mobilenet_v2.npz"


@pytest.mark.shared
def test_ported_weights_reproduce_torchvisions_network() -> None:
    """The stem and first block, computed by hand in NumPy from torchvision's arrays, inside the frame's border."""
    path = _shared_weights()
    if not path.is_file():
        pytest.skip(f"needs the ImageNet weights {path} (set MASKBATCH_SHARED)")
    import keras
    from maskbatch_export.classifier.architectures import build
    from maskbatch_export.classifier.backbones import BACKBONE

    arrays = np.load(path)
    rgb = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normal = np.pad((rgb / 255 - mean) / deviation, ((1, 1), (1, 1), (0, 0)))
    kernel = arrays["features.0.0.weight"]
    wanted = np.stack(
        [[(normal[2 * y : 2 * y + 3, 2 * x : 2 * x + 3].transpose(2, 0, 1) * kernel).sum((1, 2, 3)) for x in range(16)]
         for y in range(16)]
    )  # fmt: skip
    norm = {k: arrays[f"features.0.1.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
    wanted = (wanted - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    backbone = build("mobilenet-v2", 32, start=path).get_layer(BACKBONE)
    stem = keras.Model(backbone.input, backbone.get_layer("stem_conv_bn").output)
    said = np.asarray(stem((rgb[None, ..., ::-1] / 127.5 - 1).astype(np.float32)))[0]
    assert said[1:, 1:] == pytest.approx(wanted[1:, 1:], abs=2e-4)


def test_corrections_change_what_is_learned_and_not_what_is_judged(
    data: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = read_tables([data]).faces
    parts = parts_of(faces, config)
    listed = faces[faces["label"] == "with_mask"]
    table = listed[["set", "filename", "xmin", "ymin", "xmax", "ymax", "label"]].assign(corrected="without_mask")
    seen: dict[str, list[str]] = {}

    class Stop(Exception):
        pass

    def look(run: training._Run) -> TrainResult:
        for name, patches in (("train", run.batches.patches), ("val", run.check)):
            seen[name] = [LABELS[label] for label in patches.labels]
        raise Stop

    monkeypatch.setattr(training._Run, "go", look)
    said: list[str] = []
    # Training without any face of a class is refused: leave one with its mask.
    keep = faces[(parts == "train") & (faces["label"] == "with_mask")].iloc[0]["filename"]
    table[table["filename"] != keep].to_csv(tmp_path / "corrections.csv", index=False)
    with pytest.raises(Stop):
        train(replace(config, corrections=str(tmp_path / "corrections.csv")), tmp_path / "run", said.append)
    assert said[0] == "7 labels corrected or left out"
    assert {name: seen["train"].count(name) for name in LABELS} == {
        "with_mask": 1,
        "without_mask": 15,
        "mask_weared_incorrect": 8,
    }
    assert seen["val"] == faces.loc[parts == "val", "label"].tolist()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["corrections"] == str(
        tmp_path / "corrections.csv"
    )
