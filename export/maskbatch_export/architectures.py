"""The classifier's networks, in Keras 3 layers that every backend has.

All of them take 128×128 BGR pictures scaled to -1…1 (``x / 127.5 - 1``) and give three probabilities in the order of
`CLASSES`. BGR, because that is what the decoders of the scan deliver: ported ImageNet weights get the channels of their
first convolution turned round once, here, in place of every crop of every scan.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from maskbatch.classify.crops import CROP_SIZE
from maskbatch.errors import ModelError, UsageError
from maskbatch.types import LABELS

if TYPE_CHECKING:
    import keras

CLASSES = LABELS
ArchitectureName = Literal["mobilenet-v2", "mobilenet-v2-flat", "small-cnn"]
ARCHITECTURES: tuple[str, ...] = get_args(ArchitectureName)

# Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2: expansion, channels, repeats, stride.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
BACKBONE = "mobilenet_v2"


def build(
    name: str, size: int | None = CROP_SIZE, dropout: float = 0.5, start: str | Path | None = None
) -> keras.Model:
    """A compiled-free model, size×size×3 (BGR, -1…1) to three probabilities.

    Args:
        name: one of `ARCHITECTURES`.
        size: side of the input; None, for any side, is possible with the globally pooled heads.
        dropout: before the last layer.
        start: where a MobileNetV2 begins: an ``.npz`` file of torchvision's arrays by name, ``"keras"`` for the weights
            that Keras downloads, a ``.keras`` file of an earlier run of the same architecture to go on from, or None for
            random numbers.

    Raises:
        ModelError: an unknown name, or weights that do not fit.
    """
    import keras

    if name not in ARCHITECTURES:
        raise UsageError(f"unknown architecture {name!r}; there are: {', '.join(ARCHITECTURES)}")
    if start is not None and str(start).endswith(".keras"):
        return _from_earlier(build(name, size, dropout), Path(start))
    if name == "mobilenet-v2-flat" and size is None:
        raise UsageError("mobilenet-v2-flat needs one fixed size")
    if name == "small-cnn":
        if start is not None:
            raise UsageError("small-cnn has no pretrained weights; leave --start out")
        return _small_cnn(size, dropout)
    backbone = mobilenet_v2_backbone(size, keras_style=start == "keras")
    if start == "keras":
        _load_keras_imagenet(backbone)
    elif start is not None:
        load_torchvision(backbone, Path(start))
    layers = keras.layers
    inputs = keras.Input((size, size, 3), name="images")
    x = backbone(inputs)
    if name == "mobilenet-v2":
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(128, activation="relu", name="hidden")(x)
    else:
        # The head of the projects that this one follows: 4×4 cells of a 128×128 crop averaged into one, 64 units.
        x = layers.AveragePooling2D((size or CROP_SIZE) // 32, name="pool")(x)
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(64, activation="relu", name="hidden")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    # Probabilities stay float32 under a mixed-precision policy: half precision cannot tell .999 from 1.
    outputs = layers.Dense(len(CLASSES), activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=name.replace("-", "_"))


def mobilenet_v2_backbone(size: int | None = CROP_SIZE, keras_style: bool = False) -> keras.Model:
    """MobileNetV2 × 1.0 up to the 1,280-channel feature map, without weights.

    Args:
        size: side of the input.
        keras_style: padding at the bottom and right and batch-norm epsilon 1e-3, as in ``keras.applications``. The
            default is torchvision's network: symmetric padding and epsilon 1e-5. Weights of one give nonsense in the
            other, since thousands of channels have a variance below 1e-3.
    """
    import keras

    layers = keras.layers
    epsilon = 1e-3 if keras_style else 1e-5

    def norm(x: Any, name: str) -> Any:
        return layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name=f"{name}_bn")(x)

    def pad(x: Any, name: str) -> Any:
        if keras_style:
            return layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
        return layers.ZeroPadding2D(1, name=f"{name}_pad")(x)

    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(32, 3, strides=2, use_bias=False, name="stem_conv")(pad(inputs, "stem"))
    x = layers.ReLU(6.0, name="stem_relu")(norm(x, "stem_conv"))
    channels, block = 32, 0
    for expansion, width, repeats, first_stride in _STAGES:
        for repeat in range(repeats):
            block += 1
            stride = first_stride if repeat == 0 else 1
            name = f"block{block:02}"
            shortcut = x
            if expansion > 1:
                x = layers.Conv2D(channels * expansion, 1, use_bias=False, name=f"{name}_expand")(x)
                x = layers.ReLU(6.0, name=f"{name}_expand_relu")(norm(x, f"{name}_expand"))
            if stride == 2:
                x = pad(x, name)
            padding = "valid" if stride == 2 else "same"
            x = layers.DepthwiseConv2D(3, stride, padding=padding, use_bias=False, name=f"{name}_depthwise")(x)
            x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(norm(x, f"{name}_depthwise"))
            x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_project")(x)
            x = norm(x, f"{name}_project")
            if stride == 1 and channels == width:
                x = layers.Add(name=f"{name}_add")([shortcut, x])
            channels = width
    x = layers.Conv2D(1280, 1, use_bias=False, name="top_conv")(x)
    x = layers.ReLU(6.0, name="top_relu")(norm(x, "top_conv"))
    return keras.Model(inputs, x, name=BACKBONE)


def load_torchvision(backbone: keras.Model, path: Path) -> None:
    """Fill a `mobilenet_v2_backbone` from an ``.npz`` of torchvision's arrays by torch name (``features.0.0.weight`` …).

    Mean and deviation of ImageNet and the order of the channels go into the first convolution and its batch norm, so
    that the network takes BGR / 127.5 - 1. The classifier's arrays are not used.

    Raises:
        ModelError: the file is missing, or an array is missing or has another shape.
    """
    try:
        arrays = dict(np.load(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the ImageNet weights {path}: {error}") from error
    prefixes = _torch_prefixes()
    try:
        for (conv_layer, norm_layer), (conv_name, norm_name) in zip(_pairs(backbone), prefixes, strict=True):
            kernel = arrays[f"{conv_name}.weight"]
            mean = arrays[f"{norm_name}.running_mean"]
            if conv_name == "features.0.0":
                # W·((y/2 + 1/2 - m)/d) = (W/2d)·y + ΣW(1/2 - m)/d; the constant moves into the running mean.
                scaled = kernel / _IMAGENET_DEVIATION[None, :, None, None]
                mean = mean - (scaled * (0.5 - _IMAGENET_MEAN)[None, :, None, None]).sum((1, 2, 3))
                kernel = scaled[:, ::-1] / 2
            depthwise = "depthwise" in conv_layer.name
            conv_layer.set_weights([kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)])
            scale, offset = arrays[f"{norm_name}.weight"], arrays[f"{norm_name}.bias"]
            norm_layer.set_weights([scale, offset, mean, arrays[f"{norm_name}.running_var"]])
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path} does not hold torchvision's MobileNetV2: {error}") from error


def _from_earlier(model: keras.Model, path: Path) -> keras.Model:
    import keras

    try:
        model.set_weights(keras.saving.load_model(path, compile=False, safe_mode=True).get_weights())
    except Exception as error:
        raise ModelError(f"cannot go on from {path}: {error}") from error
    return model


def _load_keras_imagenet(backbone: keras.Model) -> None:
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


def _pairs(backbone: keras.Model) -> list[tuple[Any, Any]]:
    return [
        (backbone.get_layer(layer.name.removesuffix("_bn")), layer)
        for layer in backbone.layers
        if layer.name.endswith("_bn")
    ]


def _torch_prefixes() -> list[tuple[str, str]]:
    """Names of convolution and batch norm in torchvision's order, which is the order of `mobilenet_v2_backbone`."""
    names = [("features.0.0", "features.0.1"), ("features.1.conv.0.0", "features.1.conv.0.1")]
    names.append(("features.1.conv.1", "features.1.conv.2"))
    for block in range(2, 18):
        start = f"features.{block}.conv"
        names += [(f"{start}.0.0", f"{start}.0.1"), (f"{start}.1.0", f"{start}.1.1"), (f"{start}.2", f"{start}.3")]
    return [*names, ("features.18.0", "features.18.1")]


