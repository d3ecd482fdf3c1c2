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
from maskbatch.tasks.mask import LABELS

GOLDEN = {
    "pictures": "18310bf87219a798812694fa00fcc190faf6346f92a0ad5588bde8e0c94b2474",
    "tracked": "c18e6be312d75ebc0896e31dab6dc7ba01607e0b6aa2249443607b41902e654b",
    "data set": "8d5091a5c8eca20c9039dcc373fa47451ec39c153bfb6fdcb7197cda6fd6f998",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "in")


def digest(path: Path) -> str:
    """Of a result: the bytes of its Parquet files, by name."""
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    total = hashlib.sha256()
    for file in files:
        total.update(file.parent.name.encode() + file.read_bytes())
    return total.hexdigest()


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_result_are_those_of_the_last_version(
    name: str, archive: Path, red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackers", reason="needs the extra track")
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
