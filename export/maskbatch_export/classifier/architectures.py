"""The classifier's networks, in Keras 3 layers that every backend has.

All of them take square BGR images (128×128 unless a run says otherwise) scaled to -1…1 (``x / 127.5 - 1``), since BGR is what the decoders of the scan
deliver, and give three probabilities in the order of `CLASSES`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from maskbatch.classify.crops import CROP_SIZE
from maskbatch.errors import ModelError, UsageError
from maskbatch.tasks.mask import LABELS
from maskbatch_export.classifier import backbones

if TYPE_CHECKING:
    import keras

CLASSES = LABELS
ArchitectureName = Literal["mobilenet-v2", "mobilenet-v2-half", "mobilenet-v2-flat", "small-cnn", "efficientnet-lite2"]
ARCHITECTURES: tuple[str, ...] = get_args(ArchitectureName)
ANY_SIZE = ("mobilenet-v2", "mobilenet-v2-half", "efficientnet-lite2")
"""Those that can begin their training on smaller crops, for speed."""


def build(
    name: str, size: int | None = CROP_SIZE, dropout: float = 0.5, start: str | Path | None = None
) -> keras.Model:
    """A compiled-free model, size×size×3 (BGR, -1…1) to three probabilities.

    Args:
        name: one of `ARCHITECTURES`.
        size: side of the input; None, for any side, is possible with the globally pooled heads.
        dropout: before the last layer.
        start: where the weights begin. A ``.keras`` file of an earlier run of the same architecture to go on from, or
            None for random numbers; for a MobileNetV2 an ``.npz`` file of torchvision's arrays by name, or ``"keras"``
            for what Keras downloads (the half one takes the strongest channels of the ``.npz``); for EfficientNet-Lite2 a ``.pth`` file as in `backbones.load_efficientnet`.

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
    backbone = _backbone(name, size, start)
    layers = keras.layers
    inputs = keras.Input((size, size, 3), name="images")
    x = backbone(inputs)
    if name == "mobilenet-v2-flat":
        # The head of the projects that this one follows: 4×4 cells of a 128×128 crop averaged into one, 64 units.
        x = layers.AveragePooling2D((size or CROP_SIZE) // 32, name="pool")(x)
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(64, activation="relu", name="hidden")(x)
    else:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        if name in ("mobilenet-v2", "mobilenet-v2-half"):
            x = layers.Dense(128, activation="relu", name="hidden")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    # Probabilities stay float32 under a mixed-precision policy: half precision cannot tell .999 from 1.
    outputs = layers.Dense(len(CLASSES), activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=name.replace("-", "_"))


def _backbone(name: str, size: int | None, start: str | Path | None) -> keras.Model:
    if name == "efficientnet-lite2":
        backbone = backbones.efficientnet_lite2(size)
        if start is not None:
            backbones.load_efficientnet(backbone, Path(start))
        return backbone
    if name == "mobilenet-v2-half":
        backbone = backbones.mobilenet_v2_half(size)
        if start is not None:
            backbones.load_narrowed(backbone, Path(start))
        return backbone
    backbone = backbones.mobilenet_v2(size, keras_style=start == "keras")
    if start == "keras":
        backbones.load_keras_imagenet(backbone)
    elif start is not None:
        backbones.load_torchvision(backbone, Path(start))
    return backbone


def _from_earlier(model: keras.Model, path: Path) -> keras.Model:
    import keras

    try:
        model.set_weights(keras.saving.load_model(path, compile=False, safe_mode=True).get_weights())
    except Exception as error:
        raise ModelError(f"cannot go on from {path}: {error}") from error
    return model


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
