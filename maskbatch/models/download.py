"""Pulling registered models: only when asked to, only what was registered, all or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

from maskbatch.errors import MissingExtraError, ModelError, OutputError, UsageError
from maskbatch.models.files import file_checksum
from maskbatch.models.registry import Entry, all_entries, entry_path, models_folder, packs_folder

_CHUNK = 1 << 18
_MAX_ARCHIVE = 1 << 30
_TIMEOUT_S = 60

Progress = Callable[[int, int], None]
"""Called with the bytes received and the bytes expected (0 if unknown)."""


def pull_model(name: str, accept_license: bool = False, progress: Progress | None = None) -> Path:
    """Download a registered model into the cache folder; nothing is done where it is there and right.

    Args:
        name: as registered, or ``scrfd:PACK`` for a pack that the package `insightface` downloads.
        accept_license: the user agreed to a licence that restricts use.
        progress: told how far it is.

    Returns:
        The file.

    Raises:
        UsageError: no such model, or a licence that has to be accepted first.
        ModelError: it could not be downloaded, or is not what was registered.
        OutputError: the cache folder cannot be written.
    """
    if name.startswith("scrfd:"):
        return _pull_pack(name.removeprefix("scrfd:"), accept_license)
    entries = {entry.name: entry for entry in all_entries()}
    entry = entries.get(name)
    if entry is None:
        known = ", ".join(e.name for e in entries.values() if not e.packaged)
        raise UsageError(f"no model is called {name!r}; these can be pulled: {known}")
    if entry.packaged:
        return entry_path(entry)
    return pull_entry(entry, accept_license, progress)


def pull_entry(entry: Entry, accept_license: bool = False, progress: Progress | None = None) -> Path:
    """As `pull_model`, for an entry."""
    if entry.restricted and not accept_license:
        raise UsageError(
            f"model {entry.name} is for {entry.licence}: "
            f"if that is you, run `maskbatch models pull {entry.name} --accept-license`"
        )
    if entry.url is None or not entry.url.startswith(("https://", "http://")):
        raise ModelError(f"model {entry.name} has no address that it could be pulled from")
    target = models_folder() / entry.file
    if target.is_file() and file_checksum(target) == entry.sha256:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".pull-", dir=target.parent, delete=False) as stream:
            part = Path(stream.name)
            try:
                if entry.member:
                    _unpack(entry, _open(entry), stream, progress)
                else:
                    _receive(entry, _open(entry), stream, entry.size, progress)
                stream.flush()
                os.fsync(stream.fileno())
                _check(entry, part)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def _open(entry: Entry) -> BinaryIO:
    assert entry.url is not None
    request = urllib.request.Request(entry.url, headers={"User-Agent": "maskbatch"})
    try:
        answer: BinaryIO = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise ModelError(f"model {entry.name} cannot be pulled: {entry.url} answered {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ModelError(
            f"model {entry.name} cannot be pulled, {entry.url} cannot be reached ({reason}): "
            f"fetch it by hand and put it at {models_folder() / entry.file}"
        ) from None
    return answer


def _receive(entry: Entry, answer: BinaryIO, out: IO[bytes], size: int, progress: Progress | None) -> None:
    """Copy the answer, never more than expected."""
    limit = size or _MAX_ARCHIVE
    received = 0
    with answer:
        while True:
            try:
                block = answer.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise ModelError(f"model {entry.name}: the download broke off ({error}): pull it again") from None
            if not block:
                return
            received += len(block)
            if received > limit:
                raise ModelError(f"model {entry.name}: {entry.url} sends more than the {limit} bytes registered")
            out.write(block)
            if progress:
                progress(received, size)


def _unpack(entry: Entry, answer: BinaryIO, out: IO[bytes], progress: Progress | None) -> None:
    """Take one member out of a zip archive; nothing else of it touches the disk for longer than the download."""
    with tempfile.TemporaryFile(dir=models_folder()) as archive:
        _receive(entry, answer, archive, 0, progress)
        try:
            with zipfile.ZipFile(archive) as opened:
                members = [m for m in opened.infolist() if m.filename.rpartition("/")[2] == entry.member]
                if len(members) != 1 or members[0].file_size != entry.size:
                    raise ModelError(f"model {entry.name}: {entry.url} does not hold the {entry.member} registered")
                with opened.open(members[0]) as stream:
                    while block := stream.read(_CHUNK):
                        out.write(block)
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise ModelError(
                f"model {entry.name}: {entry.url} is not a whole archive ({error}): pull it again"
            ) from None


def _check(entry: Entry, path: Path) -> None:
    """Compare the checksum of what was written."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != entry.sha256:
        raise ModelError(
            f"model {entry.name}: what {entry.url} sent has SHA-256 {found[:12]}…, but {entry.sha256[:12]}… is "
            "registered; it was removed"
        )


def _pull_pack(pack: str, accept_license: bool) -> Path:
    if not accept_license:
        raise UsageError(
            f"insightface's model packs are for non-commercial research only: "
            f"if that is you, run `maskbatch models pull scrfd:{pack} --accept-license`"
        )
    try:
        from insightface.utils.storage import ensure_available
    except ImportError:
        raise MissingExtraError(
            "model packs by name need the package insightface: install it with `uv sync --extra insightface` "
            "(or `pip install 'maskbatch[insightface]'`), or pull scrfd, scrfd_2.5g or scrfd_10g"
        ) from None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ensure_available("models", Path(pack).name)
    except Exception as error:  # a third-party downloader: anything
        raise ModelError(f"insightface could not download the pack {pack!r}: {error}") from None
    return packs_folder() / Path(pack).name
