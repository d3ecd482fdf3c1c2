from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg

from maskbatch.errors import InputError, InputNotFoundError, MissingExtraError, UsageError
from maskbatch.sources.discovery.discover import Discovery, discover
from maskbatch.storage.opener import read_bytes, read_head
from maskbatch.types import Source

JPEG = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
MP4_HEAD = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"


def put(folder: Path, *names: str, data: bytes = JPEG) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def names(discovery: Discovery) -> list[str]:
    return [source.name for source in discovery.sources]


def only(discovery: Discovery) -> Source:
    (source,) = discovery.sources
    return source


def test_folder_is_walked_in_name_order_and_other_files_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/z.PNG", "a/y.mp4", "c.jpeg", "a.jpg", "notes.txt", "data.xml", "x.zip", "README", ".jpg")
    found = discover([tmp_path])
    assert names(found) == ["a/y.mp4", "a/z.PNG", "a.jpg", "b.jpg", "c.jpeg"]
    assert found.roots == {tmp_path.name: str(tmp_path)}
    assert found.ignored == 5
    assert found.ignored_by_extension == {"txt": 1, "xml": 1, "zip": 1, "": 1, "hidden": 1}


def test_sources_tell_media_size_and_time(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.mkv")
    os.utime(tmp_path / "a.jpg", ns=(5, 1_700_000_000_123_456_789))
    picture, video = discover([tmp_path]).sources
    assert (picture.media, video.media) == ("image", "video")
    assert (picture.size, picture.mtime_ns) == (len(JPEG), 1_700_000_000_123_456_789)
    assert picture.path == str(tmp_path / "a.jpg")


def test_several_roots_are_named_and_made_unique(tmp_path: Path) -> None:
    put(tmp_path, "one/images/a.jpg", "two/images/a.jpg", "one/x.jpg", "two/x.jpg")
    roots = [tmp_path / "one/images", tmp_path / "two/images", tmp_path / "one/x.jpg", tmp_path / "two/x.jpg"]
    found = discover(roots)
    assert names(found) == ["images/a.jpg", "images-2/a.jpg", "x.jpg", "x-2.jpg"]
    assert list(found.roots.values()) == [str(root) for root in roots]


def test_the_same_root_twice_counts_once(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    assert names(discover([tmp_path, f"{tmp_path}/."])) == ["a.jpg"]


def test_single_file_is_its_own_root(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    found = discover([tmp_path / "a.jpg"])
    assert names(found) == ["a.jpg"]
    assert found.roots == {"a.jpg": str(tmp_path / "a.jpg")}


def test_named_file_is_an_input_and_its_bytes_tell_the_media(tmp_path: Path) -> None:
    put(tmp_path, "picture", "film.jpg.bak")
    put(tmp_path, "video", "wrong.jpg", data=MP4_HEAD)
    put(tmp_path, "notes.txt", data=b"text")
    media = {
        name: only(discover([tmp_path / name])).media
        for name in ("picture", "film.jpg.bak", "video", "wrong.jpg", "notes.txt")
    }
    assert media == {
        "picture": "image",
        "film.jpg.bak": "image",
        "video": "video",
        "wrong.jpg": "video",
        "notes.txt": "image",
    }


@pytest.mark.parametrize("missing", ["nowhere", "nowhere.jpg", "*.jpg", "x/**/*.jpg", "@list.txt", "a\0b"])
def test_missing_path_is_named(tmp_path: Path, missing: str) -> None:
    with pytest.raises(InputNotFoundError) as caught:
        discover([f"{tmp_path}/{missing}" if not missing.startswith("@") else missing])
    assert missing.lstrip("@") in str(caught.value)
    assert caught.value.exit_code == 2


def test_no_path_at_all_is_a_usage_error() -> None:
    with pytest.raises(InputNotFoundError, match="no input"):
        discover([])


def test_globs_have_their_fixed_part_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "d/cam1/a.jpg", "d/cam1/n/b.jpg", "d/cam2/a.jpg", "d/other/a.jpg", "d/cam1/t.txt", "d/top.jpg")
    assert names(discover([f"{tmp_path}/d/cam*/*"])) == ["cam1/a.jpg", "cam1/n/b.jpg", "cam2/a.jpg"]
    assert names(discover([f"{tmp_path}/d/cam*"])) == ["cam1/a.jpg", "cam1/n/b.jpg", "cam2/a.jpg"]
    assert names(discover([f"{tmp_path}/d/**/*.jpg"])) == [
        "cam1/a.jpg",
        "cam1/n/b.jpg",
        "cam2/a.jpg",
        "other/a.jpg",
        "top.jpg",
    ]
    assert names(discover([f"{tmp_path}/d/**/cam1/**/b.jpg"])) == ["cam1/n/b.jpg"]
    monkeypatch.chdir(tmp_path)
    found = discover(["d/*.jpg"])
    assert names(found) == ["top.jpg"]
    assert found.roots == {"d": str(tmp_path / "d")}


def test_a_file_whose_name_looks_like_a_glob_is_found(tmp_path: Path) -> None:
    put(tmp_path, "a[1].jpg")
    assert names(discover([tmp_path / "a[1].jpg"])) == ["a[1].jpg"]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_list_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    put(tmp_path, "work/a.jpg", "work/sub/b.jpg", "work/sub/c.mp4", "work/new\nline.jpg")
    monkeypatch.chdir(tmp_path / "work")
    entries = ["sub", "a.jpg", "./a.jpg", "sub/b.jpg", "gone.jpg"]
    if separator == "\0":
        entries.append("new\nline.jpg")
    (tmp_path / "list.txt").write_bytes(separator.join(entries).encode())
    found = discover([f"@{tmp_path}/list.txt"])
    sources = list(found.sources)
    assert [source.name for source in sources[:4]] == ["sub/b.jpg", "sub/c.mp4", "a.jpg", "gone.jpg"]
    assert sources[3].problem is not None
    assert sources[3].problem.error == "not_found"
    assert len(sources) == (5 if separator == "\0" else 4)
    assert found.roots == {"work": str(tmp_path / "work")}


def test_absolute_entries_of_a_list_do_not_change_the_names_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text(f"{tmp_path}/a.jpg\n")
    assert names(discover(["@list"])) == [f"{tmp_path}/a.jpg".lstrip("/")]


def test_standard_input_is_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"b.jpg\na.jpg\n")))
    assert names(discover(["-"])) == ["b.jpg", "a.jpg"]


