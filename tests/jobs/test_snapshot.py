from __future__ import annotations

from pathlib import Path

import pytest
from job_makers import source

from maskbatch.jobs.snapshot import read_snapshot, write_snapshot
from maskbatch.storage.local import LocalStore
from maskbatch.types import Problem, Source


def test_a_snapshot_knows_its_inputs_by_content(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    sources = [source(f"{number}.jpg") for number in range(50)]
    sources.append(Source("/in/p", "p", "image", problem=Problem("error", "special_file", "a FIFO")))
    write_snapshot(store, sources)
    snapshot = read_snapshot(store)
    assert snapshot is not None
    assert (snapshot.inputs, snapshot.unreadable, snapshot.merged) == (51, 1, False)
    assert all(snapshot.holds(s.name, s.fingerprint) for s in sources[:-1])
    assert not snapshot.holds("0.jpg", "other")
    assert not snapshot.holds("none.jpg", sources[0].fingerprint)
    write_snapshot(store, sources, merged=True)
    snapshot = read_snapshot(store)
    assert snapshot is not None
    assert snapshot.merged
    assert snapshot.holds("0.jpg", sources[0].fingerprint)


@pytest.mark.parametrize(
    ("name", "content"),
    [("snapshot.json", b"[]"), ("snapshot.json", b"{}"), ("snapshot.json", b"\xff"), ("snapshot.inputs", b"1234567")],
)
def test_a_damaged_snapshot_is_none(tmp_path: Path, name: str, content: bytes) -> None:
    store = LocalStore(tmp_path)
    assert read_snapshot(store) is None
    write_snapshot(store, [source("a")])
    store.write(name, content)
    assert read_snapshot(store) is None
