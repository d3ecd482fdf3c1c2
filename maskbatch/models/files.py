"""A model file as the runtime takes it: where it lies, and what its bytes must hash to."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from maskbatch.errors import ModelError
from maskbatch.models.onnx_file import Graph, NotOnnxError, inspect_model


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One ONNX file on disk. Picklable.

    Attributes:
        name: what it is called in messages and in the result's metadata, e.g. ``retinaface.int8``.
        path: the file.
        sha256: hexadecimal checksum that its bytes must have; empty for a user's own file, which nobody registered.
        family: how its outputs are read: ``classifier``, or a name of `maskbatch.detect.families`.
        fix: what to do when the file is missing or has another checksum.
    """

    name: str
    path: Path
    sha256: str
    family: str
    fix: str = ""


def read_model(model: ModelFile) -> tuple[bytes, str]:
    """The file's bytes and their SHA-256, already checked where one is registered.

    Raises:
        ModelError: the file is missing, unreadable, empty, or not the one that was registered.
    """
    fix = f": {model.fix}" if model.fix else ""
    try:
        data = model.path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"model {model.name}: {model.path} does not exist{fix}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelError(f"model {model.name}: {model.path} cannot be read ({reason})") from None
    if not data:
        raise ModelError(f"model {model.name}: {model.path} is empty{fix}")
    found = hashlib.sha256(data).hexdigest()
    if model.sha256 and found != model.sha256:
        raise ModelError(
            f"model {model.name}: {model.path} has SHA-256 {found[:12]}…, but {model.sha256[:12]}… is registered{fix}"
        )
    return data, found


def read_header(path: Path) -> Graph:
    """What a model file says about itself: names of inputs and outputs, metadata. ONNX Runtime is not needed.

    Raises:
        ModelError: the file is missing, unreadable or not ONNX.
    """
    data, _ = read_model(ModelFile(path.name, path, "", ""))
    try:
        return inspect_model(data)
    except NotOnnxError as error:
        raise ModelError(f"{path} is not a model that can be used: {error}") from None


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; remembered for as long as its size and time of last change stay the same.

    Raises:
        OSError: the file cannot be read.
    """
    stat = path.stat()
    return _file_checksum(path, stat.st_size, stat.st_mtime_ns)


def cache_root() -> Path:
    """``MASKBATCH_CACHE``, else ``maskbatch`` in the XDG cache folder (``~/.cache``)."""
    chosen = os.environ.get("MASKBATCH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "maskbatch"


@lru_cache(maxsize=64)
def _file_checksum(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