def test_limit_stops_the_walk(tmp_path: Path) -> None:
    put(tmp_path, *(f"{index:03}.jpg" for index in range(20)))
    assert names(discover([tmp_path], limit=3)) == ["000.jpg", "001.jpg", "002.jpg"]
    assert names(discover([tmp_path], limit=0)) == []


def test_special_files_become_rows_and_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.jpg"))
        found = {source.name: source.problem for source in discover([tmp_path]).sources}
        assert {name: problem.error if problem else None for name, problem in found.items()} == {
            "pipe.jpg": "special_file",
            "device.mp4": "special_file",
            "gone.png": "not_found",
            "loop.png": "io",
            "s.jpg": "special_file",
        }
        for name, code in [("pipe.jpg", "special_file"), ("device.mp4", "special_file"), ("s.jpg", "special_file")]:
            with pytest.raises(InputError) as caught:
                read_bytes(str(tmp_path / name))
            assert caught.value.code == code
    assert only(discover([tmp_path / "pipe.jpg"])).problem is not None


def test_linked_files_are_read_and_linked_folders_are_not_entered(tmp_path: Path) -> None:
    put(tmp_path, "real/a.jpg", "real/deep/b.jpg", "store/c.jpg")
    (tmp_path / "real/link.jpg").symlink_to(tmp_path / "store/c.jpg")
    (tmp_path / "real/folder").symlink_to(tmp_path / "store")
    (tmp_path / "real/deep/up").symlink_to(tmp_path / "real")
    found = discover([tmp_path / "real"])
    assert names(found) == ["a.jpg", "deep/b.jpg", "link.jpg"]
    assert found.ignored_by_extension == {"link to a folder": 2}
    assert names(discover([f"{tmp_path}/real/**/*.jpg"])) == ["a.jpg", "deep/b.jpg", "link.jpg"]


