"""Pulling from a real HTTP server on the loopback: all or nothing, and only what is registered."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from maskbatch.errors import MissingExtraError, ModelError, OutputError, UsageError
from maskbatch.models import Entry
from maskbatch.models.download import pull_entry, pull_model

WEIGHTS = bytes(range(256)) * 4000


@dataclass
class Server:
    """What the loopback server answers, and what it was asked."""

    url: str
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut_after: int | None = None


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            body = state.answers.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut_after])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        state = Server(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path))
    return tmp_path / "models"


def entry_at(server: Server, data: bytes = WEIGHTS) -> Entry:
    server.answers["/w.onnx"] = data
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    return Entry("net", "yunet", "finds faces", "MIT", "w.onnx", len(WEIGHTS), digest, f"{server.url}/w.onnx")


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_pulled_file_is_whole_and_not_pulled_twice(server: Server, cache: Path) -> None:
    told: list[tuple[int, int]] = []
    path = pull_entry(entry_at(server), progress=lambda done, whole: told.append((done, whole)))
    assert path == cache / "w.onnx"
    assert path.read_bytes() == WEIGHTS
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS))
    pull_entry(entry_at(server))
    assert server.asked == ["/w.onnx"]
    assert list(cache.iterdir()) == [path]


def test_damaged_copy_is_pulled_again(server: Server, cache: Path) -> None:
    entry = entry_at(server)
    pull_entry(entry).write_bytes(b"damaged")
    assert pull_entry(entry).read_bytes() == WEIGHTS


def test_wrong_sum_is_refused_and_nothing_is_left(server: Server, cache: Path) -> None:
    other = WEIGHTS[:-1] + b"?"
    with pytest.raises(ModelError, match="is registered; it was removed"):
        pull_entry(entry_at(server, other))
    assert list(cache.iterdir()) == []


def test_wrong_sum_leaves_the_file_that_was_there(server: Server, cache: Path) -> None:
    good = pull_entry(entry_at(server))
    changed = replace(entry_at(server, b"y" * 100), sha256="0" * 64)
    with pytest.raises(ModelError):
        pull_entry(changed)
    assert good.read_bytes() == WEIGHTS


def test_more_bytes_than_registered_are_not_even_written(server: Server, cache: Path) -> None:
    with pytest.raises(ModelError, match="sends more than the"):
        pull_entry(entry_at(server, WEIGHTS + b"more" * 100_000))
    assert list(cache.iterdir()) == []


def test_broken_off_download_is_refused(server: Server, cache: Path) -> None:
    server.cut_after = 1000
    with pytest.raises(ModelError):
        pull_entry(entry_at(server))
    assert list(cache.iterdir()) == []


def test_missing_page_and_dead_server_are_one_sentence(server: Server, cache: Path) -> None:
    entry = entry_at(server)
    with pytest.raises(ModelError, match="answered 404"):
        pull_entry(replace(entry, url=f"{server.url}/elsewhere"))
    with pytest.raises(ModelError, match=r"cannot be reached .* put it at"):
        pull_entry(replace(entry, url="http://127.0.0.1:9/w.onnx"))


def test_only_http_is_fetched(cache: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHTS)
    entry = Entry("net", "yunet", "", "MIT", "w.onnx", len(WEIGHTS), "0" * 64, secret.as_uri())
    with pytest.raises(ModelError, match="no address"):
        pull_entry(entry)


def test_restricted_licence_has_to_be_accepted_first(server: Server, cache: Path) -> None:
    entry = replace(entry_at(server), restricted=True, licence="non-commercial research only")
    with pytest.raises(UsageError, match=r"non-commercial research only: .*--accept-license"):
        pull_entry(entry)
    assert server.asked == []
    assert pull_entry(entry, accept_license=True).read_bytes() == WEIGHTS


def test_member_of_an_archive_is_taken_alone(server: Server, cache: Path) -> None:
    server.answers["/pack.zip"] = zipped({"pack/det.onnx": WEIGHTS, "pack/other.onnx": b"z" * 999, "../evil": b"e"})
    entry = replace(entry_at(server), url=f"{server.url}/pack.zip", member="det.onnx", file="det.onnx")
    assert pull_entry(entry).read_bytes() == WEIGHTS
    assert [path.name for path in cache.iterdir()] == ["det.onnx"]
    assert not (cache.parent / "evil").exists()


@pytest.mark.parametrize("archive", [b"no zip at all", zipped({"other.onnx": WEIGHTS}), zipped({"det.onnx": b"short"})])
def test_archive_without_the_member_is_refused(server: Server, cache: Path, archive: bytes) -> None:
    server.answers["/pack.zip"] = archive
    entry = replace(entry_at(server), url=f"{server.url}/pack.zip", member="det.onnx", file="det.onnx")
    with pytest.raises(ModelError):
        pull_entry(entry)
    assert list(cache.iterdir()) == []


def test_cache_that_cannot_be_made_is_an_output_error(server: Server, cache: Path) -> None:
    cache.write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        pull_entry(entry_at(server))


def test_unknown_name_lists_what_can_be_pulled() -> None:
    with pytest.raises(UsageError, match="yunet, centerface, scrfd"):
        pull_model("nix")


def test_packs_need_consent_and_the_extra() -> None:
    with pytest.raises(UsageError, match="--accept-license"):
        pull_model("scrfd:buffalo_s")
    try:
        import insightface  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="--extra insightface"):
            pull_model("scrfd:buffalo_s", accept_license=True)
