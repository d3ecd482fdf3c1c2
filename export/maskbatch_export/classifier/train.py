"""Training of the classifier: two phases, weights averaged, the best epoch kept, interrupted runs resumed.

Nothing here calls TensorFlow: ``KERAS_BACKEND=torch`` or ``jax`` trains on whatever device there is.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskbatch.errors import SettingsChangedError, UsageError
from maskbatch.tasks.mask import LABELS
from maskbatch_export.classifier import architectures, backbones
from maskbatch_export.classifier.batches import Batches, CropRecipe
from maskbatch_export.classifier.data import Patches, correct_labels, cut_patches, read_tables, wider_faces
from maskbatch_export.classifier.distil import Teachers, shrink
from maskbatch_export.classifier.events import EventFile
from maskbatch_export.classifier.metrics import log_loss, macro_f1, per_class
from maskbatch_export.saving import save_arrays, save_keras
from maskbatch_export.split import fold_of_group, part_of_group

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from numpy.typing import NDArray


SYNTHETIC_FACES = 2000
"""Incorrectly worn masks that a run puts together at its start, where the recipe wants any."""


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what a run gives; written to ``config.json`` and compared on resume.

    Attributes:
        data: Pascal VOC folders.
        architecture: one of `architectures.ARCHITECTURES`.
        start: as in `architectures.build`.
        wider: folder of WIDER FACE with ``boxes.json``, or None.
        head_epochs: epochs with the backbone frozen.
        head_steps: steps of such an epoch, at most; a head of 164,000 weights is soon warm.
        epochs: epochs of fine-tuning, at most.
        patience: fine-tuning ends after this many epochs without a better validation macro-F1; 0 never.
        small_epochs: the first of the fine-tuning epochs that run on crops of `small_size` pixels, for speed.
        small_size: see `small_epochs`; the head phase uses it too where it is set.
        batch: crops per step.
        rate: peak of the learning rate (warm-up, then cosine).
        decay: weight decay.
        average: momentum of the weight average that is validated and kept; 0 is off.
        dropout: before the last layer.
        seed: of everything random, and nothing else decides.
        split_seed: of the split by group.
        folds: number of cross-validation folds; 0 uses the 70/15/15 split.
        fold: which fold is held back for validation.
        keep_last: keep the last epoch, where the cosine has ended, and not the one of the best validation macro-F1,
            which is a matter of a few faces.
        with_validation: train on the validation part too, once a recipe is chosen; the last epoch is kept.
        corrections: list of wrong labels among the faces to learn from, as in `correct_labels`, or None. Faces that
            are judged keep the labels that the data gives them.
        teachers: ``.keras`` or ``.onnx`` files of trained models to learn from besides the labels, as in `distil`.
        distil: share of the targets that is their answer.
        recipe: how crops are drawn.
    """

    data: tuple[str, ...]
    architecture: str = "mobilenet-v2"
    start: str | None = None
    wider: str | None = None
    head_epochs: int = 1
    head_steps: int = 50
    epochs: int = 20
    patience: int = 6
    small_epochs: int = 0
    small_size: int = 96
    batch: int = 32
    rate: float = 5e-4
    decay: float = 0.02
    average: float = 0.995
    dropout: float = 0.5
    seed: int = 0
    split_seed: int = 0
    folds: int = 0
    fold: int = 0
    keep_last: bool = False
    with_validation: bool = False
    corrections: str | None = None
    teachers: tuple[str, ...] = ()
    distil: float = 0.7
    recipe: CropRecipe = field(default_factory=CropRecipe)


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run left its model, and how good the kept epoch was on the validation part."""

    model: Path
    epoch: int
    macro_f1: float


def parts_of(faces: pd.DataFrame, config: TrainConfig) -> NDArray[np.str_]:
    """``train``, ``val`` or ``test`` of every face, decided by its group alone."""
    if config.folds:
        held = [fold_of_group(group, config.folds, config.split_seed) == config.fold for group in faces["group"]]
        return np.where(held, "val", "train")
    parts = np.array([part_of_group(group, config.split_seed) for group in faces["group"]])
    return np.where(parts == "val", "train", parts) if config.with_validation else parts


def train(config: TrainConfig, folder: Path, say: Any = print) -> TrainResult:
    """Train a classifier; a run folder that holds an unfinished run with the same configuration is continued.

    The folder gets ``config.json``, ``history.csv`` and ``.png``, ``tensorboard/``, ``checkpoint.npz`` (everything to go
    on from the last epoch), ``best.keras`` and ``result.json``.

    Args:
        config: what to train.
        folder: run folder, made if missing.
        say: called with lines of progress.

    Raises:
        SettingsChangedError: the folder holds a run with another configuration.
        UsageError: a class is missing from the training part, or crops of another size would go to teachers.
    """
    if config.teachers and config.small_epochs:
        raise UsageError("teachers see the student's crops, so they stay of one size: leave the small epochs out")
    _claim(folder, config)
    import keras

    table = read_tables([Path(path) for path in config.data])
    parts = parts_of(table.faces, config)
    train_faces = table.faces[parts == "train"]
    if config.corrections:
        train_faces, corrected = correct_labels(train_faces, Path(config.corrections))
        say(f"{corrected} labels corrected or left out")
    train_patches = cut_patches(train_faces)
    held = table.faces[parts == "val"]
    if config.with_validation:  # only to see that the run is alive: these faces are being trained on
        held = table.faces[parts == "train"].sample(frac=1.0, random_state=0).head(400)
    check = cut_patches(held)
    missing = [name for index, name in enumerate(LABELS) if index not in train_patches.labels]
    if missing:
        raise UsageError(f"no face of {', '.join(missing)} in the training part")
    extra = cut_patches(wider_faces(Path(config.wider))) if config.wider else None
    say(f"{len(train_patches)} faces to train on, {len(check)} to validate, {0 if extra is None else len(extra)} extra")
    batches = Batches(
        train_patches, config.recipe, config.batch, config.seed, extra, _synthetic(train_patches, config, say)
    )
    keras.utils.set_random_seed(config.seed)
    run = _Run(config, folder, batches, check, say)
    return run.go()


def _synthetic(patches: Patches, config: TrainConfig, say: Any) -> Patches | None:
    if not config.recipe.synthesis:
        return None
    from maskbatch.config import ModelSettings
    from maskbatch.detect import make_detector
    from maskbatch.runtime import resolve_device
    from maskbatch_export.classifier.synthesis import find_landmarks, slide_masks

    detector = make_detector(ModelSettings(det_size=320, min_score=0.2), resolve_device("cpu"))
    made = slide_masks(patches, find_landmarks(patches, detector), SYNTHETIC_FACES, np.random.default_rng(config.seed))
    say(f"{len(made)} incorrectly worn masks put together")
    return made if len(made) else None


def _claim(folder: Path, config: TrainConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path, text = folder / "config.json", json.dumps(asdict(config), indent=1)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise SettingsChangedError(f"{folder} holds a run with other settings; choose another --run folder")
    path.write_text(text, encoding="utf-8")


class _Run:
    """State of one run: model, optimizer, history. It exists because all three must be saved and resumed together."""

    def __init__(self, config: TrainConfig, folder: Path, batches: Batches, check: Patches, say: Any) -> None:
        self.config, self.folder, self.batches, self.check, self.say = config, folder, batches, check, say
        self.any_size = config.architecture in architectures.ANY_SIZE and config.small_epochs > 0
        size = None if self.any_size else config.recipe.size
        self.model = architectures.build(config.architecture, size, config.dropout, config.start)
        self.history: list[dict[str, float]] = []
        self.best = (-1.0, -1)
        self.views: NDArray[np.uint8] | None = None
        self.teachers = Teachers([Path(path) for path in config.teachers], config.distil)
        self.log = EventFile(folder / "tensorboard")

    def go(self) -> TrainResult:
        config = self.config
        head_epochs = 0 if config.start is None else config.head_epochs  # nothing pretrained, nothing to freeze
        total = head_epochs + config.epochs
        done = self._load()
        for epoch in range(done, total):
            head = epoch < head_epochs
            if epoch in (done, head_epochs):
                self._compile(head, head_epochs if head else config.epochs)
                if epoch == done and done not in (0, head_epochs):
                    self._load_optimizer()
            if self._stopped(head_epochs):
                break
            small = self.any_size and epoch < head_epochs + config.small_epochs
            steps = min(self.batches.steps, config.head_steps) if head else self.batches.steps
            self._epoch(epoch, steps, config.small_size if small else config.recipe.size)
            self._save(epoch + 1)
        self._plot()
        result = {"epoch": self.best[1], "val_macro_f1": self.best[0], "epochs_run": len(self.history)}
        (self.folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        return TrainResult(self.folder / "best.keras", self.best[1], self.best[0])

    def _stopped(self, head_epochs: int) -> bool:
        if self.config.patience == 0 or self.config.keep_last or self.config.with_validation:
            return False
        since = len(self.history) - 1 - max(self.best[1], head_epochs)
        return len(self.history) > head_epochs and since >= self.config.patience

    def _compile(self, head: bool, epochs: int) -> None:
        import keras

        config = self.config
        for layer in self.model.layers:
            layer.trainable = not (head and layer.name == backbones.BACKBONE)
        steps = (min(self.batches.steps, config.head_steps) if head else self.batches.steps) * epochs
        warm = min(max(1, self.batches.steps // 2), steps)
        peak = 2 * config.rate if head else config.rate
        rate = keras.optimizers.schedules.CosineDecay(
            peak / 20, max(1, steps - warm), alpha=0.01, warmup_target=peak, warmup_steps=warm
        )
        optimizer = keras.optimizers.AdamW(
            rate,
            weight_decay=config.decay,
            clipnorm=5.0,
            use_ema=config.average > 0,
            ema_momentum=config.average or 0.99,
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        architectures.plain_norms(self.model)
        self.model.compile(optimizer, loss="categorical_crossentropy", jit_compile=False)
        optimizer.build(self.model.trainable_variables)
        architectures.fused_torch_norms(self.model)

    def _epoch(self, epoch: int, steps: int, size: int) -> None:
        start = time.monotonic()
        dataset = _dataset(self.batches, epoch, steps, size, self.teachers)
        fitted = self.model.fit(dataset, epochs=epoch + 1, initial_epoch=epoch, verbose=0, shuffle=False)
        with averaged(self.model) if self.config.average else contextlib.nullcontext():
            scores = self._validate()
            if scores["val_macro_f1"] >= self.best[0] or self.config.keep_last or self.config.with_validation:
                self.best = (scores["val_macro_f1"], epoch)
                self._keep()
        seconds = time.monotonic() - start
        crops = steps * self.batches.batch
        row = {"epoch": epoch, "size": size, "loss": fitted.history["loss"][-1], **scores, "seconds": round(seconds, 1)}
        self.history.append(row)
        self.log.scalars(epoch, {name: float(value) for name, value in row.items() if name != "epoch"})
        with (self.folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(self.history)
        self.say(" ".join(f"{k}={v:.4g}" for k, v in row.items()) + f" crops/s={crops / seconds:.1f}")

    def _validate(self) -> dict[str, float]:
        """Half of the faces by their annotated box and half by a jittered one: what is judged later comes from either."""
        if self.views is None:
            recipe = self.config.recipe
            self.views = self.check.crops(recipe.context, recipe.size)
            self.views[::2] = self.check.crops(recipe.context, recipe.size, recipe.jitter, seed=1)[::2]
        labels = self.check.labels
        probabilities = predict(self.model, self.views)
        scores = per_class(labels, probabilities.argmax(1))
        return {
            "val_loss": log_loss(labels, probabilities),
            "val_accuracy": float((probabilities.argmax(1) == labels).mean()),
            "val_macro_f1": macro_f1(labels, probabilities.argmax(1)),
            **{f"val_f1_{name}": row["f1"] for name, row in scores.items()},
        }

    def _keep(self) -> None:
        final = architectures.build(self.config.architecture, self.config.recipe.size, self.config.dropout)
        if self.config.start == "keras":
            final = architectures.build(self.config.architecture, self.config.recipe.size, self.config.dropout, "keras")
        final.set_weights(self.model.get_weights())
        save_keras(final, self.folder / "best.keras")

    def _save(self, epochs_done: int) -> None:
        arrays: dict[str, Any] = {f"model{i}": _numpy(v) for i, v in enumerate(self.model.variables)}
        arrays |= {f"optimizer{i}": _numpy(v) for i, v in enumerate(self.model.optimizer.variables)}
        state = {"epochs": epochs_done, "best": self.best, "history": self.history}
        save_arrays(self.folder / "checkpoint.npz", state=np.array(json.dumps(state)), **arrays)

    def _load(self) -> int:
        path = self.folder / "checkpoint.npz"
        if not path.is_file():
            return 0
        with np.load(path) as arrays:
            state = json.loads(str(arrays["state"]))
            for index, variable in enumerate(self.model.variables):
                variable.assign(arrays[f"model{index}"])
        self.history = state["history"]
        self.best = (float(state["best"][0]), int(state["best"][1]))
        self.say(f"going on after {state['epochs']} epochs")
        return int(state["epochs"])

    def _load_optimizer(self) -> None:
        with np.load(self.folder / "checkpoint.npz") as arrays:
            for index, variable in enumerate(self.model.optimizer.variables):
                variable.assign(arrays[f"optimizer{index}"])

    def _plot(self) -> None:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
        epochs = [row["epoch"] for row in self.history]
        for name in ("loss", "val_loss"):
            left.plot(epochs, [row[name] for row in self.history], label=name)
        for name in self.history[0] if self.history else ():
            if "f1" in name or "accuracy" in name:
                right.plot(epochs, [row[name] for row in self.history], label=name)
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(self.folder / "history.png", dpi=100)
        plt.close(figure)


def _dataset(batches: Batches, epoch: int, steps: int, size: int, teachers: Teachers) -> Any:
    import keras

    class _Epoch(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return steps

        def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            images, targets = batches(epoch, index, max(size, teachers.size or 0))
            return shrink(images, size), teachers(images, targets)

    return _Epoch(workers=1, use_multiprocessing=False, max_queue_size=4)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """The model with the optimizer's moving average of its weights in place of the last ones."""
    averages = model.optimizer._model_variables_moving_average
    kept = [_numpy(variable) for variable in model.trainable_variables]
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        variable.assign(_numpy(average))
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, kept, strict=True):
            variable.assign(value)


def predict(model: keras.Model, crops: NDArray[np.uint8], batch: int = 64) -> NDArray[np.float32]:
    """n×3 float32 probabilities of n×size×size×3 uint8 BGR crops."""
    parts = []
    for start in range(0, len(crops), batch):
        inputs = crops[start : start + batch].astype(np.float32) / np.float32(127.5) - 1
        parts.append(np.asarray(model.predict_on_batch(inputs), np.float32))
    return np.concatenate(parts) if parts else np.zeros((0, len(LABELS)), np.float32)


def _numpy(variable: Any) -> NDArray[Any]:
    import keras

    return np.array(keras.ops.convert_to_numpy(variable.value))


def limit_threads() -> None:
    """Keep PyTorch to ``OMP_NUM_THREADS`` threads, where Keras runs on it; its own default ignores containers."""
    import keras

    if keras.backend.backend() == "torch" and os.environ.get("OMP_NUM_THREADS", "").isdigit():
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
