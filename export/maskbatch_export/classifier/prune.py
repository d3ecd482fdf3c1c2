"""A lighter classifier without training: smaller crops, fewer hidden channels, and the layers behind them fitted anew.

Between two narrow layers MobileNetV2 widens to six times as many channels, where most of its time goes. Of each such block
`prune` keeps the channels with which the block's own output is best rebuilt, by least squares over real faces, and solves for the
projection that rebuilds it (He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", with the removal order of
Hassibi and Stork 1993, "Optimal Brain Surgeon"). Blocks are done from the first to the last, each on what the pruned ones before it
give, against what the original gives. At the end the first dense layer is fitted so that the pruned network on small crops gives
what the original gives on large ones. All of it is linear algebra: minutes on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskbatch.errors import ModelError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

POSITIONS = 24
"""Places of a feature map that are drawn from each crop."""
RIDGE = 1e-4
"""Of the mean variance, added to the diagonal of every system of equations."""
MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Block:
    """The nodes of an inverted residual: 1×1 expansion, depthwise layer, 1×1 projection."""

    expand: onnx.NodeProto
    depthwise: onnx.NodeProto
    project: onnx.NodeProto


def prune(
    model: onnx.ModelProto,
    crops: NDArray[np.uint8],
    large: NDArray[np.uint8],
    keep: float,
    say: Any = print,
) -> onnx.ModelProto:
    """A float32 classifier with fewer hidden channels, for crops of another size.

    Args:
        model: float32 classifier from `convert`, of inverted residuals, a global pooling and two dense layers.
        crops: n×s×s×3 uint8 BGR, what the pruned model is to see; s is its input size.
        large: n×S×S×3, the same faces as the original takes them.
        keep: share of the hidden channels of every block that stays.
        say: called with a line per block.

    Raises:
        ModelError: the network has no such blocks, or no dense layer behind a global pooling.
    """
    import onnx

    size = crops.shape[1]
    original, pruned = onnx.ModelProto(), onnx.ModelProto()
    original.CopyFrom(model)
    _set_size(original, size)
    pruned.CopyFrom(original)
    rng = np.random.default_rng(0)
    for index, block in enumerate(_blocks(pruned)):
        count, name = _channels(pruned, block), block.project.output[0]
        kept = max(MULTIPLE, round(count * keep / MULTIPLE) * MULTIPLE)
        wanted = _sample(original, [name], crops, rng.spawn(1)[0], index)[0]
        hidden = _sample(pruned, [block.project.input[0]], crops, None, index)[0]
        chosen, weights, bias = _choose(hidden, wanted, kept)
        _narrow(pruned, block, chosen, weights, bias)
        left = np.mean((hidden[:, chosen] @ weights + bias - wanted) ** 2) / np.mean((wanted - wanted.mean(0)) ** 2)
        say(f"block {index + 1}: {kept} of {count} channels, {left:.2%} of the variance lost")
    _fit_dense(pruned, model, crops, large)
    onnx.checker.check_model(pruned)
    return pruned


def _set_size(model: onnx.ModelProto, size: int) -> None:
    del model.graph.value_info[:]
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size


def _arrays(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {entry.name: entry for entry in model.graph.initializer}


def _get(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(_arrays(model)[name]), np.float32)


def _set(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> None:
    from onnx import numpy_helper

    _arrays(model)[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))


def _blocks(model: onnx.ModelProto) -> list[Block]:
    makers = {output: node for node in model.graph.node for output in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def before(node: onnx.NodeProto) -> onnx.NodeProto | None:
        found = makers.get(node.input[0])
        while found is not None and found.op_type in ("Clip", "Pad", "Relu"):
            found = makers.get(found.input[0])
        return found

    def after(node: onnx.NodeProto) -> onnx.NodeProto | None:
        rest = users.get(node.output[0], [])
        while len(rest) == 1 and rest[0].op_type in ("Clip", "Relu"):
            rest = users.get(rest[0].output[0], [])
        return rest[0] if len(rest) == 1 else None

    found = []
    for node in model.graph.node:
        groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
        if node.op_type != "Conv" or groups == 1:
            continue
        expand, project = before(node), after(node)
        if expand is None or project is None or {expand.op_type, project.op_type} != {"Conv"}:
            continue
        if _get(model, expand.input[1]).shape[2:] == _get(model, project.input[1]).shape[2:] == (1, 1):
            found.append(Block(expand, node, project))
    if not found or any(len(n.input) < 3 for block in found for n in (block.expand, block.depthwise, block.project)):
        raise ModelError(
            "the network has no inverted residuals with biases: only MobileNetV2 from `convert` can be pruned"
        )
    return found


def _channels(model: onnx.ModelProto, block: Block) -> int:
    return len(_get(model, block.expand.input[1]))


def _run(model: onnx.ModelProto, names: Sequence[str], crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Inner tensors of all crops."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in names:
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    parts = [session.run(list(names), {entry: crops[i : i + 32]}) for i in range(0, len(crops), 32)]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _sample(
    model: onnx.ModelProto, names: Sequence[str], crops: NDArray[np.uint8], _: Any, seed: int
) -> list[NDArray[np.float32]]:
    """Rows of channels at places that depend on `seed` alone, so that two networks are compared at the same ones."""
    found: list[list[NDArray[np.float32]]] = [[] for _ in names]
    for start in range(0, len(crops), 64):
        rng = np.random.default_rng((seed, start))
        values = _run(model, names, crops[start : start + 64])
        places = values[0].shape[2] * values[0].shape[3]
        drawn = rng.integers(0, places, (len(values[0]), POSITIONS))
        for rows, value in zip(found, values, strict=True):
            flat = value.reshape(*value.shape[:2], -1).transpose(0, 2, 1)
            rows.append(np.take_along_axis(flat, drawn[:, :, None], axis=1).reshape(-1, value.shape[1]))
    return [np.concatenate(rows) for rows in found]


def _choose(
    hidden: NDArray[np.float32], wanted: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The `count` columns of `hidden` from which `wanted` is best rebuilt, the weights and the constant that do it.

    Channels go a twentieth at a time, those first whose removal costs least where the others make up for it.
    """
    mean, goal = hidden.mean(0, dtype=np.float64), wanted.mean(0, dtype=np.float64)
    centred = hidden - mean
    gram = centred.T @ centred / len(hidden)
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram) + 1e-9
    cross = centred.T @ (wanted - goal) / len(hidden)
    left = np.arange(hidden.shape[1])
    while True:
        inverse = np.linalg.inv(gram[np.ix_(left, left)])
        weights = inverse @ cross[left]
        if len(left) == count:
            return left, weights, goal - mean[left] @ weights
        cost = (weights**2).sum(1) / np.diag(inverse)
        drop = min(len(left) - count, max(1, len(left) // 20))
        left = np.sort(left[np.argsort(cost)[drop:]])


def _narrow(
    model: onnx.ModelProto, block: Block, chosen: NDArray[np.int64], weights: NDArray[Any], bias: NDArray[Any]
) -> None:
    for node in (block.expand, block.depthwise):
        for name in node.input[1:3]:
            _set(model, name, _get(model, name)[chosen])
    for entry in block.depthwise.attribute:
        if entry.name == "group":
            entry.i = len(chosen)
    _set(model, block.project.input[1], weights.T[:, :, None, None])
    _set(model, block.project.input[2], bias)


def _fit_dense(
    pruned: onnx.ModelProto, original: onnx.ModelProto, crops: NDArray[np.uint8], large: NDArray[np.uint8]
) -> None:
    """Fit the first dense layer so that it gives on `crops` what the original's gives on `large`."""
    dense = next((node for node in pruned.graph.node if node.op_type == "MatMul"), None)
    add = next((n for n in pruned.graph.node if dense is not None and dense.output[0] in n.input), None)
    if dense is None or add is None or add.op_type != "Add":
        raise ModelError("the network has no dense layer with a bias behind its pooling")
    (features,) = _run(pruned, [dense.input[0]], crops)
    (wanted,) = _run(original, [add.output[0]], large)
    bias = next(name for name in add.input if name != dense.output[0])
    # A prior at the layer as it is: directions that the faces say little of stay what they were.
    before, constant = _get(pruned, dense.input[1]), _get(pruned, bias)
    mean = features.mean(0, dtype=np.float64)
    centred = features - mean
    rest = wanted - features @ before - constant
    gram = centred.T @ centred / len(features)
    gram[np.diag_indices_from(gram)] += 0.02 * np.trace(gram) / len(gram)
    change = np.linalg.solve(gram, centred.T @ (rest - rest.mean(0)) / len(features))
    _set(pruned, dense.input[1], before + change)
    _set(pruned, bias, constant + rest.mean(0) - mean @ change)
