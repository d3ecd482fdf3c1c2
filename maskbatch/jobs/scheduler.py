"""What is handed out next, and what is done about a worker that dies: the part that all executors share.

A worker that crashes, hangs or eats memory takes the unit it held down with it. The inputs that it had begun and not finished are
the suspects: each goes back as a unit of its own (or, if they are many, a quarter of them), the rest as one. Where the suspects are not
known, or were wrong once, the unit is halved. An input that is alone when a worker dies is tried once more and is then the culprit: it
becomes an error row. Every loss makes the units smaller, so that all of this ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from maskbatch.errors import InputErrorCode, WorkerError
from maskbatch.jobs.completed import PiecesBySource
from maskbatch.jobs.ledger import Ledger
from maskbatch.jobs.units import Backlog, make_unit
from maskbatch.types import PieceResult, Receipt, Source, Split, UnitRows, WorkUnit

MAX_CULPRITS_IN_A_ROW = 100
"""This many inputs quarantined with no unit finished in between: the machine is at fault, not the inputs."""

TRIES = 2
TRIES_IF_KILLED = 4
"""A worker killed from outside (SIGKILL, SIGTERM) may have met the kernel's lack of memory or an operator, not a bad input."""

FEW_SUSPECTS = 4

WHAT_HAPPENED: dict[InputErrorCode, str] = {
    "crashed": "the decoder crashed on this input and took its process down",
    "hung": "no progress within the time limit (--timeout)",
    "out_of_memory": "reading this input needed more memory than a worker may use (--max-memory)",
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
        on_moved: told how many signs of life (a frame, an input begun or ended) there were since the last time.
    """

    def __init__(
        self,
        backlog: Backlog,
        ledger: Ledger,
        key: str,
        done: PiecesBySource,
        on_receipt: Callable[[Receipt], None],
        on_note: Callable[[str], None],
        on_moved: Callable[[int], None] = lambda _signs: None,
    ) -> None:
        self._backlog = backlog
        self._ledger = ledger
        self._key = key
        self._done = done
        self._on_receipt = on_receipt
        self._on_note = on_note
        self.moved = on_moved
        self._out: dict[str, WorkUnit] = {}
        self._culprits_in_a_row: list[str] = []
        self._lost_alone: dict[str, int] = {}
        self._misled: set[str] = set()

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

    def sample(self, count: int) -> list[Source]:
        """A few of the inputs that are to be handed out, for a look at them beforehand."""
        return self._backlog.sample(count)

    def completed(self, unit: WorkUnit, answer: Receipt | Split) -> None:
        """A worker has finished a unit."""
        self._out.pop(unit.id, None)
        self._culprits_in_a_row.clear()
        if isinstance(answer, Split):
            source = unit.pieces[0].source
            known = self._done.get((source.name, source.fingerprint), {})
            self._backlog.put_pieces(
                piece
                for piece in answer.pieces
                if piece.part not in known or known[piece.part].result.parts != piece.parts
            )
        else:
            self._on_receipt(answer)

    def lost(
        self,
        unit: WorkUnit,
        cause: InputErrorCode,
        suspects: Iterable[int] | None = None,
        detail: str = "",
        killed: bool = False,
    ) -> None:
        """The worker that held a unit is gone.

        Args:
            unit: what it held.
            cause: ``crashed``, ``hung``, ``out_of_memory`` or ``internal``.
            suspects: indices of the pieces it had begun and not finished, where that is known.
            detail: what is known beyond the cause, e.g. the signal; becomes part of the culprit's message.
            killed: from outside, so that the input deserves more patience.

        Raises WorkerError when input after input is lost and nothing is ever finished.
        """
        self._out.pop(unit.id, None)
        if (receipt := self._ledger.receipt(unit.id)) is not None:  # it died between the receipt and saying so
            self.completed(unit, receipt)
            return
        if len(unit.pieces) == 1:
            self._lost_one(unit, cause, detail, TRIES_IF_KILLED if killed else TRIES)
            return
        smaller = self._split(unit, None if suspects is None else sorted(set(suspects)))
        what = f"{cause}, {detail}" if detail else cause
        self._on_note(f"a worker was lost ({what}); its {len(unit.pieces)} inputs are requeued as {len(smaller)} units")
        self._backlog.put_back(smaller)

    def returned(self, unit: WorkUnit, why: str) -> None:
        """A unit that was not finished through no fault of its inputs (its whole machine is gone) is handed out again."""
        self._out.pop(unit.id, None)
        if (receipt := self._ledger.receipt(unit.id)) is not None:
            self.completed(unit, receipt)
            return
        self._on_note(f"{why}; its {len(unit.pieces)} inputs are requeued")
        self._backlog.put_back([unit])

    def _split(self, unit: WorkUnit, suspects: list[int] | None) -> list[WorkUnit]:
        pieces = unit.pieces
        if not suspects or unit.id in self._misled:
            middle = len(pieces) // 2
            return [make_unit(half, self._key) for half in (pieces[:middle], pieces[middle:])]
        size = 1 if len(suspects) <= FEW_SUSPECTS else -(-len(suspects) // FEW_SUSPECTS)
        units = [
            make_unit((pieces[index] for index in suspects[start : start + size]), self._key)
            for start in range(0, len(suspects), size)
        ]
        rest = [piece for index, piece in enumerate(pieces) if index not in set(suspects)]
        if rest:
            units.append(make_unit(rest, self._key))
            self._misled.add(units[-1].id)  # if a worker dies on these too, the suspects were not (all of) it
        return units

    def _lost_one(self, unit: WorkUnit, cause: InputErrorCode, detail: str, tries: int) -> None:
        times = self._lost_alone[unit.id] = self._lost_alone.get(unit.id, 0) + 1
        name = unit.pieces[0].source.name
        if times < tries:
            self._on_note(f"a worker was lost on {name} ({cause}); trying again")
            self._backlog.put_back([unit])
            return
        message = WHAT_HAPPENED.get(cause, "processing this input failed") + (f": {detail}" if detail else "")
        self._on_note(f"{name} is quarantined: {message}")
        del self._lost_alone[unit.id]
        self._culprits_in_a_row.append(unit.id)
        self._quarantine(unit, cause, message)
        if len(self._culprits_in_a_row) >= MAX_CULPRITS_IN_A_ROW:
            for culprit in self._culprits_in_a_row:
                self._ledger.forget(culprit)  # the next run is to try them again
            raise WorkerError(
                f"{MAX_CULPRITS_IN_A_ROW} inputs in a row took their worker down and none was finished, so the fault is "
                f"with this machine rather than with the inputs; the last: {name}: {message}"
            )

    def _quarantine(self, unit: WorkUnit, cause: InputErrorCode, message: str) -> None:
        piece = unit.pieces[0]
        result = PieceResult(
            name=piece.source.name,
            fingerprint=piece.source.fingerprint,
            part=piece.part,
            parts=max(1, piece.parts),
            status="error",
            error=cause,
            message=message,
        )
        self._on_receipt(self._ledger.commit(unit, UnitRows(part=b"", rows=0, results=(result,))))
