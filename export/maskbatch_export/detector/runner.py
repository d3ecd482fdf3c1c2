"""Run the Keras model's layers with PyTorch's fused kernels, on the Keras variables themselves.

Keras' own batch norm under PyTorch is a chain of unfused operations; for training on a CPU this runner is several times faster.
The parameters it trains *are* the model's variables, so that saving the Keras model saves what was trained.
"""

from __future__ import annotations

from typing import Any

import keras
import torch
from keras import layers
from torch.nn import functional as F

from maskbatch_export.detector.graph import walk


class Runner:
    """Calls the model on NCHW images. Needs the PyTorch backend and ``channels_first``.

    Attributes:
        training: whether batch norms use the batch and update their moving statistics.
        momentum: share of the new batch in the moving statistics.
    """

    def __init__(self, model: keras.Model, momentum: float = 0.03) -> None:
        if keras.backend.backend() != "torch" or keras.config.image_data_format() != "channels_first":
            raise RuntimeError("the runner needs KERAS_BACKEND=torch and the data format channels_first")
        self.steps, self.outputs = walk(model)
        self.training = False
        self.momentum = momentum

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Head tensors ``(N, 30, H/s, W/s)`` of float images ``(N, 3, H, W)``, BGR 0..255."""
        values: dict[str, Any] = {"images": images}
        padding = 0
        for step in self.steps:
            layer, given = step.layer, [values[name] for name in step.inputs]
            x = given[0]
            if isinstance(layer, layers.ZeroPadding2D):
                padding = 1
            elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
                depthwise = isinstance(layer, layers.DepthwiseConv2D)
                kernel = layer.kernel.value.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
                pad = padding or (kernel.shape[-1] // 2 if layer.padding == "same" else 0)
                bias = None if layer.bias is None else layer.bias.value
                x = F.conv2d(x, kernel, bias, layer.strides, pad, groups=kernel.shape[0] if depthwise else 1)
                padding = 0
            elif isinstance(layer, layers.BatchNormalization):
                x = F.batch_norm(
                    x,
                    layer.moving_mean.value,
                    layer.moving_variance.value,
                    layer.gamma.value,
                    layer.beta.value,
                    self.training,
                    self.momentum,
                    layer.epsilon,
                )
            elif isinstance(layer, layers.ReLU):
                x = F.relu(x)
            elif isinstance(layer, layers.Add):
                x = given[0] + given[1]
            elif isinstance(layer, layers.Concatenate):
                x = torch.cat(given, 1)
            elif isinstance(layer, layers.UpSampling2D):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            else:
                raise TypeError(f"layer {layer.name} of type {type(layer).__name__} is not known to the runner")
            values[step.output] = x
        return [values[name] for name in self.outputs]
