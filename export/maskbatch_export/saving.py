"""Checkpoints and models on disk: each appears complete or not at all (`maskbatch.storage.atomic`)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from maskbatch.storage.atomic import write_bytes, written_whole


def save_arrays(path: Path, **arrays: Any) -> None:
    """An ``.npz`` file."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def save_keras(model: Any, path: Path) -> None:
    """A ``.keras`` file; Keras tells the format by the ending, which a temporary name would not have."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        write_bytes(path, (Path(folder) / "model.keras").read_bytes())