def _small_cnn(size: int | None, dropout: float) -> keras.Model:
    import keras

    layers = keras.layers
    inputs = keras.Input((size, size, 3), name="images")
    x = inputs
    for index, filters in enumerate((16, 32, 64, 96), 1):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"conv{index}_bn")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
        x = layers.MaxPooling2D(name=f"pool{index}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(len(CLASSES), activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name="small_cnn")


def fused_torch_norms(model: keras.Model) -> None:
    """Let the batch norms of a model use PyTorch's fused kernel while they train, where Keras runs on PyTorch.

    Keras composes mean and variance of many small operations there, which cost 40 % of a training step on a CPU. Only
    the computation changes: the layers, their weights and what is saved stay plain Keras.
    """
    import keras

    if keras.backend.backend() != "torch":
        return
    for layer in _all_layers(model):
        if type(layer) is keras.layers.BatchNormalization:
            layer.__class__ = _fused_norm_class()


def plain_norms(model: keras.Model) -> None:
    """Undo `fused_torch_norms`, before saving."""
    import keras

    for layer in _all_layers(model):
        if type(layer).__name__ == "_FusedTorchNorm":
            layer.__class__ = keras.layers.BatchNormalization


def _all_layers(model: keras.Model) -> list[Any]:
    return list(model._flatten_layers(include_self=False))


@functools.cache
def _fused_norm_class() -> type:
    import keras
    from torch.nn import functional

    class _FusedTorchNorm(keras.layers.BatchNormalization):  # type: ignore[misc]
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            batch = inputs.permute(0, 3, 1, 2)
            learns = bool(training) and self.trainable
            return functional.batch_norm(
                batch,
                self.moving_mean.value,
                self.moving_variance.value,
                self.gamma.value,
                self.beta.value,
                training=learns,
                momentum=1 - self.momentum,
                eps=self.epsilon,
            ).permute(0, 2, 3, 1)

    return _FusedTorchNorm
