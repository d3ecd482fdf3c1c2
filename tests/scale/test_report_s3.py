"""The report of a partitioned result in object storage equals that of the same rows in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("moto", reason="needs moto's server (group scale)")
pytest.importorskip("s3fs", reason="needs the extra s3")

from object_servers import BUCKET, S3Server, running_s3
from scan_maker import CONFIG, make_tree

from maskbatch.report.make import make_report
from maskbatch.scanning.run import scan


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


def test_a_data_set_in_s3_has_the_report_of_a_local_file(
    server: S3Server, tmp_path: Path, face_photo: npt.NDArray[np.uint8]
) -> None:
    tree = make_tree(tmp_path / "in", face_photo, pictures=6)
    scan(tree, tmp_path / "results.parquet", CONFIG)
    scan(tree, f"s3://{BUCKET}/out/results/", CONFIG)
    local = json.loads(make_report(tmp_path / "results.parquet", "json"))["sections"]
    remote = json.loads(make_report(f"s3://{BUCKET}/out/results/", "json"))["sections"]
    for name in ("answer", "coverage", "compliance", "classes", "failures"):
        assert remote[name] == local[name], name
    assert make_report(f"s3://{BUCKET}/out/results/").startswith("<!doctype html>")
