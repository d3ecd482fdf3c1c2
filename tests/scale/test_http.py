"""Inputs on web servers: real servers on loopback, one that gives ranges and one that does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

pytest.importorskip("aiohttp", reason="needs the extra http")

from scan_maker import CONFIG, make_tree

from maskbatch.errors import InputError, InputNotFoundError, UsageError
from maskbatch.scanning.run import scan
from maskbatch.sources.discovery.discover import discover
from maskbatch.storage.opener import read_bytes


class Handler(SimpleHTTPRequestHandler):
    """Files below a folder; ``/busy/N/…`` is answered with 503 the first N times, ``/secret/…`` with 403."""

    ranges = True
    turned_away: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        path = self._open_path()
        if path is None:
            return
        data = path.read_bytes()
        start, stop = 0, len(data)
        wanted = self.headers.get("Range", "")
        if self.ranges and wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(len(data), int(last) + 1 if last else len(data))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        else:
            self.send_response(200)
        self._headers(stop - start)
        self.wfile.write(data[start:stop])

    def do_HEAD(self) -> None:
        path = self._open_path()
        if path is not None:
            self.send_response(200)
            self._headers(path.stat().st_size)

    def _headers(self, length: int) -> None:
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _open_path(self) -> Path | None:
        name = self.path.partition("?")[0]
        if name.startswith("/busy/"):
            _, _, times, name = name.split("/", 3)
            self.turned_away[name] = self.turned_away.get(name, 0) + 1
            if self.turned_away[name] <= int(times):
                self.send_error(503)
                return None
        if name.startswith("/secret/"):
            self.send_error(403)
            return None
        path = Path(self.directory) / name.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return None
        return path

    def log_message(self, *_args: Any) -> None:
        """Nothing on the test run's standard error."""


class HandlerWithoutRanges(Handler):
    ranges = False


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, face_photo: npt.NDArray[np.uint8]) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree") / "in", face_photo, pictures=3)


@pytest.fixture(scope="module", params=[Handler, HandlerWithoutRanges], ids=["ranges", "no ranges"])
def address(request: pytest.FixtureRequest, tree: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(request.param, directory=str(tree)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_list_of_urls_gives_the_rows_of_the_files(address: str, tree: Path, tmp_path: Path) -> None:
    files = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    (tmp_path / "list.txt").write_text("".join(f"{address}/{name}?signature=1\n" for name in files))
    scan(f"@{tmp_path}/list.txt", tmp_path / "http.parquet", CONFIG)
    scan(tree, tmp_path / "local.parquet", CONFIG)
    remote, local = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("http", "local"))
    host = address.removeprefix("http://")
    assert [name.removeprefix(f"{host}/") for name in remote["source"]] == sorted(local["source"].astype(str))
    columns = ["frame", "time_s", "face", "x1", "y1", "x2", "y2", "score", "confidence"]
    local = local.assign(name=local["source"].astype(str)).sort_values("name", kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(remote[columns], local[columns])
    inputs = pd.read_parquet(tmp_path / "http.inputs.parquet").set_index("source")
    assert inputs.loc[f"{host}/cam0/broken.jpg", "status"] == "error"
    assert inputs.loc[f"{host}/clip.mp4", ["status", "frames_read"]].tolist() == ["ok", 6]


def test_what_a_server_refuses_has_a_code(address: str) -> None:
    for name, code in (("none.jpg", "not_found"), ("secret/a.jpg", "permission")):
        with pytest.raises(InputError) as caught:
            read_bytes(f"{address}/{name}")
        assert caught.value.code == code


def test_a_busy_server_is_asked_again(address: str, tree: Path) -> None:
    name = "cam0/broken.jpg"
    Handler.turned_away.clear()
    assert read_bytes(f"{address}/busy/2/{name}") == (tree / name).read_bytes()


def test_a_url_that_is_named_must_be_there(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"none.jpg does not exist"):
        discover([f"{address}/none.jpg"])
    with pytest.raises(UsageError, match=r"the list http.* cannot be read"):
        discover([f"@{address}/none.txt?key=secret"])
    (source,) = discover([f"{address}/cam0/broken.jpg"]).sources
    assert (source.name, source.problem) == ("broken.jpg", None)
