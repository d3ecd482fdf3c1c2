"""Fine-tune the detector on a CPU in a given time; resumable, seeded, logged.

A run lives in one folder: ``settings.json``, ``log.jsonl``, ``checkpoint.pt`` (everything needed to go on), ``average.npz`` (the moving
average of the weights, by variable path; what is exported).
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from maskbatch.storage.atomic import written_whole
from maskbatch_export.detector.anchors import make_anchors
from maskbatch_export.detector.augment import Crop, Sampler, SceneRecipe
from maskbatch_export.detector.data import MASK_SETS, WIDER, Picture, present, read_pictures
from maskbatch_export.detector.evaluate import Predict, detector, evaluate
from maskbatch_export.detector.landmarks import distil_landmarks
from maskbatch_export.detector.loss import LossSettings, detection_loss, distillation_loss, flatten
from maskbatch_export.detector.model import Architecture, build_model
from maskbatch_export.detector.pseudo import SIZES, complete, look
from maskbatch_export.detector.rivals import open_detector
from maskbatch_export.detector.runner import Runner
from maskbatch_export.detector.unlabelled import ignore_unlabelled
from maskbatch_export.detector.weights import load_exported_weights, load_starting_weights
from maskbatch_export.saving import save_arrays

CONSENSUS_SCORE = 0.5
"""Least score of a detection that completes the labels."""
LONGEST_STEP_S = 30.0
"""A step counts for no longer against the run's time: a run that was suspended for a while goes on where it was."""


@dataclass(frozen=True)
class TrainSettings:
    """One run.

    Attributes:
        minutes: training time from the first step to the last; the learning rate follows a cosine over it.
        batch: crops per step.
        rate: highest learning rate (AdamW).
        plain_share: last share of the time without mosaics and damage.
        shares: how often each data set is drawn.
        ignore_by: a detector as in :func:`.rivals.open_detector` whose confident detections that no label explains are not
            learned as background; ``None`` takes the labels at their word.
        distil: weight of the starting model's scores as a second teacher on crops of WIDER FACE; 0 is off.
        with_validation: learn from the validation part of the mask sets too, once everything is chosen.
        frozen_norms: the statistics of batch norms stay as they are; needed where training begins at an exported file.
        keep: pull towards the weights that training began with, in place of the decay towards zero (L2-SP, Li et al. 2018,
            arXiv:1802.01483).
        large_every: each so manieth step has half as many crops of 640 pixels, in which faces are as large as in use; 0 = never.
        consensus: ONNX files of ours and of others (as in :func:`.rivals.open_detector`) whose agreement completes the labels.
    """

    minutes: float = 90.0
    batch: int = 16
    rate: float = 1e-3
    last_rate: float = 1e-5
    warmup_steps: int = 150
    decay: float = 5e-4
    average: float = 0.999
    clip: float = 10.0
    plain_share: float = 0.12
    seed: int = 0
    bfloat16: bool = True
    architecture: Architecture = field(default_factory=Architecture)
    recipe: SceneRecipe = field(default_factory=SceneRecipe)
    loss: LossSettings = field(default_factory=LossSettings)
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"face_mask_detection": 0.28, "ilc2021": 0.38, "wider_face": 0.34}
    )
    ignore_by: str | None = None
    distil: float = 0.0
    with_validation: bool = False
    frozen_norms: bool = False
    keep: float = 0.0
    large_every: int = 0
    consensus: tuple[str, ...] = ()


LARGE = 640
"""Side in pixels of the crops of a large step: that of the detector's input in use."""


