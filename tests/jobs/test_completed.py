from __future__ import annotations

import tracemalloc

import pytest

from maskbatch.jobs import completed
from maskbatch.jobs.completed import CompletedPieces
from maskbatch.types import PieceResult, Receipt


def receipt(unit: str, *results: PieceResult) -> Receipt:
    rows = sum(result.faces for result in results)
    return Receipt(unit, rows, results, labels=(rows, 0, 0), part_bytes=1, part_sha256="", stages={}, wall_s=0.0)


def picture(name: str, faces: int = 0) -> PieceResult:
    return PieceResult(name, "1-2", frames_read=1, width=1920, height=1080, faces=faces, decode_s=0.0123, detect_s=0.1)


def test_every_input_is_found_with_the_place_of_its_rows() -> None:
    work = CompletedPieces()
    for unit in range(40):  # more than are kept unpacked
        work.add(receipt(f"u{unit}", *(picture(f"{unit}/{index}.jpg", faces=index) for index in range(5))))
    assert len(work) == 200
    for unit in (0, 39, 7, 0):
        found = work[f"{unit}/3.jpg", "1-2"]
        assert found.keys() == {0}
        assert (found[0].unit, found[0].offset, found[0].result.faces) == (f"u{unit}", 0 + 1 + 2, 3)
    assert ("0/3.jpg", "other") not in work
    assert ("0/9.jpg", "1-2") not in work


def test_the_first_of_two_results_of_an_input_counts() -> None:
    work = CompletedPieces()
    work.add(receipt("a", picture("x.jpg", 1)))
    work.add(receipt("b", picture("x.jpg", 2), picture("y.jpg")))
    assert work["x.jpg", "1-2"][0].unit == "a"
    assert work["y.jpg", "1-2"][0].offset == 2
    assert set(work) == {("x.jpg", "1-2"), ("y.jpg", "1-2")}


def test_names_with_the_same_hash_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completed, "_hash", lambda _key: 7)
    work = CompletedPieces()
    work.add(receipt("a", picture("x.jpg", 1), picture("y.jpg", 4)))
    work.add(receipt("b", picture("z.jpg", 2)))
    assert {key[0]: work[key][0].result.faces for key in work} == {"x.jpg": 1, "y.jpg": 4, "z.jpg": 2}
    assert ("w.jpg", "1-2") not in work


def test_a_done_picture_takes_few_bytes() -> None:
    """A parent must hold a million of them: as plain objects each took a kilobyte."""
    tracemalloc.start()
    try:
        work = CompletedPieces()
        for unit in range(100):
            work.add(receipt(f"u{unit}", *(picture(f"camera-{unit}/picture-{i:06d}.jpg", i % 3) for i in range(200))))
        each = tracemalloc.get_traced_memory()[0] / 20_000
    finally:
        tracemalloc.stop()
    assert len(work) == 20_000
    assert each < 350
