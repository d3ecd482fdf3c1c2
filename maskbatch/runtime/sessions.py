"""Loading a model and running it: the only place that makes ONNX Runtime sessions."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from maskbatch.errors import DeviceError, ModelError, OutputError
from maskbatch.models.files import ModelFile, read_model
from maskbatch.models.onnx_file import NotOnnxError, inspect_model, without_fixed_shapes
from maskbatch.runtime.devices import Device, one_line, prepare_gpu, silent_stdout
from maskbatch.runtime.onnx import ort
from maskbatch.runtime.options import engine_folder, provider_options, session_options

Array = npt.NDArray[Any]

_DTYPES: dict[str, np.dtype[Any]] = {"tensor(uint8)": np.dtype(np.uint8), "tensor(float)": np.dtype(np.float32)}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The model's only input.

    Attributes:
        name: as in the file.
        shape: declared size per axis, None where it is free.
        dtype: uint8 or float32.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


class OnnxSession:
    """A loaded model on one device (`maskbatch.types.Session`).

    On a CPU `run` may be called from several threads; on a GPU calls wait for each other, because buffers are shared.
    """

    def __init__(self, model: ModelFile, device: Device, data: bytes, threads: int, batch_size: int) -> None:
        self._model, self._device, self._data, self._threads = model, device, data, threads
        self._lock = threading.Lock()
        self._bound: dict[tuple[int, ...], BoundShape] = {}
        # TensorRT sessions are made per shape, when the shape is known; what the file says is read on the CPU.
        reader = Device("cpu", "CPUExecutionProvider") if device.name == "tensorrt" else device
        self._session = _start(model, reader, data, threads)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelError(f"model {model.name}: expected one input, the file has {len(inputs)}")
        if inputs[0].type not in _DTYPES:
            raise ModelError(
                f"model {model.name}: expected an input of uint8 or float32, the file has {inputs[0].type}"
            )
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape)
        self.input = InputSpec(inputs[0].name, shape, _DTYPES[inputs[0].type])
        self._outputs = tuple(output.name for output in self._session.get_outputs())
        self._metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        last = self._session.get_outputs()[0].shape[-1:] if self._outputs else []
        self.output_size = next((size for size in last if isinstance(size, int) and size > 0), None)
        """Size of the last axis of the first output; None where the file does not declare it."""
        fixed = shape[0] if shape else None
        self._batch_size = fixed or batch_size or 1

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def metadata(self) -> dict[str, str]:
        return self._metadata

    @property
    def provider(self) -> str:
        return self._device.provider

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def run(self, batch: Array) -> list[Array]:
        """One forward pass.

        Args:
            batch: of the input's dtype and rank; C-contiguous is fastest.

        Returns:
            One array per output, in the order of `outputs`; the caller owns them.

        Raises:
            ModelError: the model does not take this shape, or fails on it.
            DeviceError: a TensorRT engine for the shape could not be built.
        """
        if self._device.is_gpu:
            with self._lock:
                return self._bound_for(batch).run(batch)
        try:
            found: list[Array] = self._session.run(None, {self.input.name: batch})
        except Exception as error:
            raise ModelError(f"model {self.name} failed on an input of {batch.shape}: {one_line(error)}") from error
        return found

    def _bound_for(self, batch: Array) -> BoundShape:
        found = self._bound.get(batch.shape)
        if found is None:
            session = self._session
            if self._device.name == "tensorrt":
                session = _start(self._model, self._device, self._data, self._threads, batch.shape, self.input.name)
            found = BoundShape(session, self.input, self._outputs, batch.shape, "cuda", self._device.index)
            self._bound[batch.shape] = found
        return found


class BoundShape:
    """One shape on a GPU: input and outputs are allocated there once, and every run copies in, computes, copies out.

    ``memory`` is where the buffers lie; ``cpu`` serves to try the same steps on a machine without a GPU.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        spec: InputSpec,
        outputs: tuple[str, ...],
        shape: tuple[int, ...],
        memory: str,
        index: int,
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._input = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), spec.dtype, memory, index)
        self._binding.bind_ortvalue_input(spec.name, self._input)
        self._outputs = outputs
        self._memory, self._index = memory, index
        self._fixed = False

    def run(self, batch: Array) -> list[Array]:
        self._input.update_inplace(np.ascontiguousarray(batch))
        if not self._fixed:
            for name in self._outputs:
                self._binding.bind_output(name, self._memory, self._index)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise ModelError(f"the model failed on an input of {batch.shape}: {one_line(error)}") from error
        if not self._fixed:
            # The first run allocated the outputs; from now on they are written in place.
            for name, value in zip(self._outputs, self._binding.get_outputs(), strict=True):
                self._binding.bind_ortvalue_output(name, value)
            self._fixed = True
        # From a GPU, numpy() copies; from host memory it is a view of the buffer that the next run writes.
        found = [value.numpy() for value in self._binding.get_outputs()]
        return [value.copy() for value in found] if self._memory == "cpu" else found


def open_session(
    model: ModelFile,
    device: Device,
    *,
    threads: int = 1,
    batch_size: int = 0,
    free_shapes: bool = False,
) -> OnnxSession:
    """Load a model, after its checksum was checked and nothing in it points outside the file.

    Args:
        model: which file, and the checksum it must have.
        device: from `resolve_device`.
        threads: of a CPU session; one per worker process is fastest overall.
        batch_size: what the caller will pad to; a file with a fixed batch overrules it.
        free_shapes: undeclare the file's fixed shapes (for files exported with a toy shape).

    Raises:
        ModelError: missing, truncated, not ONNX, wrong checksum, external data, operators that ONNX Runtime does not know.
        DeviceError: the device did not take the model.
    """
    data, found = read_model(model)
    model = replace(model, sha256=found)
    try:
        graph = inspect_model(data)
        if graph.external:
            raise ModelError(
                f"model {model.name}: {model.path} keeps weights in other files, which is not allowed: save it as one file"
            )
        if free_shapes:
            data = without_fixed_shapes(data)
    except NotOnnxError as error:
        fix = f": {model.fix}" if model.fix else ""
        raise ModelError(f"model {model.name}: {model.path} cannot be loaded, {error}{fix}") from None
    prepare_gpu(device.name)
    return OnnxSession(model, device, data, threads, batch_size)


def _start(
    model: ModelFile, device: Device, data: bytes, threads: int, shape: tuple[int, ...] = (), input_name: str = ""
) -> ort.InferenceSession:
    providers = provider_options(device, model.sha256, shape, input_name)
    if device.name == "tensorrt":
        folder = engine_folder(device, model.sha256)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} for TensorRT's engines cannot be made: {error.strerror}") from None
    try:
        # Bytes, not the path: what was checked is what is loaded.
        with silent_stdout():
            session = ort.InferenceSession(
                data, session_options(device, threads), providers=providers, enable_fallback=0
            )
    except Exception as error:
        kind = DeviceError if device.is_gpu else ModelError
        raise kind(f"model {model.name} cannot be loaded on {device.name}: {one_line(error)}") from None
    got = session.get_providers()
    if got[:1] != [device.provider]:
        raise DeviceError(
            f"model {model.name} was to run on {device.provider}, but ONNX Runtime gave {', '.join(got)}: "
            "run `maskbatch doctor`"
        )
    return session
