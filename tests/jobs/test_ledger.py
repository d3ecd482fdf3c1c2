from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_makers import Hasty, result, rows_of, source

from maskbatch.errors import OutputError, SettingsChangedError
from maskbatch.jobs.completed import is_complete, remaining
from maskbatch.jobs.key import RunKey, describe_difference
from maskbatch.jobs.ledger import DamagedPartError, Ledger
from maskbatch.jobs.units import make_unit
from maskbatch.storage.local import LocalStore
from maskbatch.types import Piece, Problem, Source, UnitRows, WorkUnit, whole_piece

KEY = RunKey({"in": "/in"}, {"detection.min_score": 0.5}, {"m": "0" * 64})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(LocalStore(tmp_path / "r.work"))
    made.claim(KEY)
    return made


def unit_of(*pieces: Piece, key: RunKey = KEY) -> WorkUnit:
    return make_unit(pieces, key.text)


def commit(ledger: Ledger, *pieces: Piece, faces: int = 1) -> str:
    unit = unit_of(*pieces)
    ledger.commit(unit, rows_of(unit, faces))
    return unit.id


def test_a_committed_piece_is_done_and_its_rows_are_found(ledger: Ledger) -> None:
    a, b = whole_piece(source("a")), whole_piece(source("b"))
    unit = commit(ledger, a, b, faces=3)
    done = ledger.done()
    assert [(found[0].unit, found[0].offset) for found in done.values()] == [(unit, 0), (unit, 3)]
    assert remaining([a.source, b.source, source("c")], done) == [whole_piece(source("c"))]
    assert ledger.part(unit) == f"rows of {unit}".encode()


def test_a_changed_input_is_not_done(ledger: Ledger) -> None:
    commit(ledger, whole_piece(source("a")))
    for changed in (source("a", size=11), source("a", mtime_ns=2), source("b")):
        assert remaining([changed], ledger.done()) == [whole_piece(changed)]


def test_an_unreadable_input_is_never_handed_out(ledger: Ledger) -> None:
    fifo = Source("/in/p", "p", "image", problem=Problem("error", "special_file", "a FIFO"))
    assert remaining([fifo], ledger.done()) == []


def test_a_video_is_done_when_all_its_parts_are(ledger: Ledger) -> None:
    clip = source("clip.mp4", media="video")
    for part in (0, 2):
        commit(ledger, Piece(clip, part, 3))
    assert not is_complete(ledger.done()["clip.mp4", clip.fingerprint])
    assert remaining([clip], ledger.done()) == [whole_piece(clip)]
    commit(ledger, Piece(clip, 1, 3))
    assert remaining([clip], ledger.done()) == []


@pytest.mark.parametrize("parts_first", [True, False])
def test_of_two_cuts_of_a_video_the_complete_one_counts(ledger: Ledger, parts_first: bool) -> None:
    clip = source("clip.mp4", media="video")
    cut = [Piece(clip, part, 3) for part in range(3)]
    for pieces in ([cut[1]], [Piece(clip)]) if parts_first else ([Piece(clip)], [cut[1]]):
        commit(ledger, *pieces)
    found = ledger.done()["clip.mp4", clip.fingerprint]
    assert found.keys() == {0}
    assert found[0].result.parts == 1
    commit(ledger, cut[0])
    commit(ledger, cut[2])
    assert ledger.done()["clip.mp4", clip.fingerprint].keys() == {0, 1, 2}


def test_work_of_another_key_is_passed_over(ledger: Ledger) -> None:
    stray = make_unit([whole_piece(source("a"))], "another run's key")
    ledger.commit(stray, rows_of(stray))
    assert ledger.done() == {}
    assert Ledger(ledger.store).done().keys() == {("a", source("a").fingerprint)}


def test_a_receipt_under_another_name_is_passed_over(ledger: Ledger) -> None:
    unit = commit(ledger, whole_piece(source("a")))
    other = unit[:8] + "0" * 24
    ledger.store.write(f"receipts/{other}.json", ledger.store.read(f"receipts/{unit}.json"))
    ledger.store.remove(f"receipts/{unit}.json")
    assert ledger.done() == {}


