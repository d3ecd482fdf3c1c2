"""What the last discovery found, kept in the work folder so that `maskbatch status` can tell what is left.

Beside the counts there is a 64-bit hash per readable input (8 MB for a million): receipts of inputs that were removed or changed since
stay in the folder, and must not be counted as done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskbatch.storage import Store
from maskbatch.types import Source


@dataclass(frozen=True, slots=True)
class InputSnapshot:
    """What is to be done.

    Attributes:
        inputs: all that were found.
        unreadable: those that the discovery already knew to be unreadable.
        marks: sorted uint64 hashes of the others.
        merged: the result was written from all of them.
    """

    inputs: int
    unreadable: int
    marks: npt.NDArray[np.uint64]
    merged: bool

    def holds(self, name: str, fingerprint: str) -> bool:
        """Whether this version of an input is one of the plan's."""
        mark = _mark(name, fingerprint)
        at = int(np.searchsorted(self.marks, mark))
        return at < len(self.marks) and self.marks[at] == mark


def write_snapshot(store: Store, sources: Sequence[Source], *, merged: bool = False) -> None:
    """Note what was found, or (with `merged`) that the result of it has been written."""
    readable = [source for source in sources if source.problem is None]
    if not merged:
        marks = np.fromiter((_mark(s.name, s.fingerprint) for s in readable), np.uint64, len(readable))
        store.write("plan.inputs", np.sort(marks).astype("<u8").tobytes())
    counts = {"inputs": len(sources), "unreadable": len(sources) - len(readable), "merged": merged}
    store.write("plan.json", json.dumps(counts).encode())


def read_snapshot(store: Store) -> InputSnapshot | None:
    """The plan, or None where there is none or it is damaged."""
    try:
        counts = json.loads(store.read("plan.json"))
        marks = np.frombuffer(store.read("plan.inputs"), "<u8").astype(np.uint64)
        return InputSnapshot(int(counts["inputs"]), int(counts["unreadable"]), marks, bool(counts["merged"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mark(name: str, fingerprint: str) -> np.uint64:
    digest = hashlib.blake2b(f"{name}\0{fingerprint}".encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
