"""Judging a classifier on faces that it never saw, with the doubt that a small test part leaves."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskbatch.errors import UsageError
from maskbatch.tasks.mask import LABELS
from maskbatch_export.classifier.metrics import confusion, log_loss, macro_f1, p_text, per_class
from maskbatch_export.classifier.report import table, write_report

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

SIZE_BINS = (0, 16, 24, 32, 48, 96, 10_000)
TARGETS = {"macro-F1": 0.95, "F1 of mask_weared_incorrect": 0.90, "accuracy": 0.97}


@dataclass(frozen=True)
class Judgement:
    """Probabilities for faces with known classes.

    Attributes:
        faces: the rows of `data.FaceTable` that were judged, in order.
        labels: n int64, index into `names`.
        probabilities: n×k float32.
        names: of the classes, in the order of the classifier's outputs.
    """

    faces: pd.DataFrame
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    names: tuple[str, ...] = LABELS

    @property
    def predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.probabilities.argmax(1), np.int64)

    def subset(self, mask: NDArray[np.bool_]) -> Judgement:
        """The faces that a mask picks."""
        return Judgement(self.faces[mask], self.labels[mask], self.probabilities[mask], self.names)


class Evaluator:
    """A classifier and faces to judge it on; the images are read once, however often they are judged."""

    def __init__(self, model: Path, faces: pd.DataFrame) -> None:
        """Open an ONNX classifier and cut the faces, rows of `data.FaceTable`."""
        from maskbatch_export.classifier.data import cut_patches
        from maskbatch_export.onnx_files import OnnxClassifier

        self._classifier = OnnxClassifier(model)
        known = faces["label"].isin(self._classifier.labels)
        self.left_out = int((~known).sum())
        """Faces whose label the classifier does not have; they are not judged."""
        self._faces = faces[known]
        self._patches = cut_patches(self._faces, self._classifier.labels)

    def __call__(self, jitter: float = 0.0, draws: int = 1) -> Judgement:
        """Cut the crops with the scan's function, as the model's metadata says, and classify them.

        Args:
            jitter: as in `data.jitter_boxes`; 0 takes the annotated boxes.
            draws: how often every box is jittered and its face judged; one draw alone is lucky or unlucky by a point.
        """
        import pandas as pd

        classifier, patches = self._classifier, self._patches
        probabilities = [
            classifier.predict(patches.crops(classifier.context, classifier.size, jitter, seed))
            for seed in range(1, draws + 1)
        ]
        repeated = pd.concat([self._faces] * draws, ignore_index=True)
        return Judgement(repeated, np.tile(patches.labels, draws), np.concatenate(probabilities), classifier.labels)


def headline(result: Judgement) -> dict[str, float]:
    """Accuracy, macro- and weighted F1, and the F1 of every class."""
    rows = per_class(result.labels, result.predicted, result.names)
    support = np.array([row["support"] for row in rows.values()])
    f1 = np.array([row["f1"] for row in rows.values()])
    return {
        "accuracy": float((result.labels == result.predicted).mean()),
        "macro-F1": macro_f1(result.labels, result.predicted, result.names),
        "weighted F1": float((f1 * support).sum() / support.sum()),
        **{f"F1 of {name}": row["f1"] for name, row in rows.items()},
    }


def bootstrap(result: Judgement, rounds: int = 2000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of `headline`, drawing whole near-duplicate groups with replacement.

    Faces of one image are not independent, so groups are drawn and not faces.
    """
    groups, index = np.unique(result.faces["group"].to_numpy(str), return_inverse=True)
    size = len(result.names)
    # All figures follow from the confusion matrix, so a draw is a weighted sum of the groups' matrices.
    matrices = np.zeros((len(groups), size, size))
    np.add.at(matrices, (index, result.labels, result.predicted), 1)
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {}
    for _ in range(rounds):
        counts = np.bincount(rng.integers(len(groups), size=len(groups)), minlength=len(groups))
        matrix = np.tensordot(counts, matrices, 1)
        true, predicted, hit = matrix.sum(1), matrix.sum(0), np.diag(matrix)
        f1 = 2 * hit / np.maximum(true + predicted, 1)
        draws.setdefault("accuracy", []).append(hit.sum() / matrix.sum())
        draws.setdefault("macro-F1", []).append(f1[true > 0].mean())
        draws.setdefault("weighted F1", []).append((f1 * true).sum() / true.sum())
        for name, value in zip(result.names, f1, strict=True):
            draws.setdefault(f"F1 of {name}", []).append(value)
    return {name: (float(np.quantile(v, 0.025)), float(np.quantile(v, 0.975))) for name, v in draws.items()}


