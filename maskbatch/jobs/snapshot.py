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
    """The inputs of a run.

    Attributes:
        inputs: all that were found.
        unreadable: those that the discovery already knew to be unreadable.
        hashes: sorted uint64 hashes of the others.
        merged: the result was written from all of them.
    """

    inputs: int
    unreadable: int
    hashes: npt.NDArray[np.uint64]
    merged: bool

    def holds(self, name: str, fingerprint: str) -> bool:
        """Whether this version of an input is among them."""
        wanted = _hash(name, fingerprint)
        at = int(np.searchsorted(self.hashes, wanted))
        return at < len(self.hashes) and self.hashes[at] == wanted


def write_snapshot(store: Store, sources: Sequence[Source], *, merged: bool = False) -> None:
    """Note what was found, or (with `merged`) that the result of it has been written."""
    readable = [source for source in sources if source.problem is None]
    if not merged:
        hashes = np.fromiter((_hash(s.name, s.fingerprint) for s in readable), np.uint64, len(readable))
        store.write("snapshot.inputs", np.sort(hashes).astype("<u8").tobytes())
    counts = {"inputs": len(sources), "unreadable": len(sources) - len(readable), "merged": merged}
    store.write("snapshot.json", json.dumps(counts).encode())


def read_snapshot(store: Store) -> InputSnapshot | None:
    """The snapshot, or None where there is none or it is damaged."""
    try:
        counts = json.loads(store.read("snapshot.json"))
        hashes = np.frombuffer(store.read("snapshot.inputs"), "<u8").astype(np.uint64)
        return InputSnapshot(int(counts["inputs"]), int(counts["unreadable"]), hashes, bool(counts["merged"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash(name: str, fingerprint: str) -> np.uint64:
    digest = hashlib.blake2b(f"{name}\0{fingerprint}".encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
