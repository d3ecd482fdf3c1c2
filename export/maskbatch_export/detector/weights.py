"""The MIT-licensed starting weights, fitted into the Keras model.

Architectures that differ from the original keep what fits: a kernel whose shape differs is filled as far as both reach, with
the channels of the starting model that matter most.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from maskbatch.errors import ModelError
from maskbatch_export.detector.anchors import ANCHORS_PER_CELL
from maskbatch_export.detector.model import STAGES

MEAN_BGR = (104.0, 117.0, 123.0)


def torch_names() -> dict[str, tuple[str, str]]:
    """Layer-block name of the Keras model -> (convolution, batch norm) names of the starting weights."""
    names = {"stem": ("body.stage1.0.0", "body.stage1.0.1")}
    for stage, blocks in enumerate(STAGES, start=1):
        for index in range(1, len(blocks) + 1):
            # In the original the first convolution is element 0 of stage 1.
            prefix = f"body.stage{stage}.{index if stage == 1 else index - 1}"
            names[f"stage{stage}_{index}_depthwise"] = (f"{prefix}.0", f"{prefix}.1")
            names[f"stage{stage}_{index}_pointwise"] = (f"{prefix}.3", f"{prefix}.4")
    for i in (1, 2, 3):
        names[f"lateral{i}"] = (f"fpn.output{i}.0", f"fpn.output{i}.1")
        for ours, theirs in (
            ("three", "conv3X3"),
            ("shared", "conv5X5_1"),
            ("five", "conv5X5_2"),
            ("deep", "conv7X7_2"),
            ("seven", "conv7x7_3"),
        ):
            names[f"context{i}_{ours}"] = (f"ssh{i}.{theirs}.0", f"ssh{i}.{theirs}.1")
    for i in (1, 2):
        names[f"merge{i}"] = (f"fpn.merge{i}.0", f"fpn.merge{i}.1")
    return names


def _fill(variable: keras.Variable, value: np.ndarray) -> bool:
    """Write ``value`` into the leading corner of ``variable``; whether it fitted exactly."""
    current = np.array(keras.ops.convert_to_numpy(variable.value))
    if current.shape == value.shape:
        variable.assign(value)
        return True
    corner = tuple(slice(0, min(a, b)) for a, b in zip(current.shape, value.shape, strict=True))
    current[corner] = value[corner]
    variable.assign(current)
    return False


_DOUBLED = ("stem", "stage1_1_depthwise", "stage1_1_pointwise")


def _double(block: str, kernel: np.ndarray, statistics: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Twice the stem's channels without a change of the output: the second half are the negatives of the first (what the ReLU cut
    off; CReLU, Shang et al. 2016), which the pointwise convolution reads with zero weights at first."""
    if block == "stage1_1_pointwise":
        return np.concatenate([kernel, np.zeros_like(kernel)], 1), statistics
    sign = -1.0 if block == "stem" else 1.0
    gamma, beta, mean, variance = statistics
    second = [gamma, beta, sign * mean, variance]
    joined = [np.concatenate([a, b]) for a, b in zip(statistics, second, strict=True)]
    return np.concatenate([kernel, sign * kernel]).astype(np.float32), joined


def load_starting_weights(model: keras.Model, path: Path) -> list[str]:
    """Fill ``model`` from the ``.npz`` of the starting model (torch names, OIHW); the layers that fitted only in part or not at all.

    The original subtracts the mean (104, 117, 123) from BGR; here the first batch norm's mean takes it in, so that the model
    takes raw values. The two softmax outputs become one logit, their difference.
    """
    source = np.load(path)
    layers = {layer.name: layer for layer in model.layers}
    partial: list[str] = []
    doubled = layers["stem_conv"].filters == 2 * source["body.stage1.0.0.weight"].shape[0]
    for ours, (conv, norm) in torch_names().items():
        if f"{ours}_conv" not in layers:
            partial.append(ours)
            continue
        kernel = source[f"{conv}.weight"]
        mean = source[f"{norm}.running_mean"].copy()
        if ours == "stem":
            mean += (kernel * np.asarray(MEAN_BGR, np.float32)[None, :, None, None]).sum((1, 2, 3))
        # OIHW -> HWIO; depthwise kernels are (C, 1, 3, 3) -> (3, 3, C, 1).
        axes = (2, 3, 0, 1) if isinstance(layers[f"{ours}_conv"], keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
        statistics = [source[f"{norm}.weight"], source[f"{norm}.bias"], mean, source[f"{norm}.running_var"]]
        if doubled and ours in _DOUBLED:
            kernel, statistics = _double(ours, kernel, statistics)
        exact = _fill(layers[f"{ours}_conv"].kernel, kernel.transpose(axes))
        bn = layers[f"{ours}_bn"]
        for variable, value in zip((bn.gamma, bn.beta, bn.moving_mean, bn.moving_variance), statistics, strict=True):
            exact &= _fill(variable, value)
        if not exact:
            partial.append(ours)
    for i in (1, 2, 3):
        head = layers[f"head{i}"]
        kernels, biases = [], []
        for name in ("ClassHead", "BboxHead", "LandmarkHead"):
            kernel, bias = source[f"{name}.{i - 1}.conv1x1.weight"], source[f"{name}.{i - 1}.conv1x1.bias"]
            if name == "ClassHead":
                pairs = kernel.reshape(ANCHORS_PER_CELL, 2, *kernel.shape[1:])
                kernel, bias = pairs[:, 1] - pairs[:, 0], bias.reshape(-1, 2) @ np.array([-1.0, 1.0], np.float32)
            kernels.append(kernel)
            biases.append(bias)
        exact = _fill(head.kernel, np.concatenate(kernels).transpose(2, 3, 1, 0))
        if not (_fill(head.bias, np.concatenate(biases)) and exact):
            partial.append(f"head{i}")
    return partial


def load_exported_weights(model: keras.Model, path: Path) -> None:
    """Fill ``model`` from a float32 file of ``convert``, to train on from what was shipped.

    Batch norms were folded there: the convolutions get the folded kernels, the norms a scale of 1 and the folded bias. Their statistics
    (mean 0, variance 1) are not those of the data, so training has to keep them as they are.

    Raises:
        ModelError: the file is of another architecture.
    """
    import onnx
    from onnx import numpy_helper

    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    for layer in model.layers:
        if not isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            continue
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        kernel, bias = stored.get(f"{layer.name}.kernel"), stored.get(f"{layer.name}.bias")
        wanted = tuple(layer.kernel.shape)
        moved = None if kernel is None else kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        if moved is None or bias is None or moved.shape != wanted:
            raise ModelError(f"{path}: its layer {layer.name} is not that of this architecture")
        layer.kernel.assign(moved)
        if layer.bias is not None:
            layer.bias.assign(bias)
            continue
        norm = model.get_layer(f"{layer.name.removesuffix('_conv')}_bn")
        norm.gamma.assign(np.full(bias.shape, np.sqrt(1 + norm.epsilon), np.float32))
        norm.beta.assign(bias)
        norm.moving_mean.assign(np.zeros_like(bias))
        norm.moving_variance.assign(np.ones_like(bias))
