"""Which anchor learns which face, and the losses.

Assignment follows TOOD (Feng et al. 2021, arXiv:2108.07755): anchors are ranked per face by score^a x IoU^b, the best learn it, and
the score they learn is the IoU they reach, so that the ranking of detections knows about localisation. Scores: cross-entropy with
a focal factor on the background alone (as in VarifocalNet, Zhang et al. 2021, arXiv:2008.13367). Boxes: EIoU (Zhang et al. 2021, arXiv:2101.08158).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from maskbatch_export.detector.anchors import ANCHORS_PER_CELL, VARIANCES
from maskbatch_export.detector.augment import Crop


@dataclass(frozen=True)
class LossSettings:
    """Weights and assignment.

    Attributes:
        alpha: exponent of the score in the ranking.
        beta: exponent of the IoU in the ranking.
        top: anchors that learn one face.
        reach: a candidate's side is at most this factor away from the face's.
        box: weight of the box loss.
        landmark: weight of the landmark loss.
        gamma: exponent of the focal factor.
        crowd: a crop with more faces counts less, by the root of the excess, so that crowds of specks do not rule the training.
    """

    alpha: float = 0.5
    beta: float = 4.0
    top: int = 9
    reach: float = 2.6
    box: float = 2.0
    landmark: float = 0.1
    gamma: float = 2.0
    crowd: int = 25


def flatten(heads: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits ``(N, A)``, deltas ``(N, A, 4)`` and landmark deltas ``(N, A, 10)`` from the model's NCHW heads, float32."""
    parts = []
    for head in heads:
        rows = head.permute(0, 2, 3, 1).float()
        n = len(rows)
        logits, boxes, points = rows.split([ANCHORS_PER_CELL, ANCHORS_PER_CELL * 4, ANCHORS_PER_CELL * 10], -1)
        parts.append((logits.reshape(n, -1), boxes.reshape(n, -1, 4), points.reshape(n, -1, 10)))
    logits, boxes, points = (torch.cat(p, 1) for p in zip(*parts, strict=True))
    return logits, boxes, points


