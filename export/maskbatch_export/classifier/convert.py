"""Keras (or ONNX of float images) to the ONNX that a scan takes: uint8 crops in, probabilities out, scaling inside, and proof that
nothing changed on the way."""

from __future__ import annotations

import importlib
import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskbatch.errors import InputNotFoundError, MissingExtraError, ModelError
from maskbatch.storage.atomic import written_whole
from maskbatch.tasks import check_labels
from maskbatch.tasks.mask import LABELS
from maskbatch_export.classifier import architectures
from maskbatch_export.classifier.folding import fold_norms, fold_pads
from maskbatch_export.classifier.inputs import Source, bytes_into, check_outputs, probabilities_out_of
from maskbatch_export.onnx_files import OnnxClassifier, set_metadata, sha256_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARITY = 1e-4
"""Largest difference of a probability between Keras and ONNX that is still called the same."""

OPSET = 17
PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".dill")
_ARITHMETIC = (
    *("__operators__.", "math.", "nn.", "image.", "linalg."),
    *("cast", "clip_by_value", "concat", "expand_dims", "identity", "pad", "reshape", "reverse", "split", "squeeze"),
    *("stack", "strided_slice", "tile", "transpose", "unstack"),
)
"""Beginnings of the TensorFlow functions that Keras 2 writes into a model for ``x / 127.5 - 1`` and the like. Others, such
as ``io.write_file``, could do harm."""


def load_keras(path: Path, architecture: str | None = None) -> Any:
    """A Keras model from ``.keras``, an old Keras 2 ``.h5``, or weights alone for one of our architectures.

    What Keras 2 wrote is loaded by Keras 2 (`tf_keras`) where it is installed: Keras 3 refuses most of it (batch norms,
    depthwise convolutions and augmentation layers have other settings there), and the writer reads its files exactly.

    Args:
        path: ``.keras``, ``.h5`` or ``.weights.h5``.
        architecture: build this network and load only the weights; needs no Keras 2 for old ``.h5`` files.

    Raises:
        ModelError: a pickle, a Lambda layer, a broken file, weights without an architecture, or another architecture.
        MissingExtraError: only Keras 2 can load the file, and it is not installed.
    """
    import keras

    refuse_unsafe(path)
    if architecture is not None:
        model = architectures.build(architecture)
        try:
            model.load_weights(path)
        except Exception as error:
            raise ModelError(f"the weights in {path} do not fit {architecture}: {_first_line(error)}") from error
        return model
    if not _stored_config(path):
        raise ModelError(f"{path} holds weights alone; name the --architecture of the network that they belong to")
    old = _written_by_keras2(path)
    keras2 = _keras2() if old else None
    try:
        if keras2 is not None:
            return keras2.models.load_model(path, compile=False)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        if old and keras2 is None:
            raise MissingExtraError(
                f"{path} was saved by Keras 2 and Keras 3 cannot load it ({_first_line(error)[:100]}…); install Keras 2 with "
                f"`uv pip install --no-deps 'tf_keras=={_tensorflow_series()}.*'`, or name the --architecture to load "
                "the weights alone"
            ) from error
        raise ModelError(f"Keras {3 if keras2 is None else 2} cannot load {path}: {_first_line(error)}") from error


def _keras2() -> Any | None:
    """Keras 2 under the name that it has beside Keras 3, or None where it is not installed."""
    if importlib.util.find_spec("tf_keras") is None:
        return None
    try:
        return importlib.import_module("tf_keras")
    except Exception as error:  # it fits one TensorFlow alone and fails in many ways beside another
        raise MissingExtraError(
            f"the installed tf_keras does not run ({_first_line(error)}); "
            f"install the one for this TensorFlow: `uv pip install --no-deps 'tf_keras=={_tensorflow_series()}.*'`"
        ) from error


def _tensorflow_series() -> str:
    import tensorflow as tf

    return ".".join(str(tf.__version__).split(".")[:2])


