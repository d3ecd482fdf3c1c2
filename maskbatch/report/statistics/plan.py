"""The planned questions: is correct wearing associated with place (camera), hour of day and weekday? And what may be concluded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from maskbatch.report.people import Array, People
from maskbatch.report.sections.base import Content
from maskbatch.report.statistics.models import (
    Logistic,
    Table2,
    dummies,
    firth,
    gee,
    holm,
    permute_clusters,
    permute_within,
    two_way,
)
from maskbatch.web.tables import Table

LEAST_CLUSTERS = 10
MOST_COEFFICIENTS = 80
"""Beyond that the regression would take minutes, and nobody reads a thousand odds ratios."""
ALPHA = 0.05

DEPENDENT = "No p-value is given: sightings of the same person are not independent. Scan with --track to count people and to test."
MIXED = (
    "No p-value is given: beside people in tracked videos there are sightings in images, and sightings of the same person are not "
    "independent. Scan the videos alone to test."
)
CONCLUDE = (
    "What may be concluded: an association in what these cameras saw, with camera-days as the unit that varies. Not a cause: who passes "
    "where and when differs in more than place and time. Cameras also differ in light, angle and distance, and so in how well faces are "
    "found and judged; a difference between cameras can be one of detection. That no association is found does not prove that there is none."
)
BANDS = (
    (0, 6, "night 00–06"),
    (6, 10, "morning 06–10"),
    (10, 14, "midday 10–14"),
    (14, 18, "afternoon 14–18"),
    (18, 24, "evening 18–24"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells with a known clock: camera, band of hours, weekday, cluster, correct, people."""

    camera: Array
    band: Array
    weekday: Array
    cluster: Array
    correct: Array
    people: Array

    def group(self, question: str) -> Array:
        group: Array = {"camera": self.camera, "hour of day": self.band, "weekday": self.weekday}[question]
        return group

    def clusters(self, question: str) -> tuple[Array, Array, Array]:
        """Group, correct and people per whole cluster; for groups that do not vary within one."""
        _, first, index = np.unique(self.cluster, return_index=True, return_inverse=True)
        return self.group(question)[first], np.bincount(index, self.correct), np.bincount(index, self.people)


def answer_questions(people: People) -> Content:
    """Test the planned questions, or say why not."""
    if not people.independent:
        advice = MIXED if people.counted == "people and sightings" else DEPENDENT
        return Content((advice,), values={"tested": False})
    if find_spec("statsmodels") is None:
        return Content(
            ("Nothing is tested: the extra `stats` is not installed (pip install 'maskbatch[stats]').",),
            values={"tested": False},
        )
    cells = _cells(people)
    clusters = len(np.unique(cells.cluster))
    questions = [q for q in ("camera", "hour of day", "weekday") if len(np.unique(cells.group(q))) > 1]
    yes, total = int(cells.correct.sum()), int(cells.people.sum())
    if clusters < LEAST_CLUSTERS or not questions or yes in (0, total):
        return Content(
            (
                f"Nothing is tested: {clusters} camera-days with a known time, at least {LEAST_CLUSTERS}, two groups and two outcomes are needed.",
            ),
            values={"tested": False},
        )
    return _tested(people, cells, questions, clusters)


def _tested(people: People, cells: _Cells, questions: list[str], clusters: int) -> Content:
    names = {
        "camera": [n or "unknown camera" for n in people.cameras],
        "hour of day": [b[2] for b in BANDS],
        "weekday": list(_DAYS),
    }
    tables = {q: two_way(*_compact(cells, q)) for q in questions}
    model, columns = _model(cells, questions, names, clusters)
    p_values, methods = [], []
    for question in questions:
        p, method = _p_value(cells, question, tables[question], model, columns)
        p_values.append(p)
        methods.append(method)
    adjusted = holm(p_values)
    sentences = [_sentence(q, p, tables[q]) for q, p in zip(questions, adjusted, strict=True)]
    rows = [
        (q, tables[q].cramers_v, method, p, a, tables[q].naive_p)
        for q, method, p, a in zip(questions, methods, p_values, adjusted, strict=True)
    ]
    shown = [
        Table(
            "The planned questions",
            ("question", "Cramér's V", "test", "p", "p, Holm", "naive chi-square (too small)"),
            ("text", "decimal", "text", "p", "p", "p"),
            tuple(rows),
        )
    ]
    if model is not None:
        shown.append(_odds(cells, model, columns, names, tables))
    notes = (
        f"The unit is a person; {clusters:,} camera-days are the clusters. GEE: logistic regression on all questions together with "
        "cluster-robust covariance (Mancl–DeRouen). Permutation where expected counts are small or groups too many. Holm over the questions. "
        "Residuals are standardised as if people were independent: they point at groups, they do not test them.",
    )
    values = {
        "tested": True,
        "clusters": clusters,
        "p": dict(zip(questions, p_values, strict=True)),
        "p_holm": dict(zip(questions, adjusted, strict=True)),
    }
    return Content((*sentences, CONCLUDE), tuple(shown), notes=notes, values=values)