def test_unreadable_folder_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "closed").chmod(0)
    real = os.scandir

    def scandir(path: str) -> object:
        # A test that runs as root would be let in.
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    try:
        sources = {source.name: source.problem for source in discover([tmp_path]).sources}
    finally:
        (tmp_path / "closed").chmod(0o700)
    problem = sources["closed/"]
    assert sources["a.jpg"] is None
    assert problem is not None
    assert (problem.error, problem.message) == ("permission", "no permission to read the folder")


def test_names_that_are_no_utf8_are_escaped_and_still_open(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"bad\xff.jpg", b"caf\xc3\xa9.jpg", b"bad\\xff.jpg", "🦊.jpg".encode(), b"dir\xfe/x.jpg"):
        path = os.path.join(folder, name)  # noqa: PTH118
        Path(os.fsdecode(path)).parent.mkdir(exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(JPEG)
    sources = list(discover([tmp_path]).sources)
    assert sorted(source.name for source in sources) == sorted(
        ["bad\\xff.jpg", "bad\\xff~2.jpg", "café.jpg", "🦊.jpg", "dir\\xfe/x.jpg"]
    )
    for source in sources:
        source.name.encode()
        assert read_bytes(source.path) == JPEG


def test_hidden_files_are_ignored_and_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "._a.jpg", ".thumbs/b.jpg")
    found = discover([tmp_path])
    assert names(found) == ["a.jpg"]
    assert found.ignored == 2


def test_output_folders_are_not_inputs(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "annotated/a.jpg")
    assert names(discover([tmp_path], exclude=[tmp_path / "annotated"])) == ["a.jpg"]


def test_names_are_unique_in_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "x/a.jpg", "x/b/c.jpg", "y/a.jpg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text("x\nx/a.jpg\nx/b\ny/a.jpg\n")
    found = names(discover(["x", "y", "x/a.jpg", "@list", "x/**/*.jpg", "x*"]))
    assert found == ["x/a.jpg", "x/b/c.jpg", "y/a.jpg"], "the same file is one input, however often it is named"


def test_walk_makes_one_stat_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"{index}.jpg" for index in range(50)))
    calls: list[str] = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: calls.append(str(path)) or real(path, **options))
    assert len(names(discover([tmp_path]))) == 50
    assert sum(call.endswith(".jpg") for call in calls) == 50


def test_reading_names_what_is_wrong(tmp_path: Path) -> None:
    put(tmp_path, "empty.jpg", data=b"")
    put(tmp_path, "full.jpg")
    cases = {
        "empty.jpg": "empty",
        "gone.jpg": "not_found",
        ".": "special_file",
        "full.jpg/x": "not_found",
        "a\0": "not_found",
    }
    for name, code in cases.items():
        with pytest.raises(InputError) as caught:
            read_bytes(f"{tmp_path}/{name}")
        assert caught.value.code == code, name
    with pytest.raises(InputError, match="bytes"):
        read_bytes(str(tmp_path / "full.jpg"), max_bytes=10)
    assert read_head(str(tmp_path / "full.jpg"), 3) == b"\xff\xd8\xff"


def test_object_store_is_listed_and_read() -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for key in ("b/a.jpg", "b/sub/c.mp4", "b/notes.txt", "b/.hidden/d.jpg"):
        store.pipe_file(f"/bucket-test/{key}", JPEG)
    try:
        found = discover(["memory://bucket-test/b"])
        sources = list(found.sources)
        assert [(source.name, source.media, source.size) for source in sources] == [
            ("a.jpg", "image", len(JPEG)),
            ("sub/c.mp4", "video", len(JPEG)),
        ]
        assert found.ignored == 2
        assert read_bytes(sources[0].path) == JPEG
        assert read_head(sources[0].path, 2) == b"\xff\xd8"
        assert names(discover(["memory://bucket-test/b/a.jpg"])) == ["a.jpg"]
        with pytest.raises(InputNotFoundError):
            discover(["memory://bucket-test/nothing"])
        with pytest.raises(InputError) as caught:
            read_bytes("memory://bucket-test/nothing.jpg")
        assert caught.value.code == "not_found"
    finally:
        store.rm("/bucket-test", recursive=True)


def test_unknown_kind_of_address_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match="nonsense://"):
        discover(["nonsense://a/b"])
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        discover(["s3://a/b"])
