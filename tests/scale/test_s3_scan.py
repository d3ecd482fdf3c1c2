"""Scans from and to object storage, against a real S3 server on loopback, and tar shards in both kinds of place."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

pytest.importorskip("moto", reason="needs moto's server (group dev)")
pytest.importorskip("s3fs", reason="needs the extra s3")

import s3fs
from object_servers import BUCKET, S3Server, running_s3
from scan_maker import CONFIG, make_tree

from maskbatch.errors import LockedError, OutputExistsError, SettingsChangedError
from maskbatch.results.dataset import MANIFEST
from maskbatch.results.reader import read_results
from maskbatch.scanning.run import scan
from maskbatch.scanning.status import read_status
from maskbatch.scanning.summary import ScanSummary
from maskbatch.sources.discovery.discover import discover
from maskbatch.storage.object_lock import ObjectLock
from maskbatch.storage.object_store import ObjectStore
from maskbatch.types import Source

SETTINGS = ["decode_s", "detect_s", "classify_s"]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, face_photo: npt.NDArray[np.uint8]) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree") / "in", face_photo, pictures=6)


@pytest.fixture(scope="module")
def clean(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clean") / "results.parquet"
    assert scan(tree, out, CONFIG).faces >= 5
    return out


@pytest.fixture
def s3(server: S3Server, tree: Path) -> Iterator[S3Server]:
    """The server with the tree in it."""
    server.reset()
    server.clear()
    store = ObjectStore(f"s3://{BUCKET}/in")
    for path in tree.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(tree).as_posix(), path.read_bytes())
    server.requests.clear()
    yield server
    server.reset()


def _read(url: str) -> bytes:
    s3fs.S3FileSystem().invalidate_cache()
    return bytes(s3fs.S3FileSystem().cat_file(url))


def _scan_s3(out: str = f"s3://{BUCKET}/out/results.parquet", **options: object) -> ScanSummary:
    return scan(f"s3://{BUCKET}/in", out, CONFIG, **options)  # type: ignore[arg-type]


def _inputs(data: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(data)).drop(columns=SETTINGS)


def test_a_scan_in_object_storage_gives_the_bytes_of_a_local_one(s3: S3Server, clean: Path) -> None:
    summary = _scan_s3()
    assert _read(f"{BUCKET}/out/results.parquet") == clean.read_bytes()
    inputs = _inputs(_read(f"{BUCKET}/out/results.inputs.parquet"))
    pd.testing.assert_frame_equal(inputs, _inputs(clean.with_name("results.inputs.parquet").read_bytes()))
    assert summary.outputs["results"] == f"s3://{BUCKET}/out/results.parquet"
    pd.testing.assert_frame_equal(read_results(summary.outputs["results"]), read_results(clean))
    assert s3fs.S3FileSystem().list_multipart_uploads(BUCKET) == []
    status = read_status(summary.outputs["results"])
    assert (status.inputs, status.left, status.running, status.merged) == (summary.inputs, 0, None, True)


def test_a_run_in_object_storage_is_continued(s3: S3Server, clean: Path) -> None:
    _scan_s3()
    store = ObjectStore(f"s3://{BUCKET}/out/results.work")
    lost = store.names("receipts")[0]
    store.remove(f"receipts/{lost}")
    s3.delete("out/results.parquet")
    summary = _scan_s3()
    assert 0 < summary.resumed < summary.inputs
    assert _read(f"{BUCKET}/out/results.parquet") == clean.read_bytes()
    with pytest.raises(OutputExistsError):
        _scan_s3(min_score=0.9)
    s3.delete("out/results.parquet")
    s3.delete("out/results.run.json")
    with pytest.raises(SettingsChangedError, match=r"min_score: [0-9.]+ → 0.9"):
        _scan_s3(min_score=0.9)


def test_two_runs_do_not_write_the_same_output(s3: S3Server) -> None:
    with ObjectLock(ObjectStore(f"s3://{BUCKET}/out/results.work")), pytest.raises(LockedError):
        _scan_s3()


def test_a_busy_store_delays_the_scan_and_loses_nothing(s3: S3Server, clean: Path) -> None:
    turn = 0

    def every_third(_method: str, _path: str) -> bool:
        nonlocal turn
        turn += 1
        return turn % 3 == 0

    s3.refused, s3.refuse = every_third, 15
    _scan_s3()
    assert s3.refuse == 0
    assert _read(f"{BUCKET}/out/results.parquet") == clean.read_bytes()


def test_an_object_that_vanishes_during_the_scan_is_a_row(s3: S3Server, tree: Path, tmp_path: Path) -> None:
    gone = "cam1/" + sorted(path.name for path in (tree / "cam1").iterdir())[0]

    def vanish(method: str, path: str) -> None:
        if method == "GET" and path.endswith(".jpg"):
            s3.delete(f"in/{gone}")

    s3.before = vanish
    summary = scan(f"s3://{BUCKET}/in", tmp_path / "results.parquet", CONFIG)
    inputs = pd.read_parquet(tmp_path / "results.inputs.parquet").set_index("source")
    assert inputs.loc[gone, ["status", "error"]].tolist() == ["error", "not_found"]
    assert summary.status == {"ok": 6, "partial": 0, "error": 2}  # that one, and the broken picture


def test_a_partitioned_result_in_object_storage(s3: S3Server, clean: Path) -> None:
    out = f"s3://{BUCKET}/out/results/"
    _scan_s3(out)
    first = s3fs.S3FileSystem().find(f"{BUCKET}/out/results")
    assert f"archive/out/results/{MANIFEST}" in first
    frame, expected = read_results(out.rstrip("/")), read_results(clean)
    columns = ["source", "frame", "face"]
    pd.testing.assert_frame_equal(
        frame.astype({"source": str, "camera": str}).sort_values(columns).reset_index(drop=True),
        expected.astype({"source": str, "camera": str}).sort_values(columns).reset_index(drop=True),
    )
    puts = [path for method, path, _ in s3.requests if method == "PUT" and "/out/results/" in path]
    assert puts[-1].endswith(MANIFEST)
    # With other settings the files have other names; the old ones go when the new manifest is there.
    _scan_s3(out, min_score=0.95, overwrite=True)
    s3fs.S3FileSystem().invalidate_cache()
    second = s3fs.S3FileSystem().find(f"{BUCKET}/out/results")
    assert set(first) & set(second) == {f"archive/out/results/{MANIFEST}"}


def test_globs_and_lists_of_urls_name_the_same_inputs(s3: S3Server, tree: Path, tmp_path: Path) -> None:
    pictures = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*.jpg"))
    globbed = list(discover([f"s3://{BUCKET}/in/cam*/*.jpg"]).sources)
    assert [source.name for source in globbed] == pictures
    (tmp_path / "list.txt").write_text("".join(f"s3://{BUCKET}/in/{name}\n" for name in [*pictures, "none.jpg"]))
    listed = list(discover([f"@{tmp_path}/list.txt"]).sources)
    assert [source.name for source in listed] == [f"{BUCKET}/in/{name}" for name in [*pictures, "none.jpg"]]
    assert [source.fingerprint for source in listed[:-1]] == [source.fingerprint for source in globbed]
    assert listed[-1].problem is not None
    assert listed[-1].problem.error == "not_found"
    ObjectStore(f"s3://{BUCKET}").write("list.txt", (tmp_path / "list.txt").read_bytes())
    assert list(discover([f"@s3://{BUCKET}/list.txt"]).sources) == listed


def _shard(tree: Path, target: Path) -> Path:
    with tarfile.open(target, "w") as archive:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            archive.add(path, path.relative_to(tree).as_posix())
    return target


def _rows(data: bytes, prefix: str = "") -> pd.DataFrame:
    frame = pd.read_parquet(io.BytesIO(data)).astype({"source": str})
    frame["source"] = frame["source"].str.removeprefix(prefix)
    columns = ["source", "frame", "time_s", "face", "x1", "y1", "x2", "y2", "score", "label", "confidence"]
    return frame[columns].sort_values(["source", "frame", "face"]).reset_index(drop=True)


def test_a_shard_gives_the_rows_of_its_members(tree: Path, clean: Path, tmp_path: Path) -> None:
    shard = _shard(tree, tmp_path / "a.tar")
    summary = scan(shard, tmp_path / "results.parquet", CONFIG)
    assert summary.inputs == len([path for path in tree.rglob("*") if path.is_file()])
    rows = _rows((tmp_path / "results.parquet").read_bytes(), "a.tar/")
    pd.testing.assert_frame_equal(rows, _rows(clean.read_bytes()))


def test_shards_in_object_storage_are_read_in_a_few_large_requests(
    s3: S3Server, tree: Path, clean: Path, tmp_path: Path
) -> None:
    shard = _shard(tree, tmp_path / "a.tar")
    ObjectStore(f"s3://{BUCKET}/shards").write("a.tar", shard.read_bytes())
    s3.requests.clear()
    scan(f"s3://{BUCKET}/shards/*.tar", tmp_path / "results.parquet", CONFIG)
    rows = _rows((tmp_path / "results.parquet").read_bytes(), "a.tar/")
    pd.testing.assert_frame_equal(rows, _rows(clean.read_bytes()))
    reads = [path for method, path, _ in s3.requests if method == "GET" and path.endswith("a.tar")]
    assert len(reads) < 12  # nine members, one of them a video that is opened several times


def _members(path: Path) -> list[Source]:
    return list(discover([path]).sources)


def test_shards_that_are_broken_say_so_after_their_good_members(tree: Path, tmp_path: Path) -> None:
    whole = _shard(tree, tmp_path / "a.tar").read_bytes()
    members = _members(tmp_path / "a.tar")
    assert all(source.problem is None for source in members)
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    cut = _members(tmp_path / "cut.tar")
    assert 0 < len(cut) <= len(members)
    assert cut[-1].problem is not None
    assert cut[-1].problem.error == "truncated"
    assert all(source.problem is None for source in cut[:-1])
    import gzip

    (tmp_path / "z.tar").write_bytes(gzip.compress(whole))
    (tmp_path / "text.tar").write_bytes(b"no archive at all\n" * 100)
    (tmp_path / "empty.tar").write_bytes(b"")
    for name, error in (("z.tar", "unsupported"), ("text.tar", "not_media"), ("empty.tar", "empty")):
        (source,) = _members(tmp_path / name)
        assert source.problem is not None
        assert (source.name, source.problem.error) == (name, error)


def test_names_in_a_shard_are_made_safe_and_unique(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        for name in ("../../etc/a.jpg", "./b.jpg", "b.jpg", "/abs/c.jpg", "._d.jpg", "e.txt"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    discovery = discover([tmp_path / "odd.tar"])
    names = [source.name for source in discovery.sources]
    assert names == ["odd.tar/etc/a.jpg", "odd.tar/b.jpg", "odd.tar/b~2.jpg", "odd.tar/abs/c.jpg"]
    assert discovery.ignored == 2
