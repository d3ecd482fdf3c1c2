"""Assignment, losses and the training step. Needs PyTorch, which is not among the training package's dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training the detector needs PyTorch")

from maskbatch_export.detector.anchors import make_anchors  # noqa: E402
from maskbatch_export.detector.augment import Crop  # noqa: E402
from maskbatch_export.detector.loss import (  # noqa: E402
    LossSettings,
    assign,
    detection_loss,
    distillation_loss,
    eiou_loss,
    flatten,
    paired_iou,
)

SIZE = 128
ANCHORS = torch.from_numpy(make_anchors(SIZE, SIZE))
PRIORS = torch.cat([ANCHORS[:, :2] - ANCHORS[:, 2:] / 2, ANCHORS[:, :2] + ANCHORS[:, 2:] / 2], -1)


def targets(faces: list[list[float]], ignored: list[bool] | None = None):  # type: ignore[no-untyped-def]
    skip = torch.tensor(ignored or [False] * len(faces), dtype=torch.bool)
    return assign(
        torch.full((len(ANCHORS),), 0.1), PRIORS, ANCHORS, torch.tensor(faces).reshape(-1, 4), skip, LossSettings()
    )


def test_every_face_is_learned_by_anchors_of_its_size_and_place() -> None:
    faces = [[10.0, 10.0, 22.0, 24.0], [40.0, 40.0, 100.0, 110.0], [60.0, 5.0, 66.0, 12.0]]
    found = targets(faces)
    assert set(found.face.tolist()) == {0, 1, 2}
    for anchor, face in zip(found.index.tolist(), found.face.tolist(), strict=True):
        x1, y1, x2, y2 = faces[face]
        x, y, side, _ = ANCHORS[anchor].tolist()
        assert min(x1, (x1 + x2) / 2 - 6) < x < max(x2, (x1 + x2) / 2 + 6)
        assert min(y1, (y1 + y2) / 2 - 6) < y < max(y2, (y1 + y2) / 2 + 6)
        assert 1 / 2.7 < side / max(8, ((x2 - x1) * (y2 - y1)) ** 0.5) < 2.7


def test_best_anchor_learns_the_overlap_it_reaches() -> None:
    face = [[34.0, 34.0, 64.0, 66.0]]
    found = targets(face)
    reached = paired_iou(PRIORS[found.index], torch.tensor(face).expand(len(found.index), 4))
    assert found.score.max() == pytest.approx(reached.max().item())
    assert found.weight.max() == 1.0
    assert (found.score > 0).sum() == len(found.index)


def test_ignored_face_teaches_nothing_and_is_no_background() -> None:
    found = targets([[40.0, 40.0, 80.0, 80.0]], [True])
    assert len(found.index) == 0
    inside = (ANCHORS[:, 0] > 40) & (ANCHORS[:, 0] < 80) & (ANCHORS[:, 1] > 40) & (ANCHORS[:, 1] < 80)
    assert not found.learns[inside].any()
    assert found.learns[~inside].all()


def test_crop_without_faces_is_all_background() -> None:
    found = targets([])
    assert found.learns.all()
    assert found.score.sum() == 0


def test_box_loss_is_zero_for_the_same_box_and_grows_with_distance() -> None:
    truth = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    losses = [float(eiou_loss(truth + shift, truth)) for shift in (0, 5, 15, 60)]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses == sorted(losses)
    assert losses[-1] > 1, "boxes that do not touch still get a direction"


def test_flattened_heads_follow_the_anchors() -> None:
    heads = [torch.zeros(1, 30, SIZE // s, SIZE // s) for s in (8, 16, 32)]
    heads[1][0, 1, 2, 3] = 7.0
    heads[1][0, 2 + 4 + 3, 2, 3] = 5.0
    logits, deltas, _ = flatten(heads)
    anchor = int(logits[0].argmax())
    assert ANCHORS[anchor].tolist() == [3.5 * 16, 2.5 * 16, 64, 64]
    assert deltas[0, anchor].tolist() == [0, 0, 0, 5]


def test_descending_the_loss_finds_the_face() -> None:
    box = np.array([[30, 40, 62, 78]], np.float32)
    marks = np.array([[[38, 52], [54, 52], [46, 60], [40, 68], [52, 68]]], np.float32)
    crops = [Crop(np.zeros((SIZE, SIZE, 3), np.uint8), box, np.zeros(1, bool), marks)]
    heads = [torch.zeros(1, 30, SIZE // s, SIZE // s, requires_grad=True) for s in (8, 16, 32)]
    optimizer = torch.optim.Adam(heads, lr=0.2)
    for _ in range(150):
        loss, _ = detection_loss(heads, crops, ANCHORS, LossSettings())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    from maskbatch_export.detector.anchors import decode_boxes, decode_landmarks

    logits, deltas, points = (v[0].detach().numpy() for v in flatten(heads))
    best = logits.argmax()
    np.testing.assert_allclose(decode_boxes(deltas[best], ANCHORS[best].numpy()), box[0], atol=1.0)
    np.testing.assert_allclose(decode_landmarks(points[best], ANCHORS[best].numpy()), marks[0], atol=1.5)
    assert (logits > 0).sum() < 20


def test_distillation_is_zero_where_the_scores_agree_and_counts_only_where_they_differ() -> None:
    logits = torch.tensor([[-6.0, -1.0, 0.5, 4.0]])
    teacher = logits.sigmoid()
    assert float(distillation_loss(logits, teacher)) == pytest.approx(0, abs=1e-7)
    moved = teacher.clone()
    moved[0, 2] = 0.9
    student = logits.clone().requires_grad_()
    distillation_loss(student, moved).backward()
    assert student.grad is not None
    assert student.grad[0, 2] < 0, "a step against the gradient raises the score towards the teacher's"
    assert student.grad[0, [0, 1, 3]].abs().max() < 1e-6


def test_distillation_falls_with_every_step_towards_the_teacher() -> None:
    generator = torch.Generator().manual_seed(0)
    start, goal = (torch.randn(2, 300, generator=generator) * 3 for _ in range(2))
    losses = [float(distillation_loss(start + (goal - start) * t, goal.sigmoid())) for t in (0, 0.25, 0.5, 0.75, 1)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0.1
    assert losses[-1] == pytest.approx(0, abs=1e-6)
    student = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        distillation_loss(student, goal.sigmoid()).backward()
        optimizer.step()
    assert float(distillation_loss(student.detach(), goal.sigmoid())) < 0.01 * losses[0]


def test_distillation_of_a_teacher_that_sees_nothing_stays_finite() -> None:
    logits = torch.tensor([[3.0, -9.0]])
    loss = float(distillation_loss(logits, torch.zeros(1, 2)))
    assert 0 < loss < 10


RUNNER = """
import keras, numpy as np, torch
keras.config.set_image_data_format("channels_first")
from maskbatch_export.detector.model import Architecture, build_model
from maskbatch_export.detector.runner import Runner
model = build_model(Architecture(stem=16, refine=("1_3",)))
runner = Runner(model)
pictures = torch.rand(2, 3, 64, 96) * 255
with torch.no_grad():
    for ours, keras_own in zip(runner(pictures), model(pictures, training=False)):
        assert torch.allclose(ours, keras_own, rtol=1e-3, atol=1e-3), (ours - keras_own).abs().max()
runner.training = True
before = model.get_layer("stem_bn").moving_mean.numpy().copy()
sum(h.pow(2).mean() for h in runner(pictures)).backward()
missing = [v.path for v in model.trainable_variables if v.value.grad is None]
assert not missing, missing
assert (model.get_layer("stem_bn").moving_mean.numpy() != before).any()
print("same")
"""


def test_runner_computes_what_keras_computes_and_trains_its_variables() -> None:
    # Keras chooses its backend once per process, and the other tests may have chosen another.
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", RUNNER], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr
