"""Train on with the faces that people put right, and say whether that made the classifier better.

The dense layers behind the backbone go on from the base's own weights, on cached features; the backbone stays as it is. Corrected faces are
mixed with a replay set, so that what was known is not forgotten. Whole groups are held back: near copies (also of replay images), and all
faces of one video. Old and new are compared on those alone, by a paired bootstrap over groups. It needs no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskbatch.draw.originals import Originals
from maskbatch.errors import InputError, ModelError, UsageError
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import Correction, Corrections
from maskbatch.results.reader import ResultReader
from maskbatch.storage.atomic import write_bytes
from maskbatch_export.classifier.data import Patches, cut_patches, cut_patches_of, read_tables
from maskbatch_export.classifier.heads import Head, HeadModel
from maskbatch_export.classifier.metrics import macro_f1
from maskbatch_export.duplicates import group_hashes, hashes_of, perceptual_hash
from maskbatch_export.onnx_files import OnnxClassifier, sha256_of
from maskbatch_export.split import part_of_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORGETTING = 0.01
"""Macro-F1 that may be lost on the replay set's untouched part, at the lower end of the interval."""
LEAST_FACES = 20
"""Corrected faces that must be held back at least: with fewer no comparison says anything."""


@dataclass(frozen=True)
class ImproveConfig:
    """What decides the outcome.

    Attributes:
        base: ONNX classifier (float32), whose dense layers are trained on.
        results: the result that was corrected.
        corrections: its log.
        data: Pascal VOC folders of the replay set.
        replay: faces of it to train with, at most.
        steps: of training.
        share: of corrected faces in a step.
        draws: of the bootstrap.
        seed: of everything random.
    """

    base: Path
    results: str
    corrections: Path
    data: tuple[Path, ...]
    replay: int = 2000
    steps: int = 600
    share: float = 0.3
    draws: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Change:
    """Macro-F1 of both models on the same untouched faces.

    Attributes:
        faces: number of them.
        groups: number of their groups.
        old: of the base.
        new: of the trained model.
        low: of the 95 % interval of new minus old.
        high: of it.
    """

    faces: int
    groups: int
    old: float
    new: float
    low: float
    high: float


@dataclass(frozen=True)
class Improvement:
    """The outcome.

    Attributes:
        trained: corrected faces that were trained with.
        lost: corrected faces whose input is gone or cannot be read.
        corrected: change on held-back corrected faces.
        replay: change on the replay set's test part.
    """

    trained: int
    lost: int
    corrected: Change
    replay: Change

    @property
    def refusal(self) -> str:
        """Why the new model is not to be promoted; empty where it is better."""
        change, kept = self.corrected, self.replay
        if change.low <= 0:
            return f"on {change.faces} untouched corrected faces the change is {_signed(change)}: it may well be none"
        if kept.low < -FORGETTING:
            return f"on the replay set it may have lost more than {FORGETTING} of macro-F1: {_signed(kept)}"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "promoted": not self.refusal, "refusal": self.refusal or None}