def test_a_part_that_rotted_is_noticed(ledger: Ledger) -> None:
    unit = commit(ledger, whole_piece(source("a")))
    data = ledger.store.read(f"parts/{unit}.parquet")
    ledger.store.write(f"parts/{unit}.parquet", b"R" + data[1:])  # of the same size
    with pytest.raises(DamagedPartError):
        ledger.part(unit)
    ledger.forget(unit)
    assert ledger.done() == {}
    with pytest.raises(DamagedPartError):
        ledger.part(unit)


def test_a_unit_without_rows_has_no_part(ledger: Ledger) -> None:
    unit = unit_of(whole_piece(source("a")))
    ledger.commit(unit, UnitRows(b"", 0, (result(unit.pieces[0]),)))
    assert ledger.store.names("parts") == []
    assert len(ledger.done()) == 1


@given(st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_of_any_kind_only_makes_less_done(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    ledger = Ledger(LocalStore(tmp_path_factory.mktemp("ledger"), Hasty()))
    ledger.claim(KEY)
    groups = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    pieces = [[whole_piece(source(f"{group}-{index}")) for index in range(count)] for group, count in enumerate(groups)]
    for group in pieces:
        commit(ledger, *group)
    before = ledger.done()
    kind = data.draw(st.sampled_from(["receipts", "parts"]))
    name = data.draw(st.sampled_from(ledger.store.names(kind)))
    content = bytearray(ledger.store.read(f"{kind}/{name}"))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "replace", "remove"]))
    if how == "flip":
        position = data.draw(st.integers(0, len(content) * 8 - 1))
        content[position // 8] ^= 1 << position % 8
    elif how == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif how == "grow":
        content += data.draw(st.binary(min_size=1, max_size=9))
    elif how == "replace":
        content = bytearray(data.draw(st.binary(max_size=99)))
    if how == "remove":
        ledger.store.remove(f"{kind}/{name}")
    else:
        ledger.store.write(f"{kind}/{name}", bytes(content))
    after = ledger.done()
    assert after.items() <= before.items()
    assert len(before) - len(after) <= max(groups)


# --- whose work it is


def test_the_same_key_is_welcome_and_another_is_named(ledger: Ledger) -> None:
    ledger.claim(KEY)
    assert ledger.belongs_to(KEY)
    other = replace(KEY, settings={"detection.min_score": 0.7})
    assert not ledger.belongs_to(other)
    with pytest.raises(SettingsChangedError, match=r"settings\.detection\.min_score: 0\.5 → 0\.7"):
        ledger.claim(other)
    ledger.clear()
    ledger.claim(other)
    assert ledger.belongs_to(other)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"\xff", b'{"a":'])
def test_a_damaged_key_is_neither_ours_nor_a_crash(ledger: Ledger, content: bytes) -> None:
    ledger.store.write("key.json", content)
    assert not ledger.belongs_to(KEY)
    with pytest.raises(OutputError, match="damaged"):
        ledger.claim(KEY)


def test_clearing_leaves_nothing_that_counts(ledger: Ledger) -> None:
    commit(ledger, whole_piece(source("a")))
    ledger.clear()
    assert ledger.done() == {}
    assert ledger.store.names("parts") == ledger.store.names("receipts") == []


keys = st.dictionaries(
    st.sampled_from("abc"),
    st.integers() | st.dictionaries(st.sampled_from("xy"), st.text(max_size=2), max_size=2),
    max_size=3,
)


@given(keys, keys)
@settings(deadline=None)
def test_a_difference_is_described_exactly_where_there_is_one(old: dict[str, object], new: dict[str, object]) -> None:
    def leaves(key: dict[str, object]) -> dict[str, object]:
        return {f"{a}.{b}": c for a, inner in key.items() if isinstance(inner, dict) for b, c in inner.items()} | {
            a: inner for a, inner in key.items() if not isinstance(inner, dict)
        }

    text = describe_difference(old, new)
    if old == new:
        assert text == ""
    elif leaves(old) != leaves(new):
        assert "→" in text
