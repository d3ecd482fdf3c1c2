"""What is handed out, and how a culprit is found: simulated, since the rules do not depend on real processes."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_makers import Hasty, rows_of, source

from maskbatch.errors import WorkerError
from maskbatch.jobs import scheduler as schedulers
from maskbatch.jobs.ledger import Ledger
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.jobs.units import Backlog
from maskbatch.storage.local import LocalStore
from maskbatch.types import Piece, Receipt, Split, whole_piece


class Simulation:
    """A run over `count` pictures of which some kill every worker that touches them."""

    def __init__(self, folder: Path, count: int, workers: int = 2, unit_images: int = 16) -> None:
        self.ledger = Ledger(LocalStore(folder, Hasty()))
        self.receipts: list[Receipt] = []
        self.notes: list[str] = []
        self.losses = 0
        pieces = [whole_piece(source(f"{number:03d}")) for number in range(count)]
        backlog = Backlog(pieces, "key", workers, unit_images)
        self.scheduler = Scheduler(backlog, self.ledger, "key", {}, self.receipts.append, self.notes.append)

    def run(self, culprits: set[str], suspicion: str, chance: random.Random) -> None:
        while not self.scheduler.finished:
            unit = self.scheduler.next()
            assert unit is not None
            names = [piece.source.name for piece in unit.pieces]
            guilty = [index for index, name in enumerate(names) if name in culprits]
            if not guilty:
                self.scheduler.completed(unit, self.ledger.commit(unit, rows_of(unit)))
                continue
            self.losses += 1
            suspects = {
                "unknown": None,
                "none": set[int](),
                "exact": {guilty[0]},
                "ahead": set(range(guilty[0], min(len(names), guilty[0] + 9))),
                "wrong": {chance.randrange(len(names))},
                "all": set(range(len(names))),
            }[suspicion]
            self.scheduler.lost(unit, "crashed", suspects, "SIGSEGV")


@given(
    count=st.integers(1, 60),
    culprits=st.sets(st.integers(0, 59), max_size=12),
    suspicion=st.sampled_from(["unknown", "none", "exact", "ahead", "wrong", "all"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_every_piece_ends_once_and_culprits_alone_in_error(
    tmp_path_factory: pytest.TempPathFactory, count: int, culprits: set[int], suspicion: str, seed: int
) -> None:
    simulation = Simulation(tmp_path_factory.mktemp("run"), count)
    guilty = {f"{number:03d}" for number in culprits if number < count}
    simulation.run(guilty, suspicion, random.Random(seed))
    ended = Counter(result.name for receipt in simulation.receipts for result in receipt.results)
    assert ended == Counter(f"{number:03d}" for number in range(count))
    failed = [result for receipt in simulation.receipts for result in receipt.results if result.status != "ok"]
    assert {result.name for result in failed} == guilty
    assert all(result.error == "crashed" and "SIGSEGV" in result.message for result in failed)
    assert simulation.losses <= 14 * len(guilty) + 2
    assert {name for name, _ in simulation.ledger.done()} == set(ended)


def test_a_lost_input_is_tried_twice_and_a_killed_worker_forgiven_more_often(tmp_path: Path) -> None:
    for killed, tries in ((False, schedulers.TRIES), (True, schedulers.TRIES_IF_KILLED)):
        simulation = Simulation(tmp_path / str(killed), 1)
        for _ in range(tries):
            assert not simulation.receipts
            unit = simulation.scheduler.next()
            assert unit is not None
            simulation.scheduler.lost(unit, "crashed", {0}, killed=killed)
        assert simulation.receipts
        assert simulation.scheduler.finished


def test_a_worker_that_died_after_its_receipt_has_finished(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, 3)
    unit = simulation.scheduler.next()
    assert unit is not None
    simulation.ledger.commit(unit, rows_of(unit))
    simulation.scheduler.lost(unit, "crashed", {2})
    assert simulation.scheduler.finished
    assert [receipt.unit for receipt in simulation.receipts] == [unit.id]


def test_when_everything_dies_the_machine_is_to_blame_and_nothing_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "MAX_CULPRITS_IN_A_ROW", 10)
    simulation = Simulation(tmp_path, 40)
    with pytest.raises(WorkerError, match="the fault is with this machine"):
        simulation.run({f"{number:03d}" for number in range(40)}, "exact", random.Random(0))
    assert simulation.ledger.done() == {}


def test_a_split_video_comes_back_in_parts_and_done_ones_do_not(tmp_path: Path) -> None:
    ledger = Ledger(LocalStore(tmp_path))
    clip = source("clip.mp4", media="video")
    parts = tuple(Piece(clip, part, 3) for part in range(3))
    from maskbatch.jobs.units import make_unit

    done_unit = make_unit([parts[1]], "key")
    ledger.commit(done_unit, rows_of(done_unit))
    receipts: list[Receipt] = []
    backlog = Backlog([whole_piece(clip)], "key", 1, 8)
    scheduler = Scheduler(backlog, ledger, "key", ledger.done(), receipts.append, lambda _note: None)
    unit = scheduler.next()
    assert unit is not None
    scheduler.completed(unit, Split(parts))
    left = []
    while (unit := scheduler.next()) is not None:
        left.append(unit.pieces)
        scheduler.completed(unit, ledger.commit(unit, rows_of(unit)))
    assert left == [(parts[0],), (parts[2],)]
    assert scheduler.finished


def test_a_video_cut_anew_is_done_anew(tmp_path: Path) -> None:
    """A part that is done counts only for the cut it was made with."""
    ledger = Ledger(LocalStore(tmp_path))
    from maskbatch.jobs.units import make_unit

    clip = source("clip.mp4", media="video")
    old = make_unit([Piece(clip, 0, 2)], "key")
    ledger.commit(old, rows_of(old))
    scheduler = Scheduler(
        Backlog([whole_piece(clip)], "key", 1, 8),
        ledger,
        "key",
        ledger.done(),
        lambda _receipt: None,
        lambda _note: None,
    )
    unit = scheduler.next()
    assert unit is not None
    scheduler.completed(unit, Split(tuple(Piece(clip, part, 3) for part in range(3))))
    left = [unit.pieces[0].part for unit in iter(scheduler.next, None)]
    assert left == [0, 1, 2]
