"""Where annotated files and crops go: inside the output folder, never onto an input."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from maskbatch.errors import OutputError, UsageError
from maskbatch.storage.atomic import as_output_error
from maskbatch.storage.opener import is_url
from maskbatch.types import Source

_MAX_NAME_BYTES = 200
"""File systems take 255 bytes; the temporary name and an added ending need some of them."""


def check_output_folder(folder: str | os.PathLike[str], roots: Iterable[str], option: str) -> None:
    """Refuse a folder in which outputs could land on inputs: a root itself, or a folder that holds one.

    A folder *inside* a root is fine, as long as the discovery is told to leave it out.

    Args:
        folder: where images, videos or crops are to be written.
        roots: absolute paths (or URLs) of the inputs' roots.
        option: what to call the folder in the message, ``--annotate``.

    Raises:
        UsageError: the folder is, or holds, an input root.
    """
    real = Path(os.path.realpath(folder))
    for root in roots:
        # `/` is the root of absolute paths in a list; everything lies in it, and the check per file remains.
        if is_url(root) or root == "/":
            continue
        real_root = Path(os.path.realpath(root))
        if real == real_root or real in real_root.parents:
            raise UsageError(f"{option} {os.fspath(folder)} holds the input {root}; name another folder to write to")


def output_path(folder: Path, name: str) -> Path:
    """Where an output of this name lies below a folder; a part that is too long for a file system is cut and gets a hash."""
    return folder.joinpath(*(_short(part) for part in name.split("/")))


def safe_output_path(folder: Path, name: str, source: Source) -> Path:
    """The path of an output below `folder`, its parent made.

    Args:
        folder: the output folder.
        name: path relative to it, ``/``-separated, made from the name of an input: data, not to be trusted.
        source: the input that the output is made from.

    Returns:
        A path whose folder exists. A part of the name that is too long for a file system is cut and gets a hash.

    Raises:
        OutputError: the name would leave the folder (``..``, absolute, through a link), the folder cannot be made, or
            the output would be the input itself (also under another name).
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise OutputError(f"the name {name!r} cannot be used below {folder}")
    target = output_path(folder, name)
    with as_output_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    real_folder, real_parent = Path(os.path.realpath(folder)), Path(os.path.realpath(target.parent))
    if real_parent != real_folder and real_folder not in real_parent.parents:
        raise OutputError(f"{target} would lie outside {folder}, through a link")
    if not is_url(source.path) and _same_file(target, source.path):
        raise OutputError(f"{target} is the input itself; name another output folder")
    return target


def _short(part: str) -> str:
    encoded = os.fsencode(part)
    if len(encoded) <= _MAX_NAME_BYTES:
        return part
    stem, dot, extension = part.rpartition(".")
    ending = f"{dot}{extension}" if stem and len(os.fsencode(extension)) <= 16 else ""
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    kept = encoded[: _MAX_NAME_BYTES - 40].decode("utf-8", "ignore")
    return f"{kept}~{digest}{ending}"


def _same_file(target: Path, source: str) -> bool:
    try:
        return target.samefile(source)
    except OSError:  # one of them does not exist
        return False
