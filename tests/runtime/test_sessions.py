"""Loading models: what was checked is what runs, and what is wrong with a file is said in one sentence."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import onnx_maker as make
import onnxruntime
import pytest

from maskbatch.errors import ModelError
from maskbatch.models import ModelFile, packaged_entries, read_header
from maskbatch.models.registry import to_file
from maskbatch.runtime import open_session, resolve_device
from maskbatch.runtime.sessions import BoundShape

CPU = resolve_device("cpu")
RETINAFACE = next(to_file(entry) for entry in packaged_entries() if entry.name == "retinaface")


def written(folder: Path, data: bytes, name: str = "model.onnx") -> ModelFile:
    path = folder / name
    path.write_bytes(data)
    return ModelFile("model", path, "", "classifier", "pull it again")


def is_one_sentence(error: pytest.ExceptionInfo[ModelError]) -> bool:
    text = str(error.value)
    return "\n" not in text and "Traceback" not in text and len(text) < 600


def test_session_computes_what_onnxruntime_computes() -> None:
    session = open_session(RETINAFACE, CPU, batch_size=1)
    pictures = np.random.default_rng(0).integers(0, 256, (1, 96, 64, 3), dtype=np.uint8)
    plain = onnxruntime.InferenceSession(str(RETINAFACE.path), providers=["CPUExecutionProvider"])
    for ours, theirs in zip(session.run(pictures), plain.run(None, {"images": pictures}), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert session.provider == "CPUExecutionProvider"
    assert session.outputs == ("scores", "deltas", "landmark_deltas")
    assert session.input.dtype == np.uint8


def test_metadata_and_batch_come_from_the_file(tmp_path: Path) -> None:
    session = open_session(written(tmp_path, make.doubling_model((4, 3), {"context": "1.3"})), CPU, batch_size=16)
    assert session.metadata == {"context": "1.3"}
    assert session.batch_size == 4  # fixed in the file, whatever was asked for
    assert open_session(written(tmp_path, make.doubling_model()), CPU, batch_size=16).batch_size == 16


def test_wrong_sum_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    data = make.doubling_model()
    model = written(tmp_path, data)
    right = hashlib.sha256(data).hexdigest()
    open_session(ModelFile("model", model.path, right, ""), CPU)
    model.path.write_bytes(data + b"\x00")
    with pytest.raises(ModelError, match=r"has SHA-256 .* is registered: pull it again") as error:
        open_session(ModelFile("model", model.path, right, "", "pull it again"), CPU)
    assert is_one_sentence(error)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.9, 0.999])
def test_truncated_file_gives_one_sentence(tmp_path: Path, share: float) -> None:
    data = RETINAFACE.path.read_bytes()
    with pytest.raises(ModelError) as error:
        open_session(written(tmp_path, data[: int(len(data) * share)]), CPU)
    assert is_one_sentence(error)


@pytest.mark.parametrize("data", [b"hello, world\n", b"\x89PNG\r\n\x1a\n" + b"\x00" * 64, b"PK\x03\x04" + b"\x01" * 99])
def test_file_of_another_kind_gives_one_sentence(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelError) as error:
        open_session(written(tmp_path, data), CPU)
    assert is_one_sentence(error)


def test_missing_file_and_folder_give_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelError) as error:
            open_session(ModelFile("model", path, "", ""), CPU)
        assert is_one_sentence(error)


def test_unknown_operator_gives_one_sentence(tmp_path: Path) -> None:
    value = make.value_info("x", make.FLOAT, ["N"])
    data = make.model(make.graph([make.node("Levitate", ["x"], ["y"])], [value], [make.value_info("y", 1, ["N"])]))
    with pytest.raises(ModelError, match="Levitate") as error:
        open_session(written(tmp_path, data), CPU)
    assert is_one_sentence(error)


def externals() -> dict[str, bytes]:
    """Models that keep a tensor elsewhere, in every place where ONNX allows a tensor."""
    x, y = make.value_info("x", make.FLOAT, [2]), make.value_info("y", make.FLOAT, [2])
    outside = make.external_tensor("w", "/etc/passwd", 2)
    add = make.node("Add", ["x", "w"], ["y"])
    constant = make.node("Constant", [], ["w"], make.tensor_attribute("value", outside))
    inner = make.graph([constant, make.node("Identity", ["w"], ["z"])], [], [make.value_info("z", make.FLOAT, [2])])
    branches = make.graph_attribute("then_branch", inner) + make.graph_attribute("else_branch", inner)
    conditional = make.node("If", ["c"], ["y"], branches)
    flag = make.node("Cast", ["x"], ["c"], make.int_attribute("to", 9))
    return {
        "initializer": make.model(make.graph([add], [x], [y], [outside])),
        "constant": make.model(make.graph([constant, add], [x], [y])),
        "subgraph": make.model(make.graph([flag, conditional], [x], [y])),
    }


@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_external_data_is_refused_wherever_it_hides(tmp_path: Path, place: str) -> None:
    with pytest.raises(ModelError, match="keeps weights in other files") as error:
        open_session(written(tmp_path, externals()[place]), CPU)
    assert is_one_sentence(error)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    values = [make.value_info(name, make.FLOAT, ["N"]) for name in ("a", "b")]
    data = make.model(make.graph([make.node("Add", ["a", "b"], ["y"])], values, [make.value_info("y", 1, ["N"])]))
    with pytest.raises(ModelError, match="expected one input, the file has 2"):
        open_session(written(tmp_path, data), CPU)


def test_input_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    value = make.value_info("x", make.INT64, ["N"])
    data = make.model(make.graph([make.node("Identity", ["x"], ["y"])], [value], [make.value_info("y", 7, ["N"])]))
    with pytest.raises(ModelError, match=r"tensor\(int64\)"):
        open_session(written(tmp_path, data), CPU)


def test_wrong_shape_is_a_model_error_not_a_crash(tmp_path: Path) -> None:
    session = open_session(written(tmp_path, make.doubling_model((4, 3))), CPU)
    with pytest.raises(ModelError, match=r"failed on an input of \(5, 3\)"):
        session.run(np.zeros((5, 3), np.float32))


def test_fixed_shapes_can_be_freed(tmp_path: Path) -> None:
    session = open_session(written(tmp_path, make.doubling_model((4, 3))), CPU, free_shapes=True)
    np.testing.assert_array_equal(session.run(np.ones((5, 7), np.float32))[0], np.full((5, 7), 2, np.float32))


def test_output_names_are_read_without_loading(tmp_path: Path) -> None:
    assert read_header(RETINAFACE.path).outputs == ("scores", "deltas", "landmark_deltas")
    assert read_header(written(tmp_path, make.doubling_model()).path).outputs == ("y",)


def test_bound_buffers_are_reused_and_results_are_the_callers(tmp_path: Path) -> None:
    """The steps of a GPU run, with the buffers in host memory, since tests run on machines without a GPU."""
    model = written(tmp_path, make.doubling_model())
    spec = open_session(model, CPU).input
    session = onnxruntime.InferenceSession(model.path.read_bytes(), providers=["CPUExecutionProvider"])
    bound = BoundShape(session, spec, ("y",), (2, 3), "cpu", 0)
    results = [bound.run(np.full((2, 3), value, np.float32))[0] for value in (1, 2, 3)]
    for value, result in zip((1, 2, 3), results, strict=True):
        np.testing.assert_array_equal(result, np.full((2, 3), 2 * value, np.float32))


def test_model_files_and_devices_travel_to_workers() -> None:
    assert pickle.loads(pickle.dumps(RETINAFACE)) == RETINAFACE
    assert pickle.loads(pickle.dumps(CPU)) == CPU
