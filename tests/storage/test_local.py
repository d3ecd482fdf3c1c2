from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maskbatch.errors import OutputError
from maskbatch.storage.atomic import FileOps
from maskbatch.storage.local import LocalStore


def test_a_blob_is_whole_or_the_old_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "deep" / "er")
    store.write("a/b.bin", b"old")
    with pytest.raises(ZeroDivisionError), store.writing("a/b.bin") as file:
        file.write(bytes([1 // (file.write(b"new") - 3)]))
    assert store.read("a/b.bin") == b"old"
    assert store.names("a") == ["b.bin"]
    with store.writing("a/b.bin") as file:
        file.write(b"ne")
        file.write(b"w")
    assert store.read("a/b.bin") == b"new"
    assert store.sizes("a") == {"b.bin": 3}
    assert list(store.read_many(["a/b.bin", "a/none"])) == [("a/b.bin", b"new"), ("a/none", None)]


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.size("none") is None
    assert store.names("none") == []
    store.remove("none")
    with pytest.raises(FileNotFoundError):
        store.read("none")


def test_errors_of_the_disk_are_one_sentence(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for action in (
        lambda: store.write("file/x", b""),
        lambda: store.names("file"),
        lambda: store.remove("folder"),
        lambda: store.write("folder", b""),
    ):
        with pytest.raises(OutputError, match="cannot"):
            action()


def test_temporaries_of_killed_writers_go_and_nothing_else(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    mine = [".results.parquet.12-0123abcd.tmp", ".results.run.json.1-ffffffff.tmp"]
    others = [".notes.tmp", "results.tmp", ".other.parquet.12-0123abcd.tmp", ".results.parquet.tmp"]
    for name in (*mine, *others):
        (tmp_path / name).write_bytes(b"")
    store.remove_temporaries(".", "results.parquet")
    store.remove_temporaries(".", "results.run.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


class NoFolderSync(FileOps):
    def __init__(self, number: int) -> None:
        self.number = number

    def fsync(self, fileno: int) -> None:
        import stat

        if stat.S_ISDIR(os.fstat(fileno).st_mode):
            raise OSError(self.number, os.strerror(self.number))
        super().fsync(fileno)


def test_a_file_system_that_cannot_flush_folders_is_used_all_the_same(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "work", NoFolderSync(errno.EINVAL))
    store.write("a", b"1")
    assert store.read("a") == b"1"
    with pytest.raises(OutputError):
        LocalStore(tmp_path / "work", NoFolderSync(errno.EIO)).write("a", b"2")
