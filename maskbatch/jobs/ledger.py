"""The work folder: what has been done, so that nothing is done twice and nothing half-done counts.

::

    results.work/
        key.json              settings, models, roots: what the work belongs to
        lock                  who is writing (`jobs.lock`)
        parts/UNIT.parquet    the rows of a unit
        receipts/UNIT.json    written after the part; with it the unit is done

Done means: the receipt is whole, its part exists with the size the receipt names, and the receipt's fingerprint of an input is
that of the input now. All else is redone. Piece by piece, not unit by unit: adding a file to a folder redoes that file alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from maskbatch.errors import SettingsChangedError
from maskbatch.jobs import receipts
from maskbatch.jobs.store import LocalStore, Store
from maskbatch.types import Piece, PieceResult, Receipt, Source, UnitRows, WorkUnit, whole


@dataclass(frozen=True, slots=True)
class DonePiece:
    """A piece that is done, and where its rows are: `faces` rows from `offset` of the part of `unit`."""

    unit: str
    offset: int
    result: PieceResult


class Ledger:
    """One work folder. Workers call `commit`; the parent calls everything else."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # --- what the work belongs to

    def claim(self, key: dict[str, Any]) -> None:
        """Bind the folder to these settings; raises SettingsChangedError naming the difference if it has others."""
        try:
            old = json.loads(self.store.read("key.json"))
        except FileNotFoundError:
            self.store.write("key.json", json.dumps(key, indent=1, sort_keys=True).encode())
            return
        except ValueError:
            old = {}
        difference = describe_difference(old, key)
        if difference:
            raise SettingsChangedError(
                f"{self.store.url} holds work done with other settings or models: {difference}. "
                "Use the same ones to continue, another --out, or --restart to begin anew."
            )

    def clear(self) -> None:
        """Forget all work."""
        for folder in ("receipts", "parts"):  # receipts first: without them the parts are nothing
            for name in self.store.names(folder):
                self.store.remove(f"{folder}/{name}")
        self.store.remove("plan.json")
        self.store.remove("key.json")

    def clear_temporaries(self) -> None:
        """Remove what killed workers left half-written."""
        if isinstance(self.store, LocalStore):
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
        for name in self.store.names("receipts"):
            unit, _, ending = name.rpartition(".")
            if ending != "json":
                continue
            try:
                receipt = receipts.load(self.store.read(f"receipts/{name}"))
            except (OSError, ValueError):
                continue
            part_holds = not receipt.rows or self.store.size(f"parts/{unit}.parquet") == receipt.part_bytes
            if receipt.unit == unit and part_holds:
                yield receipt

    def done(self) -> dict[tuple[str, str], dict[int, DonePiece]]:
        """Done pieces by (source name, fingerprint), then by part number."""
        found: dict[tuple[str, str], dict[int, DonePiece]] = {}
        for receipt in self.receipts():
            offset = 0
            for result in receipt.results:
                pieces = found.setdefault((result.name, result.fingerprint), {})
                pieces.setdefault(result.part, DonePiece(receipt.unit, offset, result))
                offset += result.faces
        return found


def is_complete(pieces: dict[int, DonePiece]) -> bool:
    """Whether all parts of a source are among its done pieces."""
    first = next(iter(pieces.values()), None)
    return first is not None and all(part in pieces for part in range(first.result.parts))


def remaining(sources: Iterable[Source], done: dict[tuple[str, str], dict[int, DonePiece]]) -> list[Piece]:
    """The pieces still to do. A video of which some parts are done is looked into again; those parts are then dropped."""
    return [
        whole(source)
        for source in sources
        if source.problem is None and not is_complete(done.get((source.name, source.fingerprint), {}))
    ]


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
