"""From the words of a command line to roots: what exists, what it is called, and what a list or a glob stands for."""

# Plain strings: a million of them, and some are not valid UTF-8.
# ruff: noqa: PTH100, PTH112, PTH117, PTH119, PTH207

from __future__ import annotations

import codecs
import fnmatch
import glob
import os
import re
import sys
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from maskbatch.errors import InputError, InputNotFoundError, UsageError
from maskbatch.sources.discovery.tar_shards import is_tar
from maskbatch.storage.opener import is_url, read_bytes

RootKind = Literal["file", "folder", "glob", "list", "url"]


@dataclass(frozen=True, slots=True)
class Root:
    """One place where inputs are.

    Attributes:
        name: unique among the roots; the first part of the sources' names where there are several roots.
        path: absolute path of the file or folder, or of the folder that `entries` are relative to; or a URL.
        kind: what it is.
        entries: paths relative to `path`, of a glob (sorted) or a list (in its order).
        pattern: of a glob with ``**``, relative to `path`; such a glob has no entries, the folder is walked.
    """

    name: str
    path: str
    kind: RootKind
    entries: tuple[str, ...] = ()
    pattern: str = ""


def resolve_roots(paths: list[str]) -> list[Root]:
    """The roots that `paths` name, each path once, with unique names.

    Raises:
        InputNotFoundError: something named does not exist, or a glob matches nothing.
        UsageError: a list cannot be read.
    """
    found: list[Root] = []
    for path in paths:
        found += _resolve(path)
    distinct = {(root.kind, root.path, root.entries, root.pattern): root for root in reversed(found)}
    return _named([root for root in found if distinct[(root.kind, root.path, root.entries, root.pattern)] is root])


def _resolve(path: str) -> list[Root]:
    if path == "-":
        return _resolve_list(_read_standard_input(), "standard input")
    path = _local(path)
    if is_url(path) and not path.startswith("@"):
        return [Root(_url_name(path), path, "url")]
    try:
        os.lstat(path)
        return [_existing(path)]
    except PermissionError as error:
        raise UsageError(f"{path} cannot be reached: no permission to enter the folder it is in") from error
    except (OSError, ValueError):
        pass  # not there under this very name: a list, a glob, or a mistake
    if path.startswith("@"):
        return _resolve_list(_read_list(path[1:]), path[1:])
    if glob.has_magic(path):
        return [_resolve_glob(path)]
    raise InputNotFoundError(f"{path} does not exist")


def _existing(path: str) -> Root:
    absolute = os.path.abspath(path)
    name = os.path.basename(absolute) or "root"
    try:
        is_folder = Path(path).is_dir()
    except OSError:  # no permission on the way there; the file's own row will say so
        is_folder = False
    if is_folder:
        _refuse_everything(absolute)
    return Root(name, absolute, "folder" if is_folder else "file")


def _resolve_glob(pattern: str) -> Root:
    """The root of a glob is the folder in front of its first part with a wildcard."""
    parts = Path(os.path.abspath(pattern)).parts
    first = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    base = str(Path(*parts[:first]))
    name = os.path.basename(base) or "root"
    inner = "/".join(parts[first:])
    if "**" in parts:
        if not os.path.isdir(base):
            raise InputNotFoundError(f"no file matches {pattern}: the folder {base} does not exist")
        return Root(name, base, "glob", pattern=inner)
    entries = glob.glob(inner, root_dir=base)
    if not entries:
        raise InputNotFoundError(f"no file matches {pattern}")
    return Root(name, base, "glob", tuple(sorted(entries)))


def matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a relative path fit a glob in which ``**`` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:]
        return not rest or any(matches(parts[skip:], rest) for skip in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def _resolve_list(data: bytes, origin: str) -> list[Root]:
    """Relative entries are relative to the working folder and keep their spelling; absolute ones to the file system's
    root; URLs stand for themselves. So a name never depends on the other entries."""
    entries = _entries(data, origin)
    if not entries:
        raise InputNotFoundError(f"the list {origin} names no file")
    relative: list[str] = []
    absolute: list[str] = []
    remote: dict[str, list[str]] = {}
    roots: list[Root] = []
    for given in entries:
        entry = _local(given)
        if is_url(entry):
            scheme, _, rest = entry.partition("://")
            if rest.endswith("/") or is_tar(rest) or glob.has_magic(rest.partition("?")[0]):
                roots += _resolve(entry)
            else:
                remote.setdefault(scheme, []).append(rest)
            continue
        _refuse_everything(entry)
        normal = os.path.normpath(entry)
        if os.path.isabs(normal) or normal == ".." or normal.startswith("../"):
            absolute.append(os.path.abspath(normal).lstrip("/"))
        else:
            relative.append(normal)
    roots += [Root(scheme, f"{scheme}://", "list", tuple(rests)) for scheme, rests in remote.items()]
    here = str(Path.cwd())
    if relative:
        roots.append(Root(os.path.basename(here) or "root", here, "list", tuple(relative)))
    if absolute:
        roots.append(Root("root", "/", "list", tuple(absolute)))
    return roots


_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def _entries(data: bytes, origin: str) -> list[str]:
    """The paths in a list: a line each, or separated by NUL characters (``find -print0``). UTF-8 or the file system's bytes; UTF-16
    with its byte order mark, as Windows writes it.

    Raises:
        UsageError: the bytes are not a list of paths. Nothing is guessed from a single byte.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise UsageError(f"the list {origin} begins like UTF-16 but is not: {error.reason}") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        parts = data.split(b"\0")
        # UTF-16 without its mark would be taken apart letter by letter, and "/" is one of the letters.
        if sum(len(part) <= 1 for part in parts) * 2 > len(parts) + 1 or (
            b"\n" in data.strip(b"\n\0") and len(parts) <= 2
        ):
            raise UsageError(f"the list {origin} is not text: write a path per line in UTF-8, or separate them by NUL")
    else:
        parts = [line.rstrip(b"\r") for line in data.split(b"\n")]
    if any(_CONTROL.search(part) for part in parts):
        raise UsageError(f"the list {origin} is not text but a binary file; name it without @ to scan it")
    return [text for part in parts if (text := os.fsdecode(part)).strip()]


def _local(entry: str) -> str:
    """``file:///a%20b`` as the path that it stands for; anything else as it is."""
    if not entry.startswith("file://"):
        return entry
    return urllib.parse.unquote(urllib.parse.urlsplit(entry).path) or entry


def _refuse_everything(path: str) -> None:
    """Nobody means to scan the whole file system; it is what a slip of the keyboard or of an encoding does."""
    if os.path.realpath(path) == "/":
        raise UsageError(f"{path} is the root of the file system; name the folders to scan")


def _url_name(url: str) -> str:
    """The last part of a URL that is neither a wildcard nor a query."""
    scheme, _, rest = url.partition("://")
    parts = [part for part in rest.partition("?")[0].split("/") if part]
    first = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return parts[first - 1] if first else scheme


def _read_list(path: str) -> bytes:
    if is_url(path):
        try:
            return read_bytes(path)
        except InputError as error:
            raise UsageError(f"the list {path.partition('?')[0]} cannot be read: {error.message}") from error
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputNotFoundError(f"the list {path} does not exist") from error
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read: {error.strerror}") from error


def _read_standard_input() -> bytes:
    return sys.stdin.buffer.read()


def _named(roots: list[Root]) -> list[Root]:
    taken: set[str] = set()
    named = []
    for root in roots:
        name = os.fsencode(root.name).decode("utf-8", "backslashreplace")
        candidate, number = name, 2
        while candidate in taken:
            stem, dot, extension = name.rpartition(".")
            numbered = f"{stem}-{number}.{extension}" if dot and stem and root.kind == "file" else f"{name}-{number}"
            candidate, number = numbered, number + 1
        taken.add(candidate)
        named.append(replace(root, name=candidate))
    return named