def _cells(people: People) -> _Cells:
    known = (people.cell_slot >= 0) & (people.cell_count > 0)
    slot = people.cell_slot[known]
    hour_band = np.concatenate([np.full(end - begin, i) for i, (begin, end, _) in enumerate(BANDS)])
    camera, band = people.cell_camera[known], hour_band[slot % 24]
    weekday = (slot // 24 + people.epoch.weekday()) % 7
    cluster, correct, count = people.cell_cluster[known], people.cell_correct[known], people.cell_count[known]
    # Cells that differ in the hour only, within a band, are alike to every test here.
    _, first, index = np.unique(cluster * len(BANDS) + band, return_index=True, return_inverse=True)
    return _Cells(
        camera[first],
        band[first],
        weekday[first],
        cluster[first],
        np.bincount(index, correct),
        np.bincount(index, count),
    )


def _compact(cells: _Cells, question: str) -> tuple[Array, Array, Array]:
    group = np.unique(cells.group(question), return_inverse=True)[1]
    return group, cells.correct, cells.people


def _model(
    cells: _Cells, questions: list[str], names: dict[str, list[str]], clusters: int
) -> tuple[Logistic | None, dict[str, list[tuple[int, int]]]]:
    """The regression on all questions, and per question its (column, group); none where there are too many groups for the clusters."""
    parts, labels, columns = [np.ones((len(cells.people), 1))], ["intercept"], {}
    separated = False
    for question in questions:
        group = cells.group(question)
        totals = np.bincount(group, cells.people)
        yes = np.bincount(group, cells.correct)
        separated = separated or bool(((yes == 0) | (yes == totals))[totals > 0].any())
        indicator, levels = dummies(group, int(totals.argmax()))
        columns[question] = [(len(labels) + i, level) for i, level in enumerate(levels)]
        labels += [names[question][level] for level in levels]
        parts.append(indicator)
    if len(labels) > MOST_COEFFICIENTS or clusters < 2 * len(labels):
        return None, columns
    design = np.column_stack(parts)
    fit = firth if separated else gee
    return fit(design, tuple(labels), cells.correct, cells.people, cells.cluster), columns


def _p_value(
    cells: _Cells, question: str, table: Table2, model: Logistic | None, columns: dict[str, list[tuple[int, int]]]
) -> tuple[float, str]:
    if model is not None and not table.sparse:
        return model.joint_p([column for column, _ in columns[question]]), model.method
    if question == "hour of day":
        return permute_within(cells.band, cells.cluster, cells.correct, cells.people), "permutation within camera-days"
    return permute_clusters(*cells.clusters(question)), "permutation of camera-days"


def _sentence(question: str, p: float, table: Table2) -> str:
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    strength = "weak" if table.cramers_v < 0.1 else "moderate" if table.cramers_v < 0.3 else "strong"
    if p < ALPHA:
        return f"Correct wearing is associated with {question} ({shown} after Holm; {strength}, Cramér's V {table.cramers_v:.2f})."
    return f"No association with {question} is shown ({shown} after Holm)."


def _odds(
    cells: _Cells,
    model: Logistic,
    columns: dict[str, list[tuple[int, int]]],
    names: dict[str, list[str]],
    tables: dict[str, Table2],
) -> Table:
    from scipy.stats import t

    reach = float(t.ppf(0.975, max(1, model.clusters - len(model.log_odds))))
    error = np.sqrt(np.maximum(0, np.diag(model.covariance)))
    rows: list[tuple[Any, ...]] = []
    for question, pairs in columns.items():
        totals = np.bincount(cells.group(question), cells.people)
        place = {int(level): i for i, level in enumerate(np.unique(cells.group(question)))}
        reference = int(totals.argmax())
        rows.append(
            (
                question,
                f"{names[question][reference]} (reference)",
                int(totals[reference]),
                1.0,
                None,
                None,
                float(tables[question].residuals[place[reference]]),
            )
        )
        for column, level in pairs:
            b, e = float(model.log_odds[column]), float(error[column])
            low, high = np.exp(b - reach * e), np.exp(b + reach * e)
            rows.append(
                (
                    question,
                    names[question][level],
                    int(totals[level]),
                    float(np.exp(b)),
                    float(low),
                    float(high),
                    float(tables[question].residuals[place[level]]),
                )
            )
    head = ("question", "group", "people", "odds ratio", "low", "high", "residual")
    return Table(
        f"Odds ratios of correct wearing ({model.method})",
        head,
        ("text", "text", "integer", "decimal", "decimal", "decimal", "decimal"),
        tuple(rows),
    )
