"""What is handed out next, and what is done about a worker that dies: the part that all executors share.

A worker that crashes, hangs or eats memory takes the unit it held down with it. The inputs that it had begun and not finished are
the suspects: each goes back as a unit of its own, the rest as one. A suspect that is alone when a worker dies is the culprit and
becomes an error row. An executor that does not know the suspects (no messages from the worker) halves the unit instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from maskbatch.errors import InputErrorCode, WorkerError
from maskbatch.jobs.ledger import DonePiece, Ledger
from maskbatch.jobs.units import Backlog, make_unit
from maskbatch.types import PieceResult, Receipt, Split, UnitRows, WorkUnit

MAX_DEATHS_WITHOUT_WORK = 5

WHAT_HAPPENED: dict[InputErrorCode, str] = {
    "crashed": "the decoder crashed on this input and took its process down",
    "hung": "no progress within the time limit (--timeout)",
    "out_of_memory": "reading this input needed more memory than a worker may use",
}


class Scheduler:
    """Hands out units until every piece has a receipt.

    Args:
        backlog: what there is to do.
        ledger: where quarantined inputs get their receipt.
        key: the run's key, for the ids of units made here.
        done: what earlier runs did, so that the parts of a split video are not redone.
        on_receipt: told of each finished unit.
        on_note: told a sentence about each worker lost.
    """

    def __init__(
        self,
        backlog: Backlog,
        ledger: Ledger,
        key: str,
        done: dict[tuple[str, str], dict[int, DonePiece]],
        on_receipt: Callable[[Receipt], None],
        on_note: Callable[[str], None],
    ) -> None:
        self._backlog = backlog
        self._ledger = ledger
        self._key = key
        self._done = done
        self._on_receipt = on_receipt
        self._on_note = on_note
        self._out: dict[str, WorkUnit] = {}
        self._deaths_in_a_row = 0
        self._lost_alone: dict[str, int] = {}

    @property
    def finished(self) -> bool:
        """Nothing is left and nothing is out."""
        return not self._out and not len(self._backlog)

    def next(self) -> WorkUnit | None:
        """A unit for an idle worker, or None: nothing to hand out now (but a unit that is out may still come back)."""
        unit = self._backlog.next()
        if unit is not None:
            self._out[unit.id] = unit
        return unit

    def completed(self, unit: WorkUnit, answer: Receipt | Split) -> None:
        """A worker has finished a unit."""
        self._out.pop(unit.id, None)
        self._deaths_in_a_row = 0
        if isinstance(answer, Split):
            source = unit.pieces[0].source
            known = self._done.get((source.name, source.fingerprint), {})
            self._backlog.put_pieces(piece for piece in answer.pieces if piece.part not in known)
        else:
            self._on_receipt(answer)

    def lost(self, unit: WorkUnit, cause: InputErrorCode, suspects: Iterable[int] | None = None) -> None:
        """The worker that held a unit is gone.

        Args:
            unit: what it held.
            cause: ``crashed``, ``hung`` or ``out_of_memory``.
            suspects: indices of the pieces it had begun and not finished, where that is known.
        """
        self._out.pop(unit.id, None)
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > MAX_DEATHS_WITHOUT_WORK + len(unit.pieces):
            raise WorkerError(
                f"workers died {self._deaths_in_a_row} times in a row without finishing a unit; last cause: {cause}"
            )
        if len(unit.pieces) == 1:
            times = self._lost_alone[unit.id] = self._lost_alone.get(unit.id, 0) + 1
            name = unit.pieces[0].source.name
            if times == 1:
                self._on_note(f"a worker was lost on {name} ({cause}); it is tried once more")
                self._backlog.put_back([unit])
            else:
                self._on_note(f"{name} is set aside: {WHAT_HAPPENED.get(cause, cause)}")
                self._quarantine(unit, cause)
            return
        chosen = set(range(len(unit.pieces)) if suspects is None else suspects)
        if suspects is None or not chosen:
            middle = len(unit.pieces) // 2
            parcels = [unit.pieces[:middle], unit.pieces[middle:]]
        else:
            parcels = [(unit.pieces[index],) for index in sorted(chosen)]
            rest = tuple(piece for index, piece in enumerate(unit.pieces) if index not in chosen)
            if rest:
                parcels.append(rest)
        self._on_note(f"a worker was lost ({cause}); its {len(unit.pieces)} inputs go back in {len(parcels)} parcels")
        self._backlog.put_back(make_unit(parcel, self._key) for parcel in parcels)

    def _quarantine(self, unit: WorkUnit, cause: InputErrorCode) -> None:
        piece = unit.pieces[0]
        result = PieceResult(
            name=piece.source.name,
            fingerprint=piece.source.fingerprint,
            part=piece.part,
            parts=max(1, piece.parts),
            status="error",
            error=cause,
            message=WHAT_HAPPENED.get(cause, cause),
        )
        self._on_receipt(self._ledger.commit(unit, UnitRows(part=b"", rows=0, results=(result,))))
