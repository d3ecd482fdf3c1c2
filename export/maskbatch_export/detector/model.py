"""The face detector: RetinaFace on MobileNetV1 x 0.25, as a functional Keras 3 model.

The network takes raw BGR values 0..255 (the mean is folded into the first batch norm, :mod:`.weights`) and returns one
tensor per stride: for every cell the face logits, box deltas and landmark deltas of its anchors. Only plain layers are used,
so that :mod:`.graph` can run the same layers in PyTorch and write them to ONNX.

RetinaFace: Deng et al. 2019, arXiv:1905.00641. SSH context module: Najibi et al. 2017, arXiv:1708.03979.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import layers

from maskbatch_export.detector.anchors import ANCHORS_PER_CELL

HEAD_CHANNELS = ANCHORS_PER_CELL * (1 + 4 + 10)

# (output channels, stride) of the depthwise-separable blocks behind the first convolution, by stage.
STAGES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)),
    ((128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1)),
    ((256, 2), (256, 1)),
)


@dataclass(frozen=True)
class Architecture:
    """What may be changed about the network.

    Attributes:
        stem: channels of the first convolution.
        neck: channels of the feature pyramid.
        merge: the 3x3 behind each addition of the pyramid: ``full``, ``separable`` or ``none``.
        context: channels of the context module's three branches (3x3, 5x5, 7x7), per stride.
        context_separable: whether the module's convolutions are depthwise separable, per stride.
        refine: blocks of the backbone (``1_3`` is stage 1, block 3) followed by a residual 3x3 convolution, which starts as zero.
    """

    stem: int = 8
    neck: int = 64
    merge: str = "full"
    context: tuple[tuple[int, int, int], ...] = ((32, 16, 16),) * 3
    context_separable: tuple[bool, ...] = (False, False, False)
    refine: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """The inverse of :meth:`to_dict`."""
        context = tuple((int(a), int(b), int(c)) for a, b, c in values["context"])
        return cls(
            stem=int(values["stem"]),
            neck=int(values["neck"]),
            merge=str(values["merge"]),
            context=context,
            context_separable=tuple(bool(v) for v in values["context_separable"]),
            refine=tuple(str(v) for v in values.get("refine", ())),
        )


def _axis() -> int:
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def _norm(x: Any, name: str, relu: bool) -> Any:
    x = layers.BatchNormalization(axis=_axis(), epsilon=1e-5, momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _pad(x: Any, stride: int, name: str) -> tuple[Any, str]:
    # Keras pads a stride-2 "same" convolution at the bottom right only; the starting weights want both sides.
    if stride == 1:
        return x, "same"
    return layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"


def _conv(x: Any, channels: int, name: str, kernel: int = 3, stride: int = 1, relu: bool = True) -> Any:
    x, padding = _pad(x, stride, name) if kernel > 1 else (x, "valid")
    x = layers.Conv2D(channels, kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    return _norm(x, name, relu)


def _depthwise(x: Any, name: str, stride: int = 1) -> Any:
    x, padding = _pad(x, stride, name)
    x = layers.DepthwiseConv2D(3, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    return _norm(x, name, relu=True)


def _separable(x: Any, channels: int, name: str, stride: int = 1, relu: bool = True) -> Any:
    x = _depthwise(x, f"{name}_depthwise", stride)
    return _conv(x, channels, f"{name}_pointwise", kernel=1, relu=relu)


def _refine(x: Any, channels: int, name: str) -> Any:
    y = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    # A zero scale makes the block the identity at first, so that the starting weights keep their worth.
    y = layers.BatchNormalization(
        axis=_axis(), epsilon=1e-5, momentum=0.9, gamma_initializer="zeros", name=f"{name}_bn"
    )(y)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def _context(x: Any, widths: tuple[int, int, int], separable: bool, name: str) -> Any:
    block = _separable if separable else _conv
    three, five, seven = widths
    branches = [block(x, three, f"{name}_three", relu=False)]
    if five:
        shared = block(x, five, f"{name}_shared")
        branches.append(block(shared, five, f"{name}_five", relu=False))
        if seven:
            deep = block(shared, seven, f"{name}_deep")
            branches.append(block(deep, seven, f"{name}_seven", relu=False))
    joined = layers.Concatenate(axis=_axis(), name=f"{name}_join")(branches) if len(branches) > 1 else branches[0]
    return layers.ReLU(name=f"{name}_relu")(joined)


def build_model(architecture: Architecture | None = None) -> keras.Model:
    """The detector as a functional model.

    Input: float32 BGR 0..255, ``(N, 3, H, W)`` or ``(N, H, W, 3)`` as ``keras.config.image_data_format()`` says, H and W multiples
    of 32. Output: a list of three tensors (strides 8, 16, 32) with 30 channels each: 2 face logits, 2 x 4 box deltas,
    2 x 10 landmark deltas.
    """
    architecture = architecture or Architecture()
    first = keras.config.image_data_format() == "channels_first"
    image = keras.Input((3, None, None) if first else (None, None, 3), name="images")
    x = _conv(image, architecture.stem, "stem", stride=2)
    levels = []
    for stage, blocks in enumerate(STAGES, start=1):
        for index, (channels, stride) in enumerate(blocks, start=1):
            x = _separable(x, channels, f"stage{stage}_{index}", stride)
            if f"{stage}_{index}" in architecture.refine:
                x = _refine(x, channels, f"refine{stage}_{index}")
        levels.append(x)

    neck = architecture.neck
    fine, middle, coarse = (_conv(x, neck, f"lateral{i}", kernel=1) for i, x in enumerate(levels, start=1))

    def merge(lateral: Any, below: Any, name: str) -> Any:
        raised = layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_raise")(below)
        x = layers.Add(name=f"{name}_add")([lateral, raised])
        if architecture.merge == "none":
            return x
        return (_conv if architecture.merge == "full" else _separable)(x, neck, name)

    middle = merge(middle, coarse, "merge2")
    fine = merge(fine, middle, "merge1")
    outputs = []
    for i, level in enumerate((fine, middle, coarse), start=1):
        seen = _context(level, architecture.context[i - 1], architecture.context_separable[i - 1], f"context{i}")
        outputs.append(layers.Conv2D(HEAD_CHANNELS, 1, name=f"head{i}")(seen))
    return keras.Model(image, outputs, name="retinaface")