def _written_by_keras2(path: Path) -> bool:
    """Whether the file says that a Keras before 3 wrote it; files too old to say so are from before, too."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            stated = json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}
        version = stated.get("keras_version", "3") if isinstance(stated, dict) else "3"
    else:
        import h5py

        with h5py.File(path, "r") as file:
            version = file.attrs.get("keras_version", "2")
    return (version.decode() if isinstance(version, bytes) else str(version)).split(".")[0] in ("1", "2")


def refuse_unsafe(path: Path) -> None:
    """Stop before anything in a model file could run as code.

    Raises:
        InputNotFoundError: there is no such file.
        ModelError: the file is a pickle, or has a Lambda layer, whose body is Python bytecode.
    """
    if not path.exists():
        raise InputNotFoundError(f"{path} does not exist")
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{path} is a pickle, and loading one runs any code in it; save the model as .keras")
    if path.is_dir():
        return
    head = path.read_bytes()[:2]
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise ModelError(f"{path} is a pickle in disguise, and loading one runs any code in it")
    config = _stored_config(path)
    for name in _values_of("class_name", config):
        if name in ("Lambda", "__lambda__"):
            raise ModelError(
                f"{path} has a Lambda layer: its body is Python bytecode that would run here; "
                "rebuild the model with ordinary layers and load its weights (--architecture)"
            )
    if any(name in ("TFOpLambda", "SlicingOpLambda") for name in _values_of("class_name", config)):
        for name in _values_of("function", config):
            if not name.startswith(_ARITHMETIC):
                raise ModelError(f"{path} calls tf.{name}, which is not arithmetic and would run here; it is refused")


def _stored_config(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        import h5py

        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config", "{}")
            return json.loads(text.decode() if isinstance(text, bytes) else text)
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is neither a .keras nor an .h5 model: {_first_line(error)}") from error


def _values_of(key: str, config: Any) -> list[str]:
    if isinstance(config, dict):
        own = [str(config[key])] if key in config else []
        return own + [name for value in config.values() for name in _values_of(key, value)]
    if isinstance(config, list):
        return [name for value in config for name in _values_of(key, value)]
    return []


def convert(
    path: Path,
    out: Path,
    crops: NDArray[np.uint8],
    source: Source | None = None,
    architecture: str | None = None,
    metadata: dict[str, str] | None = None,
    say: Callable[[str], object] = print,
) -> float:
    """Write a classifier as the ONNX file that a scan takes, and prove on real crops that both give the same.

    The file takes ``images`` uint8 N×S×S×3 BGR and gives ``probabilities`` float32 N×k in the order of its metadata `labels`; the
    scaling is inside. Labels of the mask task are put in their usual order.

    Args:
        path: ``.keras``, ``.h5``, a SavedModel folder, or an ONNX file of float images.
        out: the ONNX file to write; nothing is left there when the proof fails.
        crops: n×S×S×3 uint8 BGR for the proof; of another size than the model's they are scaled.
        source: what the model expects and gives.
        architecture: as in `load_keras`.
        metadata: further entries.
        say: called with a line about the parity.

    Returns:
        The largest difference of a probability.

    Raises:
        ModelError: the model is refused or broken, its outputs are not a probability per label, or the file differs from it by more
            than `PARITY`.
    """
    import onnx

    source = source or Source()
    check_labels(source.labels, "--labels")
    order = [source.labels.index(name) for name in LABELS] if sorted(source.labels) == sorted(LABELS) else None
    if path.suffix.lower() == ".onnx":
        model, size, original = _from_onnx(path, source)
    else:
        model, size, original = _from_keras(path, architecture, source)
    crops = _of_size(crops, size)
    wanted = source.probabilities(original(source.prepare(crops)))
    check_outputs(wanted, source, path)
    labels = source.labels
    if order is not None and order != [0, 1, 2]:
        wanted, labels = wanted[:, order], LABELS
        _reorder(model, order)
    values = {
        "name": out.stem,
        "labels": json.dumps(list(labels)),
        "context": f"{source.context:g}",
        "crop_size": str(size),
        "channels": "bgr",
        "source": path.name,
        "source_sha256": sha256_of(path),
        "licence": "Apache-2.0",
    }
    set_metadata(model, values | (metadata or {}))
    onnx.checker.check_model(model)
    with written_whole(out) as temporary:
        onnx.save(model, temporary)
        found = OnnxClassifier(temporary).predict(crops)
        difference = float(np.abs(found - wanted).max())
        agree = float((found.argmax(1) == wanted.argmax(1)).mean())
        say(f"parity on {len(crops)} crops: largest difference {difference:.2g}, same label {agree:.2%}")
        if not difference <= PARITY:
            raise ModelError(
                f"the ONNX file differs from {path} by {difference:.2g}, more than {PARITY:g}; {out} was not written"
            )
    return difference


Original = Callable[[Any], Any]
"""The model as it came: n×S×S×3 float32, prepared as it wants them, to n×k outputs."""


def _from_keras(path: Path, architecture: str | None, source: Source) -> tuple[Any, int, Original]:
    import tensorflow as tf
    import tf2onnx

    forward, size = _forward(path, architecture)
    factor, offset = source.factors()

    def graph(images: Any) -> Any:
        x = tf.cast(images, tf.float32)
        if source.channels == "rgb":
            x = tf.reverse(x, [3])
        if source.scale == "-1..1":
            x = x / 127.5 - 1.0  # `quantize` knows this form
        elif source.scale != "0..255":
            x = x * factor + offset
        return forward(x)

    signature = [tf.TensorSpec([None, size, size, 3], tf.uint8, name="images")]
    traced = tf.function(graph, input_signature=signature)
    model, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=OPSET)
    fold_norms(model)
    fold_pads(model)
    model.ir_version = 10
    model.producer_name = "maskbatch-export"
    model.doc_string = "Face classifier: uint8 BGR face crops to a probability per label."
    if _is_plain(model, source):
        _name_output(model, "probabilities")
    else:
        probabilities_out_of(model, source)

    def original(prepared: Any) -> Any:
        parts = [np.asarray(forward(tf.constant(prepared[i : i + 64]))) for i in range(0, len(prepared), 64)]
        return np.concatenate(parts)

    return model, size, original


def _is_plain(model: Any, source: Source) -> bool:
    """Whether the outputs are probabilities as they are."""
    sizes = [axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim]
    return not source.softmax and sizes[-1:] != [1]


def _from_onnx(path: Path, source: Source) -> tuple[Any, int, Original]:
    import onnx
    import onnxruntime

    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{path} cannot be loaded as ONNX: {_first_line(error)}") from error
    entry = session.get_inputs()[0]
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else None
    last = entry.shape[-1] == 3
    size = bytes_into(model, source)
    probabilities_out_of(model, source)

    def original(prepared: Any) -> Any:
        pixels = prepared if last else np.ascontiguousarray(prepared.transpose(0, 3, 1, 2))
        step = fixed or 16
        missing = -len(pixels) % step if fixed else 0
        padded = np.concatenate([pixels, np.repeat(pixels[:1], missing, axis=0)]) if missing else pixels
        parts = [session.run(None, {entry.name: padded[i : i + step]})[0] for i in range(0, len(padded), step)]
        return np.concatenate(parts)[: len(prepared)]

    return model, size, original


def _of_size(crops: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if crops.shape[1:3] == (size, size):
        return crops
    return np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) for crop in crops]).astype(np.uint8)


def _reorder(model: Any, order: list[int]) -> None:
    """Put the outputs in another order."""
    from onnx import helper, numpy_helper

    _rename(model, "probabilities", "maskbatch_as_given")
    model.graph.initializer.append(numpy_helper.from_array(np.array(order, np.int64), "maskbatch_label_order"))
    node = helper.make_node("Gather", ["maskbatch_as_given", "maskbatch_label_order"], ["probabilities"], axis=1)
    model.graph.node.append(node)
    model.graph.output[0].name = "probabilities"


def _forward(path: Path, architecture: str | None) -> tuple[Callable[[Any], Any], int]:
    """The model as a function of scaled float images, and the side of its input."""
    import tensorflow as tf

    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise ModelError(f"{path} is a folder without saved_model.pb, so it is not a SavedModel")
        loaded = tf.saved_model.load(str(path))
        signatures = loaded.signatures
        name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
        if name is None:
            raise ModelError(f"the SavedModel {path} has no signature to serve")
        serve = signatures[name]
        (argument, spec), *more = serve.structured_input_signature[1].items()
        if more or len(spec.shape) != 4 or spec.shape[1] is None or spec.shape[1] != spec.shape[2]:
            raise ModelError(f"the SavedModel {path} does not take one batch of square images")

        def run(x: Any) -> Any:
            return next(iter(serve(**{argument: x}).values()))

        run.keep = loaded  # type: ignore[attr-defined]  # a SavedModel's variables die with their owner
        return run, int(spec.shape[1])
    model = load_keras(path, architecture)
    shape = model.input_shape[0] if isinstance(model.input_shape, list) else model.input_shape
    if len(shape) != 4 or shape[1] is None or shape[1] != shape[2] or shape[3] != 3 or len(model.output_shape) != 2:
        raise ModelError(f"{path} maps {shape} to {model.output_shape}, not square images to a probability per label")
    return (lambda x: model(x, training=False)), int(shape[1])


def _name_output(model: Any, name: str) -> None:
    _rename(model, model.graph.output[0].name, name)
    model.graph.output[0].name = name


def _rename(model: Any, old: str, name: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, entry in enumerate(names):
                if entry == old:
                    names[index] = name


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
