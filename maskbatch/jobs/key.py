"""What the finished work of a run belongs to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RunKey:
    """Everything beside the inputs themselves that decides the rows: work of another key is never reused.

    Attributes:
        roots: name of each root of the inputs → its absolute path or URL.
        settings: `ScanConfig.row_settings`.
        models: name → SHA-256 of the files that run.
        provider: ONNX Runtime's execution provider.
        unit_seconds: how videos are cut into parts.
        hash: whether the inputs' own checksums are recorded.
        duplicates: whether copies share their rows, and images have a difference hash.
        purpose: empty for the scan itself; what follows a scan (drawing) has keys of its own.
    """

    roots: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    provider: str = ""
    unit_seconds: float = 60.0
    hash: bool = False
    duplicates: bool = False
    purpose: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As it is stored: JSON types only."""
        entries = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
            if name not in ("purpose", "duplicates")
            or value  # where they are not used, keys stay as they were before them
        }
        stored: dict[str, Any] = json.loads(json.dumps(entries, default=str))
        return stored

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RunKey:
        """The key that was stored; entries that this version does not know are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{"roots": {}, **{name: value for name, value in stored.items() if name in known}})

    @property
    def text(self) -> str:
        """A hash of the key, with which the ids of its units are made."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def mark(self) -> str:
        """How the ids of all of its units begin: work that another run's straggler leaves is told by it."""
        return run_mark(self.text)


def run_mark(text: str) -> str:
    """The mark of a key, from its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def describe_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """The entries in which two stored keys differ, as ``name: old → new``; empty where they agree."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            inner = describe_difference(before, after, f"{prefix}{name}.")
            if inner:
                lines.append(inner)
        elif before != after:
            lines.append(f"{prefix}{name}: {before} → {after}")
    return "; ".join(lines)
