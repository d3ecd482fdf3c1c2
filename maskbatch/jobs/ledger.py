"""The work folder: what has been done, so that nothing is done twice and nothing half-done counts.

::

    results.work/
        key.json              settings, models, roots: what the work belongs to
        plan.json             how many inputs were found, and whether their result has been written (`jobs.plan`)
        plan.inputs           a hash per input
        lock                  who is writing (`jobs.lock`)
        parts/UNIT.parquet    the rows of a unit; every id begins with the mark of the run's key
        receipts/UNIT.json    written after the part; with it the unit is done

Done means: the receipt is whole and of this run's key, its part exists with the size the receipt names, and the receipt's fingerprint
of an input is that of the input now. All else is redone. Piece by piece, not unit by unit: adding a file to a folder redoes that file
alone. The part's sum is checked when it is read for the merge; a part that rotted loses its receipt, and its inputs are redone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

from maskbatch.errors import OutputError, SettingsChangedError
from maskbatch.jobs import receipts
from maskbatch.jobs.completed import CompletedPieces
from maskbatch.jobs.units import run_mark
from maskbatch.storage import Store
from maskbatch.types import Receipt, UnitRows, WorkUnit


class DamagedPartError(Exception):
    """A part is not what its receipt says; `unit` must be redone."""

    def __init__(self, unit: str) -> None:
        super().__init__(f"the part of unit {unit} is damaged")
        self.unit = unit


def key_text(key: dict[str, Any]) -> str:
    """A run's key as the short text that the ids of its units are made with."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()


class Ledger:
    """One work folder. Workers call `commit`; the parent calls everything else.

    Args:
        store: the folder.
        key: the run's key; receipts of other runs are passed over. Without it none is.
    """

    def __init__(self, store: Store, key: dict[str, Any] | None = None) -> None:
        self.store = store
        self._mark = "" if key is None else run_mark(key_text(key))

    # --- what the work belongs to

    def claim(self, key: dict[str, Any]) -> None:
        """Bind the folder to these settings; raises SettingsChangedError naming the difference if it has others."""
        self._mark = run_mark(key_text(key))
        key = _as_stored(key)
        try:
            old = self.key()
        except FileNotFoundError:
            self.store.write("key.json", json.dumps(key, indent=1, sort_keys=True).encode())
            return
        difference = describe_difference(old, key)
        if difference:
            raise SettingsChangedError(
                f"{self.store.url} holds work done with other settings or models: {difference}. "
                "Use the same ones to continue, another --out, or --restart to begin anew."
            )

    def key(self) -> dict[str, Any]:
        """What the folder is bound to; raises FileNotFoundError where it is bound to nothing, OutputError where that is damaged."""
        try:
            key = json.loads(self.store.read("key.json"))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OutputError(f"cannot read {self.store.url}/key.json: {error.strerror or error}") from error
        except ValueError:
            key = None
        if not isinstance(key, dict):
            raise OutputError(
                f"{self.store.url}/key.json is damaged, so whose work lies there is unknown; use --restart to begin anew"
            )
        return key

    def belongs_to(self, key: dict[str, Any]) -> bool:
        """Whether the folder holds work of a run with this key."""
        try:
            return self.key() == _as_stored(key)
        except (FileNotFoundError, OutputError):
            return False

    def clear(self) -> None:
        """Forget all work."""
        for folder in ("receipts", "parts"):  # receipts first: without them the parts are nothing
            for name in self.store.names(folder):
                self.store.remove(f"{folder}/{name}")
        for name in ("plan.json", "plan.inputs", "key.json"):
            self.store.remove(name)

    def clear_temporaries(self) -> None:
        """Remove what killed workers left half-written."""
        for folder in (".", "parts", "receipts"):
            self.store.remove_temporaries(folder)

    # --- what a worker leaves

    def commit(self, unit: WorkUnit, rows: UnitRows) -> Receipt:
        """Make a unit final: the part first, then the receipt that says it is there."""
        receipt = Receipt(
            unit=unit.id,
            rows=rows.rows,
            results=rows.results,
            labels=rows.labels,
            part_bytes=len(rows.part),
            part_sha256=hashlib.sha256(rows.part).hexdigest() if rows.rows else "",
            stages=rows.stages,
            wall_s=time.monotonic() - rows.started if rows.started else 0.0,
        )
        if rows.rows:
            self.store.write(f"parts/{unit.id}.parquet", rows.part)
        self.store.write(f"receipts/{unit.id}.json", receipts.dump(receipt))
        return receipt

    # --- what is done

    def receipts(self) -> Iterator[Receipt]:
        """All receipts that hold, in the order of their names; damaged ones and those without their part are passed over."""
        names = self.store.names("receipts")
        parts = self.store.sizes("parts")  # listed after the receipts: a part is older than its receipt
        wanted = [f"receipts/{name}" for name in names if name.startswith(self._mark) and name.endswith(".json")]
        for name, data in self.store.read_many(wanted):
            unit = name.removeprefix("receipts/").removesuffix(".json")
            receipt = _holding(unit, data, parts.get(f"{unit}.parquet"))
            if receipt is not None:
                yield receipt

    def receipt(self, unit: str) -> Receipt | None:
        """The receipt of a unit if it holds, else None."""
        try:
            data = self.store.read(f"receipts/{unit}.json")
        except OSError:
            return None
        return _holding(unit, data, self.store.size(f"parts/{unit}.parquet"))

    def part(self, unit: str) -> bytes:
        """The part file of a done unit; raises DamagedPartError unless it is what the receipt says."""
        receipt = self.receipt(unit)
        try:
            data = self.store.read(f"parts/{unit}.parquet")
        except OSError as error:
            raise DamagedPartError(unit) from error
        if receipt is None or hashlib.sha256(data).hexdigest() != receipt.part_sha256:
            raise DamagedPartError(unit)
        return data

    def forget(self, unit: str) -> None:
        """Undo a unit: its inputs are to be done again."""
        self.store.remove(f"receipts/{unit}.json")

    def done(self) -> CompletedPieces:
        """All pieces that are done."""
        found = CompletedPieces()
        for receipt in self.receipts():
            found.add(receipt)
        return found


def _holding(unit: str, data: bytes | None, part_bytes: int | None) -> Receipt | None:
    """The receipt in these bytes if it is whole, of this unit, and its part has the size that it names."""
    try:
        receipt = receipts.load(data or b"")
    except ValueError:
        return None
    return receipt if receipt.unit == unit and (not receipt.rows or part_bytes == receipt.part_bytes) else None


def _as_stored(key: dict[str, Any]) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(key, default=str))
    return stored


def describe_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """The entries in which two keys differ, as ``name: old → new``; empty where they agree."""
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