def _ahead(
    samplers: tuple[Sampler, Sampler], settings: TrainSettings, start: int, plain: threading.Event
) -> Iterator[list[Crop]]:
    """Batches from ``start`` on, made by one thread two steps ahead."""
    ready: queue.Queue[list[Crop]] = queue.Queue(2)

    def work() -> None:
        step = start
        while True:
            large = settings.large_every and step % settings.large_every == 0
            count = max(1, settings.batch // 2) if large else settings.batch
            ready.put(samplers[1 if large else 0].batch(step, count, plain.is_set()))
            step += 1

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield ready.get()


def variables(model: keras.Model) -> dict[str, torch.Tensor]:
    """All weights of the model by path, batch-norm statistics included, as the tensors that the model uses."""
    return {v.path: v.value for v in model.weights}


def load_average(model: keras.Model, path: Path) -> None:
    """Put averaged weights into the model (any backend, any data format)."""
    with np.load(path) as stored:
        for variable in model.weights:
            variable.assign(stored[variable.path])


BACKBONE = ("stem", "stage", "refine")


def average_weights(
    model: keras.Model, start: Path, parts: Sequence[tuple[Path, float, float]]
) -> dict[str, np.ndarray]:
    """Mix the weights of fine-tuned runs with the starting weights and put them into the model; the mixed values by variable path.

    Weights between a model and its fine-tuned child keep more of what the parent could do (WiSE-FT, Wortsman et al. 2022,
    arXiv:2109.01903): here faces of few pixels, which the mask sets hardly have. Children that share their way average well, too.

    Args:
        parts: for every run its averaged weights, their share in the backbone, and their share in pyramid, context modules and
            heads. The starting weights get what is left.
    """
    load_starting_weights(model, start)
    parent = {v.path: np.array(keras.ops.convert_to_numpy(v.value)) for v in model.weights}
    mixed = {}
    sources = [(np.load(path), backbone, rest) for path, backbone, rest in parts]
    for variable in model.weights:
        name = variable.path
        shares = [backbone if name.startswith(BACKBONE) else rest for _, backbone, rest in sources]
        value = parent[name] * (1 - sum(shares))
        for (stored, _, _), share in zip(sources, shares, strict=True):
            value = value + stored[name] * share
        mixed[name] = value.astype(np.float32)
        variable.assign(mixed[name])
    return mixed


class Trainer:
    """Model, optimizer and moving average of one run."""

    def __init__(self, settings: TrainSettings, run: Path, start: Path) -> None:
        self.settings, self.run = settings, run
        keras.utils.set_random_seed(settings.seed)
        self.model = build_model(settings.architecture)
        self.partial = load_starting_weights(self.model, start)
        self.runner = Runner(self.model)
        self.tensors = variables(self.model)
        trained = [v.value for v in self.model.trainable_variables]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.0 if settings.keep else settings.decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.parameters = trained
        self.teacher: Runner | None = None
        if settings.distil:
            parent = build_model(settings.architecture)
            load_starting_weights(parent, start)
            self.teacher = Runner(parent)
            self.teacher.training = False
        self.optimizer = torch.optim.AdamW(groups, lr=settings.rate)
        self.average = {name: t.detach().clone() for name, t in self.tensors.items()}
        self.step, self.seconds = 0, 0.0
        self.anchors = {side: torch.from_numpy(make_anchors(side, side)) for side in (settings.recipe.size, LARGE)}
        self.began = [p.detach().clone() for p in self.parameters]

    def begin(self, path: Path) -> None:
        """Start from these weights (``.npz`` by variable path, or an exported ``.onnx``)."""
        (load_exported_weights if path.suffix == ".onnx" else load_average)(self.model, path)
        self.began = [p.detach().clone() for p in self.parameters]
        self.average = {name: t.detach().clone() for name, t in self.tensors.items()}

    def rate(self) -> float:
        """Learning rate now: linear warm-up, then a cosine over the run's time."""
        s = self.settings
        progress = min(1.0, self.seconds / (s.minutes * 60))
        cosine = s.last_rate + (s.rate - s.last_rate) * 0.5 * (1 + np.cos(np.pi * progress))
        return float(cosine * min(1.0, (self.step + 1) / s.warmup_steps))

    def train_step(self, crops: list[Crop]) -> dict[str, float]:
        """One optimizer step; its losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        images = torch.from_numpy(np.stack([c.image for c in crops])).permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=torch.channels_last)
        self.runner.training = not self.settings.frozen_norms
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16):
            heads = self.runner(images)
        loss, parts = detection_loss(heads, crops, self.anchors[images.shape[-1]], self.settings.loss)
        known = [index for index, crop in enumerate(crops) if crop.origin == WIDER]
        if self.teacher is not None and known:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16):
                wanted = flatten(self.teacher(images[known]))[0].sigmoid()
            kept = distillation_loss(flatten(heads)[0][known], wanted)
            loss = loss + self.settings.distil * len(known) / len(crops) * kept
            parts["distil"] = float(kept.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
            if self.settings.keep:
                with torch.no_grad():
                    for now, then in zip(self.parameters, self.began, strict=True):
                        now.lerp_(then, min(1.0, self.rate() * self.settings.keep))
        self.step += 1
        keep = min(self.settings.average, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            for name, mean in self.average.items():
                mean.lerp_(self.tensors[name], 1 - keep)
        return {"loss": float(loss.detach()), **parts, "norm": float(norm)}

    def predict(self) -> Predict:
        """The averaged network, as evaluation wants it. Restore with :meth:`restore` afterwards."""
        self.current = {name: t.detach().clone() for name, t in self.tensors.items()}
        self._write(self.average)
        self.runner.training = False

        def predict(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            with torch.no_grad():
                images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
                logits, deltas, points = flatten(self.runner(images))
            return logits.sigmoid().numpy(), deltas.numpy(), points.numpy()

        return predict

    def restore(self) -> None:
        """Back to the weights in training."""
        self._write(self.current)

    def _write(self, values: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(values[name])

    def save(self) -> None:
        """Checkpoint and averaged weights; each is replaced whole."""
        state = {
            "weights": dict(self.tensors),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with written_whole(self.run / "checkpoint.pt") as temporary:
            torch.save(state, temporary)
        save_arrays(self.run / "average.npz", **{name: t.numpy() for name, t in self.average.items()})

    def resume(self) -> bool:
        """Go on from the run's checkpoint, if there is one."""
        path = self.run / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        self._write(state["weights"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        return True


def validate(trainer: Trainer, pictures: list[Picture]) -> dict[str, Any]:
    """Figures of the averaged weights on the validation part, per data set."""
    detect = detector(trainer.predict(), tight=True)
    figures = {}
    for origin in dict.fromkeys(p.origin for p in pictures):
        result = evaluate(detect, [p for p in pictures if p.origin == origin])
        figures[origin] = {key: round(result[key], 4) for key in ("ap50", "ap35", "ap")}
    trainer.restore()
    return figures


def train(
    settings: TrainSettings,
    run: Path,
    data: Path,
    start: Path,
    teacher: Path,
    validate_minutes: float,
    begin_at: Path | None = None,
) -> None:
    """Train for ``settings.minutes``, or what is left of them where ``run`` holds a checkpoint.

    A new run begins at the starting weights, or at ``begin_at``, averaged or blended weights of another run.
    """
    run.mkdir(parents=True, exist_ok=True)
    (run / "settings.json").write_text(json.dumps(asdict(settings), indent=1))
    trainer = Trainer(settings, run, start)
    if begin_at is not None:
        trainer.begin(begin_at)
    resumed = trainer.resume()
    origins = tuple(origin for origin in present(data) if settings.shares.get(origin))
    held_out = [p for p in read_pictures(data, "val", origins) if len(p.boxes)]
    learned = read_pictures(data, "train", origins)
    if settings.with_validation:
        learned += [p for p in held_out if p.origin in MASK_SETS]
    unlabelled = 0
    if settings.consensus:
        detectors = {spec: [open_detector(spec, size) for size in SIZES] for spec in settings.consensus}
        learned, completed = complete(learned, look(learned, detectors, CONSENSUS_SCORE, run / "consensus.npz"))
        _log(run, {"event": "consensus", **completed})
    pictures = distil_landmarks(learned, teacher, run / "landmarks.npz")
    if settings.ignore_by:
        teachers = [open_detector(settings.ignore_by, size) for size in (640, 1120)]
        pictures, unlabelled = ignore_unlabelled(pictures, teachers, MASK_SETS)
    faces = sum(len(p.boxes) for p in pictures)
    marked = sum(int((~np.isnan(p.landmarks[:, 0, 0])).sum()) for p in pictures)
    _log(
        run,
        {
            "event": "resume" if resumed else "start",
            "step": trainer.step,
            "pictures": len(pictures),
            "faces": faces,
            "with_landmarks": marked,
            "unlabelled": unlabelled,
            "validation": len(held_out),
            "partly_loaded": trainer.partial,
        },
    )
    plain = threading.Event()
    recipes = (settings.recipe, replace(settings.recipe, size=LARGE))
    small, large = (Sampler(pictures, dict(settings.shares), recipe, settings.seed) for recipe in recipes)
    batches = _ahead((small, large), settings, trainer.step, plain)
    limit, saved, judged = settings.minutes * 60, trainer.seconds, trainer.seconds
    sums: dict[str, float] = {}
    for crops in batches:
        begin = time.monotonic()
        if trainer.seconds >= (1 - settings.plain_share) * limit:
            plain.set()
        for key, value in trainer.train_step(crops).items():
            sums[key] = sums.get(key, 0.0) + value
        if trainer.step % 50 == 0:
            means = {key: round(value / 50, 4) for key, value in sums.items()}
            _log(run, {"step": trainer.step, "seconds": round(trainer.seconds, 1), "rate": trainer.rate(), **means})
            sums = {}
        trainer.seconds += min(time.monotonic() - begin, LONGEST_STEP_S)
        done = trainer.seconds >= limit
        if done or trainer.seconds - saved >= 240:
            trainer.save()
            saved = trainer.seconds
        if done or trainer.seconds - judged >= validate_minutes * 60:
            begin = time.monotonic()
            _log(run, {"step": trainer.step, "validation": validate(trainer, held_out)})
            judged = trainer.seconds
            # Validation takes its share of the run's time, so that the run ends when it was told to.
            trainer.seconds += time.monotonic() - begin
        if done:
            return


def _log(run: Path, entry: dict[str, Any]) -> None:
    line = json.dumps({"time": time.strftime("%H:%M:%S"), **entry})
    with (run / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)
