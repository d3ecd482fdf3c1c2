"""One archive and its clean run for all durability tests, and a worker whose models are loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from durability_kit import make_archive, run

from maskbatch.config import ScanConfig
from maskbatch.pipeline.worker import ScanWorker, ScanWorkerSpec


@pytest.fixture(scope="session", autouse=True)
def _models_loaded_once() -> Iterator[None]:
    """Inline runs of this session share a worker per configuration: a hundred runs need not load the models a hundred times."""
    workers: dict[ScanConfig, ScanWorker] = {}
    load = ScanWorkerSpec.open

    def load_once(self: ScanWorkerSpec) -> ScanWorker:
        if self.config not in workers:
            workers[self.config] = load(self)
        return workers[self.config]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScanWorkerSpec, "open", load_once)
        yield


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, face_photo: npt.NDArray[np.uint8]) -> Path:
    """Six pictures, a video of three parts, three files that cannot be read. Not to be changed by a test."""
    return make_archive(tmp_path_factory.mktemp("archive") / "in", face_photo)


@pytest.fixture(scope="session")
def clean(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the result of an undisturbed run over `archive`."""
    out = tmp_path_factory.mktemp("clean") / "results.parquet"
    summary = run(archive, out)
    assert summary.status == {"ok": 7, "partial": 0, "error": 3}
    assert summary.faces >= 8, "the archive must have faces, or equal results would say little"
    return out.read_bytes()
