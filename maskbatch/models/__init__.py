"""Packaged weights, each with a model card beside it, and the registry of all models with their checksums."""

from __future__ import annotations

from maskbatch.models.files import ModelFile, file_checksum, read_header, read_model
from maskbatch.models.registry import (
    Entry,
    Families,
    all_entries,
    entry_path,
    find_model,
    models_folder,
    packaged_entries,
    variant_files,
)

__all__ = [
    "Entry",
    "Families",
    "ModelFile",
    "all_entries",
    "entry_path",
    "file_checksum",
    "find_model",
    "models_folder",
    "packaged_entries",
    "read_header",
    "read_model",
    "variant_files",
]
