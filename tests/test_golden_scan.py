"""What a scan writes does not change by accident: the bytes of three small scans with models whose arithmetic is exact anywhere.

Where a change is meant (a column, an entry of the metadata, another version of Arrow), the new checksums belong in the same commit, and
the reason in the CHANGELOG.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx_maker
import pyarrow.parquet as pq
import pytest
from red_squares import write_archive

import maskbatch
from maskbatch.results.dataset import MANIFEST
from maskbatch.tasks.mask import LABELS

GOLDEN = {
    "pictures": "11a615fa1de0d1ed3264f305d327fa0dc441168029118ed279c67319aa3d9860",
    "tracked": "3bc961d99bc939284d41b16fafb986dab63e4b9814446558f960d0512e6932a7",
    "data set": "ca0ffc35a8c4f230aa5610ef30bbadbdca19968bb7b69c875d6210ee1476fc0d",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "in")


def digest(path: Path) -> str:
    """Of a result: the bytes of its Parquet files, by name; without the list of files, whose names depend on when the inputs were made."""
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*.parquet")) if file != path / MANIFEST]
    total = hashlib.sha256()
    for file in files:
        total.update(file.parent.name.encode() + file.read_bytes())
    return total.hexdigest()


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_result_are_those_of_the_last_version(
    name: str, archive: Path, red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scipy", reason="needs the extra track")
    monkeypatch.chdir(tmp_path)
    Path("shares.onnx").write_bytes(onnx_maker.share_classifier(LABELS))
    Path("red.onnx").write_bytes(red_model.read_bytes())  # named relatively: the settings are in the metadata
    out = "set/" if name == "data set" else "results.parquet"
    inputs = [archive / "gate", archive / "yard"] if name == "pictures" else [archive]
    summary = maskbatch.scan(
        inputs,
        out,
        detector="red:red.onnx",
        classifier="shares.onnx",
        det_size=320,
        device="cpu",
        executor="inline",
        track=name == "tracked",
    )
    assert summary.faces >= 7
    assert summary.status["error"] == 1
    found = digest(tmp_path / out.rstrip("/"))
    assert found == GOLDEN[name], pq.read_table(tmp_path / out.rstrip("/")).to_pandas().to_string()