def improve(config: ImproveConfig, out: Path, say: Callable[[str], None] = print) -> Improvement:
    """Train, compare, and write `out` only where the new model is better.

    Raises:
        UsageError: too few corrected faces, or labels that the base does not have.
        ModelError: the base has no dense layers that can be trained on.
    """
    classifier = OnnxClassifier(config.base)
    labels = classifier.labels
    model = HeadModel(config.base)
    say("corrected faces")
    patches, names, hashes, lost = _corrected_patches(config, labels)
    table = read_tables(config.data, labels).faces
    parts = np.array([part_of_group(group) for group in table["group"]])
    learnt = sorted({Path(path) for path in table["path"][parts != "test"]})  # ours have learnt from val too
    say(f"{len(patches)} corrected faces ({lost} lost), {len(learnt)} replay images to be kept apart")
    groups = _groups(names, hashes, learnt)
    held = np.array([part_of_group(group) != "train" and group != REPLAYED for group in groups], np.bool_)
    if held.sum() < LEAST_FACES or (~held).sum() < LEAST_FACES:
        raise UsageError(
            f"{int((~held).sum())} corrected faces to train with and {int(held.sum())} to compare on, {LEAST_FACES} of each are "
            "needed: review more images (all faces of one video, or of near copies, are held back or trained with as a whole)"
        )
    rng = np.random.default_rng(config.seed)
    known = table[(parts != "test") & table["label"].isin(labels)]
    known = known.sample(min(config.replay, len(known)), random_state=config.seed)
    judged = table[(parts == "test") & table["label"].isin(labels)]
    replay, untouched = cut_patches(known, labels), cut_patches(judged, labels)
    say(f"features of {int((~held).sum())} corrected and {len(replay)} replay faces")
    shown = classifier.context, classifier.size
    new_x, new_y = _views(model, _take(patches, ~held), shown, jitters=4)
    old_x, old_y = _views(model, replay, shown, jitters=1)
    head = _trained(model.head, (new_x, new_y), (old_x, old_y), config, rng)
    candidate = model.with_head(
        head, {"improved_from": sha256_of(config.base), "corrections": sha256_of(config.corrections)}
    )
    say("comparison")
    changes = []
    for faces, owner in ((_take(patches, held), groups[held]), (untouched, judged["group"].to_numpy(str))):
        crops = faces.crops(*shown)
        before, after = classifier.predict(crops).argmax(1), candidate.predict(crops).argmax(1)
        changes.append(_compared(faces.labels, before, after, owner, labels, config))
    found = Improvement(int((~held).sum()), lost, changes[0], changes[1])
    if not found.refusal:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out, candidate.data)
    return found


REPLAYED = "replay"
"""Group of corrected faces that are near copies of an image that the base has learnt from: trained with, never judged on."""


