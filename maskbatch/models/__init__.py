"""Packaged weights, each with a model card beside it, and the registry of all models with their sums."""

from __future__ import annotations

from maskbatch.models.files import ModelFile, file_sum, read_model
from maskbatch.models.registry import Entry, all_entries, entry_path, find_model, models_folder, packaged_entries

__all__ = [
    "Entry",
    "ModelFile",
    "all_entries",
    "entry_path",
    "file_sum",
    "find_model",
    "models_folder",
    "packaged_entries",
    "read_model",
]
