"""What a data set holds, before anybody trains on it: a report with plots and contact sheets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskbatch.tasks.mask import LABELS
from maskbatch_export.classifier.data import FaceTable, cut_patches
from maskbatch_export.classifier.metrics import p_text
from maskbatch_export.classifier.report import table, write_report
from maskbatch_export.split import part_of_group

if TYPE_CHECKING:
    import pandas as pd

SHEET = (6, 10)
SHEET_CELL = 80


def uniformity_test(counts: dict[str, int]) -> tuple[float, float]:
    """Chi-square statistic of the hypothesis that all classes are equally frequent, and the natural logarithm of its p-value."""
    from scipy.special import gammaln
    from scipy.stats import chi2, chisquare

    statistic = float(chisquare(list(counts.values())).statistic)
    log_p = float(chi2.logsf(statistic, len(counts) - 1))
    if math.isinf(
        log_p
    ):  # too small for a float: the leading term of the incomplete gamma function (exact for three classes)
        half, x = (len(counts) - 1) / 2, statistic / 2
        log_p = float((half - 1) * math.log(x) - x - gammaln(half))
    return statistic, log_p


def write_stats(data: FaceTable, out: Path, seed: int = 0) -> dict[str, Any]:
    """Write ``out.md``, ``out.html``, plots and contact sheets ``out-*.png``, and ``out-faces.csv``, ``out-problems.csv``.

    Args:
        data: from `data.read_tables`.
        out: path without suffix.
        seed: which faces the contact sheets show.

    Returns:
        The main figures: counts, chi-square, groups.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    faces = data.faces
    faces.to_csv(out.with_name(f"{out.name}-faces.csv"), index=False)
    data.problems.to_csv(out.with_name(f"{out.name}-problems.csv"), index=False)
    counts = {label: int((faces["label"] == label).sum()) for label in LABELS}
    statistic, log_p = uniformity_test(counts)
    pictures = faces.drop_duplicates("path")
    sizes = pictures.groupby("group").size()
    sets_per_group = pictures.groupby("group")["set"].nunique()
    summary = {
        "faces": counts,
        "pictures": data.pictures,
        "groups": len(sizes),
        "groups_of_several": int((sizes > 1).sum()),
        "groups_across_sets": int((sets_per_group > 1).sum()),
        "chi_square": statistic,
        "p_value": math.exp(log_p),
        "log10_p": log_p / math.log(10),
        "problems": len(data.problems),
    }
    _plots(faces, out)
    for label in LABELS:
        _sheet(faces[faces["label"] == label], out.with_name(f"{out.name}-{label}.png"), seed)
    write_report(out, "What the data holds", _text(data, summary, out.name))
    return summary


def _text(data: FaceTable, summary: dict[str, Any], stem: str) -> str:
    faces = data.faces
    by_set = faces.groupby("set")
    rows = []
    for name, part in by_set:
        labels = [int((part["label"] == label).sum()) for label in LABELS]
        side = _sides(part)
        rows.append([name, part["path"].nunique(), len(part), *labels, float(side.median())])
    text = [table(["set", "images with faces", "faces", *LABELS, "median side, px"], rows)]
    majority = max(summary["faces"].values()) / max(sum(summary["faces"].values()), 1)
    text.append(
        f"Always naming the most frequent class would be right for {majority:.1%} of the faces: accuracy alone says "
        f"little here. Chi-square test that the classes are equally frequent: {summary['chi_square']:.0f}, "
        f"p = {p_text(summary['log10_p'] * math.log(10))}.\n\n![Faces by class and size]({stem}-plots.png)\n\n## Near copies\n"
    )
    text.append(
        f"{summary['groups']} groups of near copies; {summary['groups_of_several']} hold several images, "
        f"{summary['groups_across_sets']} hold images of several sets. The split is made by group:\n"
    )
    parts = faces["group"].map(part_of_group)
    rows = []
    for name in ("train", "val", "test"):
        chosen = faces[parts == name]
        rows.append([name, chosen["group"].nunique(), *(int((chosen["label"] == x).sum()) for x in LABELS)])
    text.append(table(["part", "groups", *LABELS], rows))
    text.append(f"## Problems ({len(data.problems)})\n")
    if len(data.problems):
        found = data.problems.groupby(["problem", "kept"]).size().reset_index(name="times")
        text.append(table(["problem", "kept", "times"], found.to_numpy().tolist()))
        shown = data.problems.head(20)
        text.append(table(list(shown.columns), shown.to_numpy().tolist()))
        text.append(f"All of them: `{stem}-problems.csv`.\n")
    text += [f"## {label}\n\n![{label}]({stem}-{label}.png)\n" for label in LABELS if summary["faces"][label]]
    return "\n".join(text)


def _sides(faces: pd.DataFrame) -> pd.Series:
    import pandas as pd

    extent = pd.DataFrame({"w": faces["xmax"] - faces["xmin"], "h": faces["ymax"] - faces["ymin"]})
    return extent.max(axis=1)


def _plots(faces: pd.DataFrame, out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6))
    left.barh(LABELS, [(faces["label"] == label).sum() for label in LABELS])
    left.set_title("faces")
    middle.barh(LABELS, [faces.loc[faces["label"] == label, "path"].nunique() for label in LABELS])
    middle.set_title("pictures")
    middle.set_yticks([])
    sides = _sides(faces)
    bins = np.geomspace(sides.min(), sides.max() * 1.01 + 1, 30)
    for label in LABELS:
        chosen = sides[faces["label"] == label]
        if len(chosen):
            right.hist(chosen, bins, histtype="step", density=True, label=label)
    right.set(xscale="log", xlabel="longer side of the box, px", title="sizes (density)")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out.with_name(f"{out.name}-plots.png"), dpi=80)
    plt.close(figure)


def _sheet(faces: pd.DataFrame, path: Path, seed: int) -> None:
    """A contact sheet of crops as the classifier gets them."""
    if faces.empty:
        return
    rows, columns = SHEET
    shown = faces.sample(min(rows * columns, len(faces)), random_state=seed)
    crops = cut_patches(shown).crops(1.4, SHEET_CELL)
    sheet = np.full((rows * columns, SHEET_CELL, SHEET_CELL, 3), 255, np.uint8)
    sheet[: len(crops)] = crops
    grid = sheet.reshape(rows, columns, SHEET_CELL, SHEET_CELL, 3).swapaxes(1, 2)
    cv2.imwrite(str(path), grid.reshape(rows * SHEET_CELL, columns * SHEET_CELL, 3))
