"""An audit: what the sample is, that answers alone enter it, and that its intervals hold what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_review_faces import face, faces_of
from toy_scan import toy_scan

from maskbatch import read_results
from maskbatch.draw.originals import Originals
from maskbatch.errors import InputError, UsageError
from maskbatch.report.make import ReportOptions, make_report
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import Correction
from maskbatch.results.reader import ResultReader
from maskbatch.results.summary import summarize
from maskbatch.review.app import Review
from maskbatch.review.audit import Audit, units_of, write_audit
from maskbatch.review.estimates import Sample, allocate, estimate, interval_of_ratio
from maskbatch.review.faces import Decisions, read_faces
from maskbatch.review.images import Images
from maskbatch.review.recall import FrameSample
from maskbatch.review.serve import estimates, open_audit


def archive(folder: Path, people: int = 400, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    labels = ("with_mask", "without_mask", "mask_weared_incorrect")
    rows = []
    for at in range(people):
        label = labels[int(rng.choice(3, p=(0.7, 0.22, 0.08)))]
        camera = "gate" if rng.random() < 0.6 else "yard"
        rows.append(face(at, label=label, camera=camera, confidence=float(rng.uniform(0.5, 0.99)), face=0))
    return faces_of(folder, *rows)


def test_sample_is_stratified_seeded_and_a_larger_one_holds_it(tmp_path: Path) -> None:
    faces = archive(tmp_path)
    small, same, large = Audit(faces, 60), Audit(faces, 60), Audit(faces, 120)
    assert small.rows.tolist() == same.rows.tolist()
    assert set(small.rows) <= set(large.rows)
    assert set(small.rows) != set(Audit(faces, 60, seed=1).rows)
    drawn = {(int(faces.camera[row]), int(faces.label[row])) for row in small.rows}
    assert len(drawn) == 6, "every camera and label is in it"


def test_people_are_sampled_where_the_scan_followed_them(tmp_path: Path) -> None:
    rows = [face(at, track=at // 10, label="with_mask" if at % 10 else "without_mask") for at in range(100)]
    rows.append(face(200, source="z.jpg", media="image", frame=None, time_s=None, track=None))
    units = units_of(faces_of(tmp_path, *rows))
    assert len(units.row) == 11
    assert units.people
    assert (units.label == 0).all(), "a person's label is the vote of the sightings"


def test_only_answers_of_audits_enter(tmp_path: Path) -> None:
    faces = archive(tmp_path)
    result = str(tmp_path / "results.parquet")
    log = ResultReader(result).corrections_path
    reviewed = Decisions(faces, log)
    for row in range(100):
        reviewed.decide([row], "not_a_face")
    assert estimates(result, 60)["answers"] == 0
    audit = Audit(faces, 60)
    answers = Decisions(faces, log, origin="audit:0")
    for row in audit.rows[:30]:
        answers.decide([int(row)], "label", faces.task.labels[faces.label[row]])
    found = estimates(result, 60)
    assert (found["answers"], found["asked"], found["population"]) == (30, len(audit.rows), 400)
    assert found["estimate"]["low"] <= found["by_model"] <= found["estimate"]["high"]
    assert {item["camera"] for item in found["cameras"]} == {"gate", "yard"}
    assert sum(map(sum, found["confusion"])) == pytest.approx(400, rel=0.1)
    assert all(record.origin in ("review", "audit:0") for record in CorrectionLog(log).read())


def test_sample_of_a_result_that_changed_is_refused(tmp_path: Path) -> None:
    faces = archive(tmp_path)
    result = ResultReader(tmp_path / "results.parquet")
    write_audit(result.audit_path, open_audit(result, faces, 60, 3), faces, 60)
    assert open_audit(result, faces, 60, None).seed == 3
    with pytest.raises(UsageError, match="--seed 3"):
        open_audit(result, faces, 60, 4)
    with pytest.raises(UsageError, match="begin anew"):
        open_audit(result, archive(tmp_path, people=300), 60, None)


def test_nothing_answered_gives_no_estimate_and_a_census_has_no_doubt(tmp_path: Path) -> None:
    faces = archive(tmp_path, people=50)
    audit = Audit(faces, 1000)
    assert audit.estimates(faces)["estimate"] is None
    answers = Decisions(faces, tmp_path / "c.csv", origin="audit:0")
    for row in audit.rows:
        answers.decide([int(row)], "label", "with_mask")
    whole = audit.estimates(faces)["estimate"]
    assert whole["value"] == 1.0
    assert whole["high"] - whole["low"] < 0.01


def population(rng: np.random.Generator, cameras: int, accuracy: tuple[float, ...], count: int = 20_000) -> Any:
    """Cameras that differ, a model that errs where it is unsure, and detections that are no faces."""
    camera = rng.integers(0, cameras, count)
    worn = rng.random(count) < 1 / (1 + np.exp(-rng.normal(1.2, 0.5, cameras)[camera]))
    truth = np.where(worn, 0, np.where(rng.random(count) < 0.75, 1, 2))
    hard = rng.beta(1, 8, count)
    wrong = rng.random(count) < (1 - np.array(accuracy)[truth]) * hard * 9
    label = np.where(wrong, (truth + rng.integers(1, 3, count)) % 3, truth)
    confidence = np.clip(1 - hard * rng.uniform(0.5, 1, count), 0.34, 1)
    real = rng.random(count) > 0.02
    return camera, label, np.where(label == 0, confidence, (1 - confidence) / 2), (truth == 0) & real, real


def simulated(
    rng: np.random.Generator, answers: int, cameras: int, accuracy: tuple[float, ...]
) -> tuple[bool, float, float]:
    camera, label, prediction, positive, real = population(rng, cameras, accuracy)
    _, stratum = np.unique(camera * 3 + label, return_inverse=True)
    sizes = np.bincount(stratum)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(stratum == at))[:n] for at, n in enumerate(allocate(sizes, answers))]
    )
    means = np.bincount(stratum, prediction) / sizes
    found = estimate(
        Sample(stratum[chosen], label[chosen], sizes, prediction[chosen], means, positive[chosen], real[chosen])
    )
    assert found is not None
    right = positive.sum() / real.sum()
    return bool(found.low <= right <= found.high), found.half_width, found.labels_only


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cameras", "accuracy"), [(1, (0.97, 0.94, 0.85)), (10, (0.97, 0.94, 0.85)), (5, (0.8, 0.7, 0.6))]
)
def test_intervals_of_a_thousand_audits_hold_the_truth(cameras: int, accuracy: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    found = [simulated(rng, 300, cameras, accuracy) for _ in range(1000)]
    covered = np.mean([item[0] for item in found])
    narrower = np.mean([item[1] for item in found]) / np.mean([item[2] for item in found])
    print(
        f"{cameras} cameras, accuracy {accuracy}: coverage {covered:.3f}, width {narrower:.2f} of that of the answers alone"
    )
    assert 0.93 <= covered <= 0.97
    assert narrower < (0.55 if accuracy[0] > 0.9 else 0.95)


def test_power_tuning_agrees_with_ppi_python() -> None:
    ppi = pytest.importorskip("ppi_py", reason="needs ppi-python")
    rng = np.random.default_rng(2)
    _, _, prediction, positive, _ = population(rng, 1, (0.9, 0.8, 0.8))
    chosen = rng.permutation(len(prediction))[:400]
    rest = np.setdiff1d(np.arange(len(prediction)), chosen)
    judge = ppi.ppi_mean_pointestimate(positive[chosen].astype(float), prediction[chosen], prediction[rest])
    own = estimate(
        Sample(
            np.zeros(400, int),
            np.zeros(400, int),
            np.array([len(prediction)]),
            prediction[chosen],
            np.array([prediction.mean()]),
            positive[chosen],
            np.ones(400, bool),
        )
    )
    assert own is not None
    low, high = ppi.ppi_mean_ci(positive[chosen].astype(float), prediction[chosen], prediction[rest], alpha=0.05)
    assert own.value == pytest.approx(float(np.ravel(judge)[0]), abs=0.004)
    assert own.high - own.low == pytest.approx(float(np.ravel(high - low)[0]), rel=0.1)


def test_report_and_summary_show_audited_and_corrected_numbers_as_such(tmp_path: Path) -> None:
    faces = archive(tmp_path)
    result = tmp_path / "results.parquet"
    reader = ResultReader(result)
    assert "Audit and corrections" not in make_report(result, "md")
    audit = open_audit(reader, faces, 60, None)
    answers = Decisions(faces, reader.corrections_path, origin="audit:0")
    for row in audit.rows:
        answers.decide([int(row)], "label", "without_mask")
    answers.draw(Correction("a.mp4", (300, 10, 340, 60), "missed", "with_mask", 7, 7.0))
    write_audit(reader.audit_path, audit, faces, 60)
    text = make_report(result, "md", ReportOptions(corrections=True))
    assert f"{len(audit.rows) + 1} decisions of people applied" in text
    assert "Audited: with\\_mask 0.0%" in text
    assert "Audited share" in text
    assert "Audited" not in make_report(result, "md", ReportOptions(public=True))
    assert summarize(result, ()).total["count"] == 400
    corrected = summarize(result, (), corrections=True).total
    assert corrected["count"] == 401
    assert corrected["without_mask"] > summarize(result, ()).total["without_mask"] + 30


def test_recall_comes_from_random_frames_also_those_without_faces(tmp_path: Path) -> None:
    result = toy_scan(tmp_path)
    reader = ResultReader(result)
    faces = read_faces(reader)
    originals = Originals(reader.run())
    frames = FrameSample(reader.inputs(), faces, originals, 100, 0)
    assert (len(frames), frames.population) == (11, 11), "six frames of the video and five images were looked at"
    assert sum(len(frames.rows(number)) for number in range(11)) == len(faces) == 13
    assert [frame.source for frame in FrameSample(reader.inputs(), faces, originals, 4, 0).frames] == [
        frame.source for frame in frames.frames[:4]
    ]
    audit = Audit(faces, 100)
    decisions = Decisions(faces, reader.corrections_path, origin="audit:0")
    images = Images(faces, originals)
    review = Review(faces, decisions, images, "r", audit, frames)
    assert review.estimates()["recall"]["estimate"] is None
    empty = next(at for at in range(11) if not len(frames.rows(at)))
    review.draw_in_frame({"frame": empty, "box": [10, 10, 60, 70], "label": 0})
    for number in range(11):
        shown = review.check({"frame": number})
        assert shown["checked"]
        assert (shown["width"], shown["height"]) == (320, 192)
    found = review.estimates()["recall"]
    assert (found["checked"], found["found"], found["missed"]) == (11, 13, 1)
    assert found["estimate"]["value"] == pytest.approx(13 / 14, abs=1e-4)
    again = estimates(str(result), 100)["recall"]
    assert (again["asked"], again["checked"], again["missed"]) == (11, 11, 1), "it is read back from the log"
    assert len(read_results(result, corrections=True)) == 14


def test_recall_interval_holds_the_truth_in_simulated_audits() -> None:
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(400):
        people = rng.poisson(rng.choice([0.2, 1.5, 6.0], 3000))
        found = rng.binomial(people, np.where(people > 3, 0.85, 0.95))
        chosen = rng.permutation(3000)[:120]
        share = interval_of_ratio(found[chosen].astype(float), people[chosen].astype(float), 3000)
        assert share is not None
        covered.append(share.low <= found.sum() / people.sum() <= share.high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_frame_that_cannot_be_found_is_left_out(tmp_path: Path) -> None:
    result = toy_scan(tmp_path)
    reader = ResultReader(result)
    frames = FrameSample(
        reader.inputs(), read_faces(reader), Originals({"roots": {"x": str(tmp_path / "gone")}}), 20, 0
    )
    decisions = Decisions(read_faces(reader), reader.corrections_path, origin="audit:0")
    assert frames.estimate(decisions)["checked"] == 0
    video = next(at for at, frame in enumerate(frames.frames) if frame.media == "video")
    with pytest.raises(InputError, match="not where the scan found it"):
        frames.image(video)
