"""Lighter classifiers: pruned ones, teachers as ONNX files, and the half-width network."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from maskbatch_export.classifier.distil import Teachers, shrink
from maskbatch_export.classifier.prune import _choose, prune
from maskbatch_export.onnx_files import OnnxClassifier

from maskbatch.errors import ModelError
from maskbatch.models import find_model

PACKAGED = find_model("mask_mobilenet_v2", "classifier").path
RNG = np.random.default_rng(1)
CROPS = RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def test_the_channels_that_rebuild_the_output_are_kept() -> None:
    base = RNG.normal(size=(400, 3)).astype(np.float32)
    noise = RNG.normal(size=(400, 5)).astype(np.float32)
    hidden = np.concatenate([noise[:, :2], base, noise[:, 2:]], axis=1)
    wanted = base @ RNG.normal(size=(3, 4)).astype(np.float32) + 2
    chosen, weights, bias = _choose(hidden, wanted, 3)
    assert chosen.tolist() == [2, 3, 4]
    np.testing.assert_allclose(hidden[:, chosen] @ weights + bias, wanted, atol=0.02)


def test_a_pruned_file_is_smaller_and_a_classifier_of_smaller_crops(tmp_path: Path) -> None:
    small = CROPS[:, ::2, ::2]
    lines: list[str] = []
    pruned = prune(onnx.load(PACKAGED), np.ascontiguousarray(small), CROPS, 0.75, lines.append)
    onnx.save(pruned, tmp_path / "small.onnx")
    model = OnnxClassifier(tmp_path / "small.onnx")
    assert model.size == 64
    assert model.labels == OnnxClassifier(PACKAGED).labels
    assert len(lines) == 16
    assert "block 1: 72 of 96 channels" in lines[0]
    np.testing.assert_allclose(model.predict(small).sum(1), 1, atol=1e-5)
    assert (tmp_path / "small.onnx").stat().st_size < 0.87 * PACKAGED.stat().st_size


def test_other_networks_are_not_pruned() -> None:
    detector = onnx.load(find_model("retinaface", "detector").path)
    with pytest.raises(ModelError):
        prune(detector, CROPS, CROPS, 0.5)


def test_an_onnx_teacher_answers_as_the_file_does() -> None:
    teachers = Teachers([PACKAGED], 1.0)
    assert teachers.size == 128
    images = CROPS.astype(np.float32) / np.float32(127.5) - 1
    targets = np.full((len(CROPS), 3), 1 / 3, np.float32)
    np.testing.assert_allclose(teachers(images, targets), OnnxClassifier(PACKAGED).predict(CROPS), atol=1e-5)
    assert shrink(images, 96).shape == (len(CROPS), 96, 96, 3)
    assert shrink(images, 128) is images
    assert Teachers([], 0.7).size is None


@pytest.mark.shared
def test_the_half_width_network_begins_with_the_strongest_channels() -> None:
    from maskbatch_export.classifier import architectures
    from maskbatch_export.classifier.backbones import load_torchvision, mobilenet_v2

    folder = Path(os.environ.get("MASKBATCH_SHARED") or Path(__file__).parents[3] / "shared")
    path = folder / "weights" / "imagenet_mobilenet_v2.npz"
    if not path.exists():
        pytest.skip(f"needs ImageNet weights, which are not at {path} (set MASKBATCH_SHARED)")
    model = architectures.build("mobilenet-v2-half", 96, start=path)
    assert model.count_params() < 800_000
    wide = mobilenet_v2(None)
    load_torchvision(wide, path)
    gamma = np.abs(wide.get_layer("stem_conv_bn").get_weights()[0])
    kept = np.abs(model.get_layer("backbone").get_layer("stem_conv_bn").get_weights()[0])
    assert len(kept) == 16
    # The stem shares its channels with the first depthwise layer, so the sum of both decides; most of the strongest are among them.
    assert kept.mean() > gamma.mean()