def decode(deltas: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Boxes x1 y1 x2 y2 ``(..., 4)``; see :func:`.anchors.decode_boxes`."""
    centre = anchors[..., :2] + deltas[..., :2] * VARIANCES[0] * anchors[..., 2:]
    half = anchors[..., 2:] * torch.exp((deltas[..., 2:] * VARIANCES[1]).clamp(max=6.0)) / 2
    return torch.cat([centre - half, centre + half], -1)


def paired_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU ``(n,)`` of boxes ``(n, 4)`` with their partners ``(n, 4)``."""
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(-1)
    whole = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - common
    return common / whole.clamp(min=1e-6)


def eiou_loss(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - IoU plus the squared differences of centre, width and height over those of the enclosing box, ``(n,)``."""
    low, high = torch.minimum(predicted[:, :2], truth[:, :2]), torch.maximum(predicted[:, 2:], truth[:, 2:])
    span = (high - low).clamp(min=1e-6)
    centres = (predicted[:, :2] + predicted[:, 2:] - truth[:, :2] - truth[:, 2:]) / 2
    sides = (predicted[:, 2:] - predicted[:, :2]) - (truth[:, 2:] - truth[:, :2])
    far = centres.pow(2).sum(-1) / span.pow(2).sum(-1)
    return 1 - paired_iou(predicted, truth) + far + (sides / span).pow(2).sum(-1)


@dataclass(frozen=True)
class Targets:
    """What the anchors of one image learn: ``score`` (A,), ``learns`` (A,) whether its score counts; and for the positive
    anchors ``index``: their ``face`` in the crop and the ``weight`` of their boxes, 1 for the best of each face."""

    score: torch.Tensor
    learns: torch.Tensor
    index: torch.Tensor
    face: torch.Tensor
    weight: torch.Tensor


@torch.no_grad()
def assign(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    anchors: torch.Tensor,
    faces: torch.Tensor,
    ignored: torch.Tensor,
    settings: LossSettings,
) -> Targets:
    """Targets of one image from its current scores ``(A,)`` and decoded boxes ``(A, 4)``."""
    count = len(anchors)
    score = torch.zeros(count)
    learns = torch.ones(count, dtype=torch.bool)
    none = torch.zeros(0, dtype=torch.long)
    x, y, side = anchors[:, 0], anchors[:, 1], anchors[:, 2]
    if ignored.any():
        for box in faces[ignored]:
            learns &= ~((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3]))
    real = torch.nonzero(~ignored)[:, 0]
    if not len(real):
        return Targets(score, learns, none, none, torch.zeros(0))
    targets = faces[real]
    centre = (targets[:, :2] + targets[:, 2:]) / 2
    # A face smaller than the grid may hold no anchor centre: every face reaches at least 6 pixels around its centre.
    half = ((targets[:, 2:] - targets[:, :2]) / 2).clamp(min=6.0)
    size = (targets[:, 2:] - targets[:, :2]).clamp(min=1).prod(-1).sqrt()
    fits = ((x - centre[:, :1]).abs() < half[:, :1]) & ((y - centre[:, 1:]).abs() < half[:, 1:])
    ratio = (side[None] / size.clamp(8.0, 300.0)[:, None]).log().abs()
    fits &= ratio < float(np.log(settings.reach))
    owner, anchor = torch.nonzero(fits, as_tuple=True)
    if not len(owner):
        return Targets(score, learns, none, none, torch.zeros(0))
    iou = paired_iou(boxes[anchor], targets[owner])
    rank = (scores[anchor].clamp(min=1e-4) ** settings.alpha) * iou**settings.beta
    # Rows of pairs are grouped by face; keep the best of each group.
    dense = torch.full((len(targets), int(fits.sum(1).max())), -1.0)
    place = torch.arange(len(owner)) - torch.cumsum(fits.sum(1), 0)[owner] + fits.sum(1)[owner]
    dense[owner, place] = rank
    keep = min(settings.top, dense.shape[1])
    floor = dense.topk(keep, 1).values[:, -1]
    chosen = (rank >= floor[owner]) & (rank > 0)
    owner, anchor, iou, rank = owner[chosen], anchor[chosen], iou[chosen], rank[chosen]
    # An anchor wanted by two faces takes the one it overlaps more.
    best = torch.zeros(count).scatter_reduce(0, anchor, iou, "amax")
    wins = iou >= best[anchor]
    owner, anchor, iou, rank = owner[wins], anchor[wins], iou[wins], rank[wins]
    top_rank = torch.zeros(len(targets)).scatter_reduce(0, owner, rank, "amax")
    top_iou = torch.zeros(len(targets)).scatter_reduce(0, owner, iou, "amax")
    weight = rank / top_rank[owner].clamp(min=1e-9)
    score[anchor] = weight * top_iou[owner]
    learns[anchor] = True
    return Targets(score, learns, anchor, real[owner], weight)


def distillation_loss(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How far the scores are from a teacher's, so that what it knew is not forgotten (Li and Hoiem 2016, arXiv:1606.09282).

    Cross-entropy weighted by the squared difference, as in quality focal loss (Li et al. 2020, arXiv:2006.04388), over the
    sum of the teacher's scores.

    Args:
        logits: ``(N, A)``.
        teacher: ``(N, A)`` scores in 0…1.
    """
    apart = (logits.sigmoid() - teacher).abs().pow(2)
    loss = F.binary_cross_entropy_with_logits(logits, teacher, reduction="none") * apart
    return loss.sum() / teacher.sum().clamp(min=1.0)


def detection_loss(
    heads: Sequence[torch.Tensor], crops: Sequence[Crop], anchors: torch.Tensor, settings: LossSettings
) -> tuple[torch.Tensor, dict[str, float]]:
    """Total loss of a batch and its parts."""
    logits, deltas, points = flatten(heads)
    scores = logits.detach().sigmoid()
    decoded = decode(deltas.detach(), anchors)
    target, learns = torch.zeros_like(logits), torch.ones_like(logits)
    rows, index, wanted, marks, weights = [], [], [], [], []
    for i, crop in enumerate(crops):
        found = assign(
            scores[i], decoded[i], anchors, torch.from_numpy(crop.boxes), torch.from_numpy(crop.ignored), settings
        )
        worth = min(1.0, (settings.crowd / max(1, len(found.face.unique()))) ** 0.5)
        target[i], learns[i] = found.score, found.learns.float() * worth
        rows.append(torch.full_like(found.index, i))
        index.append(found.index)
        wanted.append(torch.from_numpy(crop.boxes)[found.face])
        marks.append(torch.from_numpy(crop.landmarks)[found.face])
        weights.append(found.weight * worth)
    row, anchor = torch.cat(rows), torch.cat(index)
    truth, mark, weight = torch.cat(wanted), torch.cat(marks), torch.cat(weights)
    total = weight.sum().clamp(min=1.0)
    # Positives count in full: a focal factor on them, whose targets are small for small faces, starves just those.
    focal = torch.where(target > 0, torch.ones_like(logits), logits.sigmoid().pow(settings.gamma))
    score_loss = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * focal * learns).sum() / total
    prior = anchors[anchor]
    box_loss = (eiou_loss(decode(deltas[row, anchor], prior), truth) * weight).sum() / total
    known = ~mark.isnan().flatten(1).any(1)
    wish = (mark[known] - prior[known][:, None, :2]) / (VARIANCES[0] * prior[known][:, None, 2:])
    off = F.smooth_l1_loss(points[row[known], anchor[known]], wish.flatten(1), reduction="none").mean(-1)
    mark_loss = (off * weight[known]).sum() / weight[known].sum().clamp(min=1.0)
    loss = score_loss + settings.box * box_loss + settings.landmark * mark_loss
    parts = {
        "score": float(score_loss.detach()),
        "box": float(box_loss.detach()),
        "landmark": float(mark_loss.detach()),
    }
    return loss, parts
