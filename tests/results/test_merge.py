"""Parts to results: the bytes depend on the rows alone, and no input gets lost on the way."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskbatch.jobs.key import RunKey
from maskbatch.jobs.ledger import DamagedPartError, Ledger
from maskbatch.jobs.units import make_unit
from maskbatch.results.merge import ROW_GROUP, GroupWriter, PartCache, ResultWriter, combine, walk, with_run_metadata
from maskbatch.results.schema import PART, RESULTS
from maskbatch.storage.atomic import FileOps
from maskbatch.storage.local import LocalStore
from maskbatch.types import Piece, PieceResult, Problem, Source, UnitRows

KEY = RunKey({})
METADATA = {"tool": "test"}


class Hasty(FileOps):
    def fsync(self, fileno: int) -> None:
        pass


def faces_of(piece: Piece, count: int) -> pa.Table:
    """Rows that tell which piece they are of."""
    seed = sum(piece.source.name.encode()) * 31 + piece.part
    chance = np.random.default_rng(seed)
    rows = []
    for face in range(count):
        scores = chance.random(3).astype(np.float32)
        row = {field.name: np.float32(chance.random()) for field in PART if pa.types.is_float32(field.type)}
        video = piece.source.media == "video"
        frame = piece.part * 100 + face if video else None
        row |= {"frame": frame, "time_s": None if frame is None else frame / 10, "face": face, "landmarks": None}
        row |= dict(
            zip(("p_with_mask", "p_without_mask", "p_mask_weared_incorrect"), scores / scores.sum(), strict=True)
        )
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=PART)


def commit(ledger: Ledger, pieces: list[tuple[Piece, int]]) -> str:
    table = pa.concat_tables([faces_of(piece, count) for piece, count in pieces])
    sink = io.BytesIO()
    pq.write_table(table, sink)
    results = tuple(
        PieceResult(p.source.name, p.source.fingerprint, p.part, max(1, p.parts), faces=count, frames_read=1)
        for p, count in pieces
    )
    unit = make_unit([piece for piece, _ in pieces], KEY.text)
    ledger.commit(unit, UnitRows(sink.getvalue(), len(table), results))
    return unit.id


def merge(ledger: Ledger, sources: list[Source]) -> tuple[bytes, bytes, ResultWriter]:
    results, inputs = io.BytesIO(), io.BytesIO()
    writer = ResultWriter([GroupWriter(results, with_run_metadata(RESULTS, METADATA), ROW_GROUP)], inputs, METADATA)
    for item in walk(sources, ledger.done(), PartCache(ledger)):
        writer.add(item, None)
    writer.close()
    return results.getvalue(), inputs.getvalue(), writer


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_the_bytes_do_not_depend_on_how_the_work_was_cut(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    pieces = []
    for number, count in enumerate(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))):
        if number % 3 == 2:
            clip = Source(f"/in/{number}.mp4", f"{number}.mp4", "video", 5, 1)
            pieces += [(Piece(clip, part, 2), count) for part in range(2)]
        else:
            pieces.append((Piece(Source(f"/in/{number}.jpg", f"{number}.jpg", "image", 5, 1, camera="c")), count))
    sources = list(dict.fromkeys(piece.source for piece, _ in pieces))
    made = set()
    for _ in range(2):
        ledger = Ledger(LocalStore(tmp_path_factory.mktemp("ledger"), Hasty()))
        todo = data.draw(st.permutations(pieces))
        while todo:
            size = data.draw(st.integers(1, len(todo)))
            commit(ledger, list(todo[:size]))
            todo = todo[size:]
        results, _, writer = merge(ledger, sources)
        made.add(results)
        assert writer.totals.inputs == len(sources)
        assert (
            writer.totals.faces == sum(count for _, count in pieces) == pq.read_metadata(io.BytesIO(results)).num_rows
        )
    assert len(made) == 1
    table = pq.read_table(io.BytesIO(made.pop())).to_pandas()
    order = {source.name: rank for rank, source in enumerate(sources)}
    keys = [
        (order[str(s)], -1 if np.isnan(f) else f, k)
        for s, f, k in zip(table.source, table.frame, table.face, strict=True)
    ]
    assert keys == sorted(keys)


@given(st.lists(st.integers(1, 700), max_size=30), st.integers(1, 500))
@settings(max_examples=25, deadline=None)
def test_row_groups_are_the_same_however_rows_arrive(chunks: list[int], group: int) -> None:
    schema = pa.schema([("number", pa.int64())])
    table = pa.table({"number": pa.array(range(sum(chunks)), pa.int64())}, schema=schema)

    def written(pieces: Iterator[pa.Table]) -> bytes:
        sink = io.BytesIO()
        writer = GroupWriter(sink, schema, group)
        for piece in pieces:
            writer.add(piece)
        writer.close()
        return sink.getvalue()

    def cut() -> Iterator[pa.Table]:
        at = 0
        for size in chunks:
            yield table.slice(at, size)
            at += size

    assert written(cut()) == written(iter([table]))


def test_an_empty_result_has_the_whole_schema(tmp_path: Path) -> None:
    results, inputs, writer = merge(Ledger(LocalStore(tmp_path)), [])
    table = pq.read_table(io.BytesIO(results))
    assert table.num_rows == 0
    assert table.schema.names == RESULTS.names
    assert pq.read_metadata(io.BytesIO(inputs)).num_rows == writer.totals.inputs == 0


def test_a_rotten_part_is_told_by_its_unit(tmp_path: Path) -> None:
    ledger = Ledger(LocalStore(tmp_path))
    source = Source("/in/a.jpg", "a.jpg", "image", 5, 1)
    unit = commit(ledger, [(Piece(source), 2)])
    path = tmp_path / "parts" / f"{unit}.parquet"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedPartError) as caught:
        merge(ledger, [source])
    assert caught.value.unit == unit


CLIP = Source("/in/v.mp4", "v.mp4", "video", 5, 1)


def part(number: int, **fields: object) -> PieceResult:
    return PieceResult("v.mp4", CLIP.fingerprint, number, 3, **fields)  # type: ignore[arg-type]


def test_the_parts_of_a_video_add_up() -> None:
    parts = [part(n, frames_read=10, frames_failed=n, frames_skipped=1, faces=2, duration_s=9.0) for n in range(3)]
    total = combine(CLIP, parts)
    assert (total.status, total.frames_read, total.frames_failed, total.frames_skipped, total.faces) == (
        "ok",
        30,
        3,
        3,
        6,
    )
    assert total.duration_s == 9.0


def test_a_failed_part_makes_a_video_partial_and_only_all_of_them_an_error() -> None:
    crash = {"status": "error", "error": "crashed", "message": "the decoder crashed"}
    some = combine(CLIP, [part(0, frames_read=5), part(1, **crash), part(2, frames_read=5)])
    assert (some.status, some.error, some.message) == ("partial", "crashed", "the decoder crashed")
    assert combine(CLIP, [part(n, **crash) for n in range(3)]).status == "error"


def test_missing_answers_are_never_ok() -> None:
    assert combine(CLIP, []).status == "error"
    some = combine(CLIP, [part(0, frames_read=5), part(2, frames_read=5)])
    assert some.status == "partial"
    assert "1 of its 3 parts" in some.message


def test_what_discovery_knows_needs_no_worker() -> None:
    fifo = Source("/in/p", "p.jpg", "image", problem=Problem("error", "special_file", "a FIFO"))
    total = combine(fifo, [])
    assert (total.status, total.error, total.message) == ("error", "special_file", "a FIFO")