def chance_test(result: Judgement) -> tuple[str, float, float]:
    """The majority class, the accuracy of always predicting it, and ln p of the model being no better (one-sided binomial)."""
    from scipy.stats import binom

    counts = np.bincount(result.labels, minlength=len(result.names))
    baseline = float(counts.max() / counts.sum())
    hits = int((result.labels == result.predicted).sum())
    log_p = float(binom.logsf(hits - 1, len(result.labels), baseline))
    if math.isinf(log_p):  # too small for a float: its largest term
        log_p = float(binom.logpmf(hits, len(result.labels), baseline))
    return result.names[int(counts.argmax())], baseline, log_p


def expected_calibration_error(result: Judgement, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over equally wide bins (Naeini et al. 2015)."""
    confidence = result.probabilities.max(1)
    right = result.labels == result.predicted
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[index == b].mean() - confidence[index == b].mean()) * (index == b).mean() for b in set(index)]
    return float(sum(gaps))


def by_size(result: Judgement) -> list[tuple[str, Judgement]]:
    """The judgement in bins of the longer side of the annotated box, in pixels."""
    faces = result.faces
    corners = faces[["xmin", "ymin", "xmax", "ymax"]].to_numpy(float)
    side = (corners[:, 2:] - corners[:, :2]).max(axis=1)
    out = []
    for low, high in itertools.pairwise(SIZE_BINS):
        mask = (side >= low) & (side < high)
        if mask.any():
            out.append((f"{low}–{high - 1} px" if high < 10_000 else f"{low} px and more", result.subset(mask)))
    return out


def write_evaluation(result: Judgement, jittered: Judgement | None, out: Path, about: dict[str, str]) -> dict[str, Any]:
    """Write ``out.md``, ``out.html``, ``out.json`` and the plots ``out-*.png``.

    Args:
        result: on annotated boxes.
        jittered: on boxes as a detector places them, or None.
        out: path without suffix.
        about: lines for the head of the report (model, data, command …).

    Returns:
        What ``out.json`` holds.

    Raises:
        UsageError: there is not one face to judge.
    """
    if not len(result.labels):
        raise UsageError("the part to evaluate holds no face")
    out.parent.mkdir(parents=True, exist_ok=True)
    figures, intervals = headline(result), bootstrap(result)
    majority, baseline, log_p = chance_test(result)
    auc = _roc_plot(result, out.with_name(f"{out.name}-roc.png"))
    _matrix_plot(result, out.with_name(f"{out.name}-confusion.png"))
    _calibration_plot(result, out.with_name(f"{out.name}-calibration.png"))
    error = expected_calibration_error(result)
    summary: dict[str, Any] = {
        "about": about,
        "figures": figures,
        "intervals": intervals,
        "per_class": per_class(result.labels, result.predicted, result.names),
        "confusion": confusion(result.labels, result.predicted, len(result.names)).tolist(),
        "auc": auc,
        "majority": {
            "label": majority,
            "accuracy": baseline,
            "p_value": math.exp(log_p),
            "log10_p": log_p / math.log(10),
        },
        "calibration_error": error,
        "log_loss": log_loss(result.labels, result.probabilities),
        "by_size": {name: {"faces": len(part.labels), **headline(part)} for name, part in by_size(result)},
        "by_set": {
            str(name): {"faces": int(mask.sum()), **headline(result.subset(mask))}
            for name in sorted(set(result.faces["set"]))
            for mask in [(result.faces["set"] == name).to_numpy()]
        },
    }
    if jittered is not None:
        summary["jittered"] = {
            "figures": headline(jittered),
            "intervals": bootstrap(jittered),
            "log_loss": log_loss(jittered.labels, jittered.probabilities),
            "draws": len(jittered.labels) // len(result.labels),
        }
    out.with_suffix(".json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    write_report(out, "How well the mask classifier does", _text(result, summary, out.name))
    return summary


def _text(result: Judgement, summary: dict[str, Any], stem: str) -> str:
    intervals, figures = summary["intervals"], summary["figures"]

    def span(name: str, source: dict[str, Any] = intervals) -> str:
        return f"{source[name][0]:.3f}–{source[name][1]:.3f}"

    groups, moved = result.faces["group"].nunique(), "jittered" in summary
    parts = ["\n".join(f"- {key}: {value}" for key, value in summary["about"].items()), "\n## The figures\n"]
    parts.append(
        f"{len(result.labels)} faces of {groups} near-duplicate groups, none of which the model was trained "
        "on. Intervals are 95 % bootstrap intervals over groups."
        + (f" Boxes as a detector places them: {summary['jittered']['draws']} draws of each." if moved else "")
        + "\n"
    )
    header = ["figure", "annotated boxes", "95 % interval", "target"]
    rows = [[n, v, span(n), TARGETS.get(n, "")] for n, v in figures.items()]
    if moved:
        other = summary["jittered"]
        header += ["boxes as a detector places them", "95 % interval"]
        rows = [[*row, other["figures"][row[0]], span(row[0], other["intervals"])] for row in rows]
    parts.append(table(header, rows))
    for name, target in TARGETS.items():
        if name not in figures:  # another task
            continue
        missed = figures[name] < target
        parts.append(f"- {name}: {'missed by' if missed else 'above the target by'} {abs(figures[name] - target):.3f}")
    majority = summary["majority"]
    parts.append(
        f"\nAlways predicting `{majority['label']}` scores an accuracy of {majority['accuracy']:.3f}; that the model is no "
        f"better than that has p = {p_text(majority['log10_p'] * math.log(10))} (one-sided binomial test).\n\n## By class\n"
    )
    rows = [
        [n, r["precision"], r["recall"], r["f1"], r["support"], summary["auc"].get(n, "")]
        for n, r in summary["per_class"].items()
    ]
    parts.append(table(["class", "precision", "recall", "F1", "faces", "AUC one-vs-rest"], rows))
    header = ["true \\ predicted", *result.names]
    parts.append(table(header, [[n, *r] for n, r in zip(result.names, summary["confusion"], strict=True)]))
    parts.append(f"![Confusion matrix]({stem}-confusion.png)\n\n![ROC curves]({stem}-roc.png)\n\n## By face size\n")
    keys = ["faces", "accuracy", "macro-F1", *(f"F1 of {name}" for name in result.names)]
    sizes = [[name, *(row[k] for k in keys)] for name, row in summary["by_size"].items()]
    parts.append(table(["longer side of the box", *keys], sizes))
    parts.append("## By data set\n")
    parts.append(table(["set", *keys], [[name, *(row[k] for k in keys)] for name, row in summary["by_set"].items()]))
    parts.append(
        f"## Calibration\n\nExpected calibration error {summary['calibration_error']:.3f} (10 bins), log loss "
        f"{summary['log_loss']:.3f}"
        + (f", on jittered boxes {summary['jittered']['log_loss']:.3f}" if moved else "")
        + ".\n\n"
        f"![Calibration]({stem}-calibration.png)\n"
    )
    return "\n".join(parts)


def _axes(width: float, height: float) -> tuple[Any, Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height))
    return plt, figure, axes


def _save(plt: Any, figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _roc_plot(result: Judgement, path: Path) -> dict[str, float]:
    from sklearn.metrics import auc, roc_curve

    plt, figure, axes = _axes(5, 4)
    areas = {}
    for index, name in enumerate(result.names):
        truth = result.labels == index
        if truth.all() or not truth.any():
            continue
        false, true, _ = roc_curve(truth, result.probabilities[:, index])
        areas[name] = float(auc(false, true))
        axes.plot(false, true, label=f"{name} ({areas[name]:.3f})")
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="One class against the rest")
    axes.legend(loc="lower right", fontsize=8)
    _save(plt, figure, path)
    return areas


def _matrix_plot(result: Judgement, path: Path) -> None:
    counts = confusion(result.labels, result.predicted, len(result.names))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    plt, figure, axes = _axes(6.0, 4.2)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(result.names)):
        for column in range(len(result.names)):
            colour = "white" if share[row, column] > 0.5 else "black"
            text = f"{counts[row, column]}\n{share[row, column]:.1%}"
            axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(result.names)), result.names, fontsize=8, rotation=12)
    axes.set_yticks(range(len(result.names)), result.names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    _save(plt, figure, path)


def _calibration_plot(result: Judgement, path: Path) -> None:
    confidence = result.probabilities.max(1)
    right = result.labels == result.predicted
    index = np.minimum((confidence * 10).astype(int), 9)
    used = [b for b in range(10) if (index == b).any()]
    plt, figure, axes = _axes(4.5, 4)
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.plot([confidence[index == b].mean() for b in used], [right[index == b].mean() for b in used], "o-")
    for b in used:
        axes.annotate(int((index == b).sum()), (confidence[index == b].mean(), right[index == b].mean()), fontsize=7)
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0.3, 1.02), ylim=(0, 1.02))
    _save(plt, figure, path)
