"""The work folder: what has been done, so that nothing is done twice and nothing half-done counts.

::

    results.work/
        key.json              settings, models, roots: what the work belongs to
        snapshot.json         how many inputs were found, and whether their result has been written (`jobs.snapshot`)
        snapshot.inputs       a hash per input
        lock                  who is writing (`storage.file_lock`)
        draw/                 key and receipts again, for what is drawn from the rows (`scanning.draw`)
        rows.parquet          the rows of a data set in the order of the inputs, while they are drawn or tracked
        parts/UNIT.parquet    the rows of a unit; every id begins with the mark of the run's key
        receipts/UNIT.json    written after the part; with it the unit is done

Done means: the receipt is whole and of this run's key, its part exists with the size the receipt names, and the receipt's fingerprint
of an input is that of the input now. All else is redone. Piece by piece, not unit by unit: adding a file to a folder redoes that file
alone. The part's checksum is checked when it is read for the merge; a part that decayed on the disk loses its receipt, and its inputs are reprocessed.
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
from maskbatch.jobs.key import RunKey, describe_difference
from maskbatch.storage import Store
from maskbatch.types import Receipt, UnitRows, WorkUnit


class DamagedPartError(Exception):
    """A part is not what its receipt says; `unit` must be redone."""

    def __init__(self, unit: str) -> None:
        super().__init__(f"the part of unit {unit} is damaged")
        self.unit = unit


class Ledger:
    """One work folder. Workers call `commit`; the parent calls everything else.

    Args:
        store: the folder.
        key: the run's key; receipts of other runs are skipped. Without it all count.
    """

    def __init__(self, store: Store, key: RunKey | None = None) -> None:
        self.store = store
        self._mark = "" if key is None else key.mark

    # --- what the work belongs to

    def claim(self, key: RunKey) -> None:
        """Bind the folder to these settings; raises SettingsChangedError naming the difference if it has others."""
        self._mark = key.mark
        stored = key.as_dict()
        try:
            old = self.stored_key()
        except FileNotFoundError:
            self.store.write("key.json", json.dumps(stored, indent=1, sort_keys=True).encode())
            return
        difference = describe_difference(old, stored)
        if difference:
            raise SettingsChangedError(
                f"{self.store.url} holds work done with other settings or models: {difference}. "
                "Use the same ones to continue, another --out, or --restart to begin anew."
            )

    def stored_key(self) -> dict[str, Any]:
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

    def key(self) -> RunKey:
        """The key that the folder is bound to; raises as `stored_key`."""
        return RunKey.from_dict(self.stored_key())

    def belongs_to(self, key: RunKey) -> bool:
        """Whether the folder holds work of a run with this key."""
        try:
            return self.stored_key() == key.as_dict()
        except (FileNotFoundError, OutputError):
            return False

    def clear(self) -> None:
        """Forget all work."""
        for folder in ("draw/receipts", "receipts", "parts"):  # receipts first: without them the parts are nothing
            for name in self.store.names(folder):
                self.store.remove(f"{folder}/{name}")
        for name in ("draw/key.json", "snapshot.json", "snapshot.inputs", "rows.parquet", "key.json"):
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
        """All receipts that hold, in the order of their names; damaged ones and those without their part are skipped."""
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