def _corrected_patches(
    config: ImproveConfig, labels: tuple[str, ...]
) -> tuple[Patches, list[str], NDArray[np.bool_], int]:
    """Patches of the faces with a label of a person, the source of each (videos only: else empty), two hashes each, and how many are lost."""
    decisions = [
        decision
        for decision in Corrections.of(CorrectionLog(config.corrections).read())
        if decision.action in ("label", "missed")
    ]
    unknown = sorted({decision.label for decision in decisions} - set(labels))
    if unknown:
        raise UsageError(
            f"the corrections name {unknown[0]!r}, the labels of {config.base.name} are {', '.join(labels)}"
        )
    originals = Originals(ResultReader(config.results).run())
    moments: dict[tuple[str, int | None], list[Correction]] = {}
    for decision in decisions:
        number = decision.frame if decision.time_s is not None else None
        moments.setdefault((decision.source, number), []).append(decision)
    images, boxes, kept, hashes, videos, lost = [], [], [], [], [], 0
    for (source, frame), faces in sorted(moments.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
        try:
            image = originals.image(source) if frame is None else originals.frame(source, frame)
        except InputError:
            lost += len(faces)
            continue
        found = cut_patches_of(image, np.array([face.box for face in faces], np.float32))
        pair = perceptual_hash(image), perceptual_hash(np.ascontiguousarray(image[:, ::-1]))
        for (patch, box), face in zip(found, faces, strict=True):
            images.append(patch)
            boxes.append(box)
            kept.append(face)
            hashes.append(pair)
            videos.append(source if frame is not None else "")
    sides = [max(face.box[2] - face.box[0], face.box[3] - face.box[1]) for face in kept]
    classes = np.array([labels.index(face.label) for face in kept], np.int64)
    patches = Patches(images, np.array(boxes, np.float32).reshape(-1, 4), classes, np.array(sides, np.float32))
    return patches, videos, np.array(hashes, np.bool_).reshape(-1, 2, 64), lost


def _groups(videos: Sequence[str], hashes: NDArray[np.bool_], learnt: Sequence[Path]) -> NDArray[np.str_]:
    """The group of each corrected face: near copies share one, so do all frames of a video; `REPLAYED` for copies of replay images."""
    replay = hashes_of(learnt)
    both = np.concatenate([hashes, replay]) if len(replay) else hashes
    together: list[list[int]] = [
        [index for index, name in enumerate(videos) if name == video] for video in set(videos) - {""}
    ]
    roots = group_hashes(both[:, 0], both[:, 1], np.ones(len(both), np.bool_), together)
    taken = set(roots[len(hashes) :])
    # A group is named by what its first image looks like, so that it is held back, or not, in every later round too.
    names = [np.packbits(both[root, 0]).tobytes().hex() for root in roots[: len(hashes)]]
    return np.array([REPLAYED if root in taken else name for root, name in zip(roots, names, strict=False)], np.str_)


def _take(patches: Patches, chosen: NDArray[np.bool_]) -> Patches:
    at = np.flatnonzero(chosen)
    return Patches([patches.images[i] for i in at], patches.boxes[at], patches.labels[at], patches.sides[at])


def _views(
    model: HeadModel, patches: Patches, shown: tuple[float, int], jitters: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of the faces by their own box and by jittered ones, half of them mirrored."""
    views = []
    for number in range(jitters + 1):
        crops = patches.crops(*shown, float(number > 0), number)
        views.append(model.features(crops[:, :, ::-1] if number % 2 else crops))
    return np.concatenate(views), np.tile(patches.labels, jitters + 1)


def _trained(
    head: Head,
    new: tuple[NDArray[np.float32], NDArray[np.int64]],
    old: tuple[NDArray[np.float32], NDArray[np.int64]],
    config: ImproveConfig,
    rng: np.random.Generator,
) -> Head:
    """The dense layers, trained on. Replay faces aim half at their label and half at the base's own answer."""
    classes = head.layers[-1][0].shape[1]
    new_targets = np.eye(classes, dtype=np.float32)[new[1]] * 0.95 + 0.05 / classes
    old_targets = 0.5 * np.eye(classes, dtype=np.float32)[old[1]] + 0.5 * head.probabilities(old[0])
    size = 128
    fresh = round(size * config.share)
    new_odds, old_odds = _odds(new[1]), _odds(old[1])

    def batch() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        first = rng.choice(len(new[0]), fresh, p=new_odds)
        second = rng.choice(len(old[0]), size - fresh, p=old_odds)
        x = np.concatenate([new[0][first], old[0][second]])
        return x, np.concatenate([new_targets[first], old_targets[second]]).astype(np.float32)

    return head.fitted(batch, config.steps)


def _odds(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each face is drawn: halfway between as often as it comes and all classes equally often, as in training."""
    weight = np.bincount(labels)[labels] ** -0.5
    return np.asarray(weight / weight.sum(), np.float64)


def _compared(
    truth: NDArray[np.int64],
    old: NDArray[np.int64],
    new: NDArray[np.int64],
    groups: NDArray[np.str_],
    labels: tuple[str, ...],
    config: ImproveConfig,
) -> Change:
    """Paired bootstrap over groups of the difference in macro-F1."""
    _, owner = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(owner == number) for number in range(int(owner.max()) + 1)]
    rng = np.random.default_rng(config.seed)
    differences = []
    for _ in range(config.draws):
        at = np.concatenate([members[number] for number in rng.integers(len(members), size=len(members))])
        differences.append(macro_f1(truth[at], new[at], labels) - macro_f1(truth[at], old[at], labels))
    low, high = np.quantile(differences, [0.025, 0.975])
    before, after = macro_f1(truth, old, labels), macro_f1(truth, new, labels)
    return Change(len(truth), len(members), before, after, float(low), float(high))


def _signed(change: Change) -> str:
    return f"{change.new - change.old:+.4f} of macro-F1 (95 % interval {change.low:+.4f} to {change.high:+.4f})"


def as_text(found: Improvement) -> list[str]:
    """For the terminal."""
    lines = []
    for name, change in (("untouched corrected faces", found.corrected), ("replay set, test part", found.replay)):
        lines.append(
            f"{name}: {change.faces} faces in {change.groups} groups, macro-F1 {change.old:.4f} → {change.new:.4f}, {_signed(change)}"
        )
    return lines


def require_better(found: Improvement) -> None:
    """Raises ModelError where the new model is not to be promoted."""
    if found.refusal:
        raise ModelError(f"not promoted, nothing was written: {found.refusal}")
