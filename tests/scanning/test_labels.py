"""A classifier's own file says what it judges: two, three or four labels go through everything that a scan makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx_maker
import pyarrow.parquet as pq
import pytest
from red_squares import write_archive, write_voc

import maskbatch
from maskbatch.errors import ModelError
from maskbatch.results.reader import ResultReader

TWO = ("with_mask", "without_mask")
FOUR = ("cloth", "bare", "surgical", "shield")


def write_model(path: Path, labels: tuple[str, ...], *, name_labels: bool = True) -> str:
    path.write_bytes(onnx_maker.share_classifier(labels, name_labels=name_labels))
    return str(path)


def options(red_model: Path, classifier: str, **more: Any) -> dict[str, Any]:
    return {
        "detector": f"red:{red_model}",
        "classifier": classifier,
        "det_size": 320,
        "device": "cpu",
        "executor": "inline",
        **more,
    }


def cli(*words: object) -> str:
    command = [sys.executable, "-m", "maskbatch", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    return done.stdout


@pytest.mark.parametrize("labels", [TWO, FOUR], ids=["two", "four"])
def test_other_labels_go_all_the_way(labels: tuple[str, ...], red_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="needs the extra track")
    archive = write_archive(tmp_path / "in")
    model = write_model(tmp_path / "own.onnx", labels)
    out, drawn, crops = tmp_path / "results.parquet", tmp_path / "drawn", tmp_path / "crops"
    summary = maskbatch.scan(
        archive,
        out,
        **options(red_model, model, track=True, annotate=drawn, crops=crops, executor="processes", workers=2),
    )
    assert tuple(summary.labels) == labels
    assert sum(summary.labels.values()) == summary.faces >= 10
    # The table: a column per label, the dictionary, the metadata.
    schema = pq.read_schema(out)
    assert [name for name in schema.names if name.startswith("p_")] == [f"p_{label}" for label in labels]
    assert json.loads(schema.metadata[b"maskbatch"])["labels"] == list(labels)
    faces = maskbatch.read_results(out)
    assert set(faces["label"].cat.categories) <= set(labels)
    probabilities = faces[[f"p_{label}" for label in labels]]
    assert probabilities.sum(axis=1).round(5).eq(1).all()
    best = probabilities.to_numpy().argmax(axis=1)
    assert [labels[index] for index in best] == faces["label"].tolist()
    # Tracks vote among these labels.
    tracks = maskbatch.read_tracks(out)
    assert len(tracks) >= 1
    assert set(tracks["label"]) <= set(labels)
    # Crops lie in a folder per label, annotated copies beside.
    folders = {path.name for path in crops.iterdir()}
    assert folders == {label for label, count in summary.labels.items() if count}
    assert (drawn / "gate" / "2026-03-01_08-00-00.png").stat().st_size > 1000
    assert (drawn / "gate_20260301_100000.mkv.mp4").stat().st_size > 1000
    assert (summary.drawn, summary.not_drawn) == (6, {})
    # The summary counts them; the headline is who wears a mask, or the first label.
    found = maskbatch.summarize(out, by=("camera",))
    assert found.labels == labels
    assert found.headline == labels[0]
    assert found.total["count"] == sum(found.total[label] for label in labels)
    text = cli("summary", out, "--by", "camera", "--format", "csv").splitlines()
    assert text[0].split(",")[-len(labels) - 1 :] == [*labels, f"share_{labels[0]}"]


def test_four_labels_in_a_data_set(red_model: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "in", video=False)
    model = write_model(tmp_path / "own.onnx", FOUR)
    summary = maskbatch.scan(archive, f"{tmp_path}/set/", **options(red_model, model))
    reader = ResultReader(tmp_path / "set")
    assert reader.task.labels == FOUR
    assert [name for name in reader.read().column_names if name.startswith("p_")] == [f"p_{name}" for name in FOUR]
    assert maskbatch.summarize(f"{tmp_path}/set/", by=()).total["count"] == summary.faces


def test_evaluate_judges_by_the_labels_of_the_model(red_model: Path, tmp_path: Path) -> None:
    data = write_voc(tmp_path / "voc", {"blue": "with_mask", "green": "no-mask", "dark": "mask_weared_incorrect"})
    model = write_model(tmp_path / "own.onnx", TWO)
    words = ["--detector", f"red:{red_model}", "--classifier", model, "--det-size", 320, "--device", "cpu"]
    report = json.loads(cli("evaluate", data, *words, "--json"))
    assert report["setting"]["labels"] == list(TWO)
    (scores,) = report["detectors"]
    assert scores["confusion_columns"] == [*TWO, "missed"]
    # Two faces of each known label are right; the one whose label the model does not have counts neither way.
    assert scores["confusion"] == [[2, 0, 0], [0, 2, 0], [0, 0, 0]]


def test_three_outputs_without_names_are_the_mask_task(red_model: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "in", video=False)
    model = write_model(tmp_path / "own.onnx", ("a", "b", "c"), name_labels=False)
    summary = maskbatch.scan(archive, tmp_path / "r.parquet", **options(red_model, model))
    assert tuple(summary.labels) == ("with_mask", "without_mask", "mask_weared_incorrect")


def test_two_outputs_without_names_are_refused_with_the_way_to_name_them(red_model: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "in", video=False)
    model = write_model(tmp_path / "own.onnx", TWO, name_labels=False)
    with pytest.raises(ModelError, match=r"2 outputs and does not name its labels.*--labels a,b"):
        maskbatch.scan(archive, tmp_path / "r.parquet", **options(red_model, model))
    assert not (tmp_path / "r.parquet").exists()
