from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from job_makers import source

from maskbatch.jobs.key import run_mark
from maskbatch.jobs.units import Backlog, make_unit, unit_id
from maskbatch.types import Piece, whole_piece

names = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60)


@given(names, names, st.integers(1, 8), st.integers(1, 40))
@settings(deadline=None)
def test_every_piece_is_handed_out_once(images: list[str], videos: list[str], workers: int, unit_images: int) -> None:
    pieces = [whole_piece(source(name)) for name in images]
    pieces += [whole_piece(source(f"{name}.mp4", size=len(name), media="video")) for name in videos]
    backlog = Backlog(pieces, "key", workers, unit_images)
    handed: list[Piece] = []
    ids = set()
    while True:
        assert len(backlog) == len(pieces) - len(handed)
        unit = backlog.next()
        if unit is None:
            break
        assert len(unit.pieces) <= unit_images
        assert len({piece.source.media for piece in unit.pieces}) == 1
        handed += unit.pieces
        ids.add(unit.id)
    key = repr
    assert sorted(handed, key=key) == sorted(pieces, key=key)
    assert len(ids) == len(set(ids))


@given(names.filter(bool))
@settings(deadline=None)
def test_an_id_is_what_a_unit_is_and_not_where_it_stands(images: list[str]) -> None:
    pieces = [whole_piece(source(name)) for name in images]
    assert unit_id(pieces, "key") == unit_id(list(pieces), "key")
    assert unit_id(pieces, "key").startswith(run_mark("key"))
    assert unit_id(pieces, "other")[8:] != unit_id(pieces, "key")[8:]
    changed = [whole_piece(source(images[0], size=11)), *pieces[1:]]
    assert unit_id(changed, "key") != unit_id(pieces, "key")


def test_ids_differ_by_every_part_of_a_piece() -> None:
    clip = source("a.mp4", media="video")
    pieces = [Piece(clip, 0, 1), Piece(clip, 0, 2), Piece(clip, 1, 2), Piece(clip, 0, 2, 5), Piece(clip, 0, 2, None, 5)]
    assert len({unit_id([piece], "key") for piece in pieces}) == len(pieces)
    assert unit_id([whole_piece(source("a", 1)), whole_piece(source("b", 1))], "k") != unit_id(
        [whole_piece(source("ab", 1))], "k"
    )


def test_what_is_put_back_comes_first_and_in_order() -> None:
    backlog = Backlog([whole_piece(source(name)) for name in "ab"], "key", 1, 1)
    first = [make_unit([whole_piece(source(name))], "key") for name in "xy"]
    backlog.put_back(first)
    backlog.put_back([make_unit([whole_piece(source("z"))], "key")])
    order = []
    while (unit := backlog.next()) is not None:
        order.append(unit.pieces[0].source.name)
    assert order == ["z", "x", "y", "a", "b"]


def test_videos_come_first_and_the_largest_of_them() -> None:
    pieces = [
        whole_piece(source("a")),
        whole_piece(source("s.mp4", 5, media="video")),
        whole_piece(source("l.mp4", 50, media="video")),
    ]
    backlog = Backlog(pieces, "key", 2, 10)
    order = [unit.pieces[0].source.name for unit in iter(backlog.next, None)]
    assert order == ["l.mp4", "s.mp4", "a"]
