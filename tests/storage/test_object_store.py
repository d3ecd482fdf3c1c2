"""Parts, receipts and the lock in an object store, against a real S3 server on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("moto", reason="needs moto's server (group dev)")
pytest.importorskip("s3fs", reason="needs the extra s3")

from object_servers import BUCKET, S3Server, running_s3

from maskbatch.errors import LockedError, MissingExtraError, OutputError
from maskbatch.jobs.ledger import Ledger
from maskbatch.jobs.units import make_unit
from maskbatch.storage import Store, open_store
from maskbatch.storage import object_lock as locks
from maskbatch.storage.object_lock import ObjectLock, holder_in
from maskbatch.storage.object_store import STREAM_BLOCK, ObjectStore
from maskbatch.storage.retry import RetryPolicy
from maskbatch.types import Piece, PieceResult, Source, UnitRows, WorkUnit

HASTE = RetryPolicy(attempts=9, first_s=0.01, longest_s=0.02)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


@pytest.fixture
def s3(server: S3Server) -> Iterator[S3Server]:
    server.clear()
    server.reset()
    yield server
    server.reset()


@pytest.fixture
def store(s3: S3Server) -> ObjectStore:
    return ObjectStore(f"s3://{BUCKET}/results.work", HASTE)


def test_objects_come_back_as_they_were_written(store: ObjectStore) -> None:
    store.write("parts/a.parquet", b"part")
    store.write("parts/b.parquet", b"")
    assert store.read("parts/a.parquet") == b"part"
    assert store.sizes("parts") == {"a.parquet": 4, "b.parquet": 0}
    assert (store.size("parts/a.parquet"), store.size("parts/none"), store.size("parts")) == (4, None, None)
    store.write("parts/a.parquet", b"other")
    assert store.read("parts/a.parquet") == b"other"
    store.remove("parts/a.parquet")
    store.remove("parts/a.parquet")
    assert store.names("parts") == ["b.parquet"]
    assert store.names("receipts") == []


def test_two_stores_see_what_the_other_wrote(store: ObjectStore) -> None:
    other = ObjectStore(store.url)
    assert store.names("parts") == other.names("parts") == []
    other.write("parts/a", b"1")
    assert (store.names("parts"), store.size("parts/a")) == (["a"], 1)
    store.write("parts/a", b"22")
    assert other.size("parts/a") == 2


def test_a_stream_goes_up_in_parts_and_appears_when_it_is_complete(store: ObjectStore, s3: S3Server) -> None:
    block = bytes(range(256)) * 4096
    with store.writing("results.parquet") as file:
        for _ in range(2 * STREAM_BLOCK // len(block) + 3):
            file.write(block)
        written = file.tell()
        assert store.size("results.parquet") is None
    assert store.size("results.parquet") == written
    assert store.read("results.parquet")[-len(block) :] == block
    assert sum("partNumber" in query for _, _, query in s3.requests) >= 2


@pytest.mark.parametrize("megabytes", [1, 40])
def test_a_failed_stream_leaves_what_was_there_before(store: ObjectStore, megabytes: int) -> None:
    import s3fs

    store.write("results.parquet", b"old")
    with pytest.raises(RuntimeError), store.writing("results.parquet") as file:  # noqa: PT012
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
        raise RuntimeError("the merge failed")
    assert store.read("results.parquet") == b"old"
    assert s3fs.S3FileSystem().list_multipart_uploads(BUCKET) == []


def test_ten_thousand_keys_are_listed(store: ObjectStore, s3: S3Server) -> None:
    s3.fill("results.work/receipts", 10_000)
    s3.requests.clear()
    names = store.names("receipts")
    assert (len(names), names[0], names[-1]) == (10_000, "000000.json", "009999.json")
    assert len(s3.requests) <= 12  # a page per 1,000, not a request per key


def test_an_object_that_vanished_is_not_found(store: ObjectStore, s3: S3Server) -> None:
    for name in "abc":
        store.write(f"receipts/{name}", name.encode())
    names = store.names("receipts")
    s3.delete("results.work/receipts/b")
    with pytest.raises(FileNotFoundError):
        store.read("receipts/b")
    assert list(store.read_many(f"receipts/{name}" for name in names)) == [
        ("receipts/a", b"a"),
        ("receipts/b", None),
        ("receipts/c", b"c"),
    ]


def test_a_busy_store_is_asked_again(store: ObjectStore, s3: S3Server) -> None:
    for step in (
        lambda: store.write("parts/a", b"1"),
        lambda: store.read("parts/a"),
        lambda: store.names("parts"),
        lambda: store.size("parts/a"),
        lambda: store.remove("parts/a"),
    ):
        s3.refuse = 7  # more than the client library's own five attempts
        step()
        assert s3.refuse == 0
    assert store.names("parts") == []


def test_a_store_that_stays_busy_is_an_error_that_names_it(s3: S3Server) -> None:
    store = ObjectStore(f"s3://{BUCKET}/results.work", RetryPolicy(attempts=2, first_s=0.01))
    s3.refuse = 10_000
    with pytest.raises(OutputError, match=r"s3://archive/results.work: cannot write parts/a: .*(SlowDown|rate)"):
        store.write("parts/a", b"1")


def test_a_bucket_that_does_not_exist_is_an_error(s3: S3Server) -> None:
    store = ObjectStore("s3://no-such-bucket/x", HASTE)
    with pytest.raises(OutputError, match=r"s3://no-such-bucket/x: cannot write parts/a: .*bucket does not exist"):
        store.write("parts/a", b"1")
    with pytest.raises(OutputError, match="cannot write results"), store.writing("results") as file:
        file.write(b"1")


@pytest.mark.parametrize(("url", "package", "extra"), [("gs://b/x", "gcsfs", "gcs"), ("az://b/x", "adlfs", "azure")])
def test_a_store_without_its_package_says_how_to_get_it(url: str, package: str, extra: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(MissingExtraError, match=rf"pip install 'maskbatch\[{extra}\]'"):
        open_store(url)


# --- the ledger


def _done_unit(store: Store, name: str) -> WorkUnit:
    source = Source(f"/in/{name}", name, "image", 10, 20)
    unit = make_unit([Piece(source)], "key")
    result = PieceResult(name, source.fingerprint, faces=1)
    Ledger(store).commit(unit, UnitRows(b"rows", 1, (result,)))
    return unit


def test_a_part_counts_when_its_receipt_exists(store: ObjectStore) -> None:
    units = [_done_unit(store, name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert {name for name, _ in Ledger(store).done()} == {"a.jpg", "b.jpg", "c.jpg"}
    store.remove(f"receipts/{units[0].id}.json")
    store.remove(f"parts/{units[1].id}.parquet")
    assert {name for name, _ in Ledger(store).done()} == {"c.jpg"}


# --- the lock


@pytest.fixture
def quick_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.05)


def test_a_second_run_is_refused_while_the_first_lives(store: ObjectStore) -> None:
    with ObjectLock(store, settle_s=0) as lock:
        assert (lock.note, holder_in(store, "lock")) == ("", f"host {os.uname().nodename}, process {os.getpid()}")
        with pytest.raises(LockedError, match=f"process {os.getpid()}"), ObjectLock(store, settle_s=0):
            pass
        lock.check()
    assert holder_in(store, "lock") is None
    with ObjectLock(store, settle_s=0) as lock:
        assert lock.note == ""


def test_the_lock_of_a_killed_process_is_taken_over_at_once(store: ObjectStore) -> None:
    code = (
        "import os, signal, sys; from maskbatch.storage.object_lock import ObjectLock; from maskbatch.storage import open_store\n"
        "ObjectLock(open_store(sys.argv[1]), settle_s=0).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, store.url], check=False).returncode == -9
    assert store.names(".") == ["lock"]
    with ObjectLock(store, settle_s=0) as lock:
        assert "took over" in lock.note


def test_a_holder_elsewhere_is_dead_when_it_has_been_silent(store: ObjectStore) -> None:
    def held_elsewhere(silent_s: float) -> None:
        import time

        holder = {"host": "other", "machine": "other", "pid": 1, "token": "t", "heartbeat": time.time() - silent_s}
        store.write("lock", json.dumps(holder).encode())

    held_elsewhere(20)
    with pytest.raises(LockedError, match="host other, process 1, heard of 2"), ObjectLock(store, settle_s=0):
        pass
    held_elsewhere(61)
    with ObjectLock(store, settle_s=0) as lock:
        assert "host other" in lock.note


@pytest.mark.usefixtures("quick_lock")
def test_the_heartbeat_is_rewritten_and_a_lost_lock_is_noticed(store: ObjectStore) -> None:
    import time

    with ObjectLock(store, settle_s=0) as lock:
        first = json.loads(store.read("lock"))["heartbeat"]
        deadline = time.monotonic() + 10
        while json.loads(store.read("lock"))["heartbeat"] == first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(store.read("lock"))["heartbeat"] > first
        taken = {"host": "other", "machine": "other", "pid": 7, "token": "theirs", "heartbeat": time.time()}
        while True:  # a beat that was under way may write over it once
            store.write("lock", json.dumps(taken).encode())
            time.sleep(0.5)
            if json.loads(store.read("lock"))["token"] == "theirs":
                break
        with pytest.raises(LockedError, match="host other, process 7"):
            lock.check()
    assert json.loads(store.read("lock"))["token"] == "theirs"  # not removed: it is not ours


def test_of_two_runs_that_take_a_free_lock_together_one_leaves(store: ObjectStore) -> None:
    late = ObjectLock(store, settle_s=0)
    early = ObjectLock(store, settle_s=0)
    early._write()
    late._write()
    early._look()
    late._look()
    late.check()
    with pytest.raises(LockedError):
        early.check()
