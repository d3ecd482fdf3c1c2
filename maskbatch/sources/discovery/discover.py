"""Finding the inputs: files, folders, globs, lists and URLs become `Source` objects, in a stable order.

Rules of the contract:

- In a folder, every file with the extension of an image or a video is an input, whatever it holds; all other files
  are ignored and counted. Hidden files and folders (names that begin with a dot: ``._IMG_1.jpg``, ``.thumbnails``) count
  as ignored. Archives in folders are ignored; of a `.tar` that is named (or matched by a glob) each member is an input.
- The same file, named under two of several roots, is one input.
- A file that is named on its own is an input whatever its name, and its first bytes say whether it is a video.
- A linked file is an input; a linked folder is entered only with `follow`, and each folder once.
- Each input has a name that is unique in the run and valid UTF-8: its path relative to its root, with the name of the
  root in front where there are several.
"""

# Plain strings: a million of them, and some are not valid UTF-8.
# ruff: noqa: PTH112, PTH114, PTH116, PTH118

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from maskbatch.errors import InputError, InputNotFoundError
from maskbatch.sources.discovery.roots import Root, matches, resolve_roots
from maskbatch.sources.discovery.tar_shards import is_tar, tar_members
from maskbatch.sources.sniff import SNIFF_BYTES, sniff
from maskbatch.storage.opener import as_input_error, describe_mode, is_url, read_head
from maskbatch.storage.ranges import range_path
from maskbatch.storage.remote import Listing, remote_items, remote_listing
from maskbatch.types import Media, Problem, Source

_IMAGE_EXTENSIONS = """
    jpg jpeg jpe jfif mpo png apng gif bmp dib tif tiff webp avif heic heif hif jp2 j2k jpx ppm pgm pbm pnm qoi
    hdr exr
"""
_VIDEO_EXTENSIONS = """
    mp4 m4v mov mkv webm avi mpg mpeg mpe m2v ts mts m2ts vob wmv asf flv f4v 3gp 3g2 ogv mxf dav
    h264 264 avc h265 265 hevc mjpeg mjpg m2t
"""
_SHARED_EXTENSIONS = frozenset({"", "dat", "ps", "tp"})
"""Of recordings and of other things (and no extension at all): such files are looked into, and are inputs if they are videos."""
_JPEG_STREAMS = frozenset({"mjpeg", "mjpg"})
IMAGE_EXTENSIONS = frozenset(_IMAGE_EXTENSIONS.split())
VIDEO_EXTENSIONS = frozenset(_VIDEO_EXTENSIONS.split())


@dataclass(slots=True)
class Discovery:
    """What was found. Iterate `sources` once; the counts are complete when it has ended.

    Attributes:
        sources: the inputs, in order.
        roots: name of each root → its absolute path or URL, in the order given.
        single: whether there is one root only, so that names do not begin with it.
        ignored_by_extension: files in folders that are not inputs, by extension (lower case, empty for none); also
            ``hidden`` and ``link to a folder``.
    """

    sources: Iterator[Source]
    roots: dict[str, str]
    single: bool
    ignored_by_extension: Counter[str] = field(default_factory=Counter)

    @property
    def ignored(self) -> int:
        """Files and hidden folders that were skipped."""
        return self.ignored_by_extension.total()


@dataclass(frozen=True, slots=True)
class _Walk:
    """How folders are walked."""

    exclude: frozenset[str]
    ignored: Counter[str]
    follow: bool = False
    sniff: bool = False
    several: bool = False
    files: set[tuple[int, int]] = field(default_factory=set)
    """With several roots: device and inode of the files seen, since two of them may hold the same one."""

    def is_new(self, path: str) -> bool:
        """Whether a local file has not been met under another path."""
        if not self.several:
            return True
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return True
        identity = (status.st_dev, status.st_ino)
        if identity in self.files:
            self.ignored["named twice"] += 1
            return False
        self.files.add(identity)
        return True


def discover(
    paths: Sequence[str | os.PathLike[str]],
    *,
    exclude: Iterable[str | os.PathLike[str]] = (),
    limit: int | None = None,
    follow: bool = False,
    sniff_all: bool = False,
) -> Discovery:
    """Find the inputs of a scan.

    Args:
        paths: files, folders, globs (``cam*/**/*.jpg``), ``@list.txt``, ``-`` for a list on standard input, URLs. A list has
            one path a line, or is separated by NUL characters; relative ones are relative to the working folder.
        exclude: folders that are not entered (those that the scan itself writes to).
        limit: at most this many inputs.
        follow: linked folders are entered too, each folder once.
        sniff_all: files in folders whose extension says nothing are looked into, and are inputs if their first bytes are those of
            an image or a video.

    Returns:
        The roots, checked to exist, and an iterator over the sources that walks as it is read. What cannot be read is
        a source with its ``problem`` set: special files, dangling links, folders without permission (named with ``/``
        at the end).

    Raises:
        InputNotFoundError: a path, a list or what a glob stands for does not exist, or there is no input path at all.
        UsageError: a list cannot be read.
        MissingExtraError: a URL whose file system is not installed.
    """
    roots = resolve_roots([os.fspath(path) for path in paths])
    if not roots:
        raise InputNotFoundError("no input: name a file, a folder, a glob, @list.txt or - for a list on standard input")
    single = len(roots) == 1
    excluded = frozenset(os.path.realpath(path) for path in exclude)
    ignored: Counter[str] = Counter()
    walk = _Walk(excluded, ignored, follow, sniff_all, not single)
    listings = {root.name: remote_listing(root.path) for root in roots if root.kind == "url"}
    sources = _sources(roots, single, walk, listings)
    _check_patterns(roots, walk)
    if limit is not None:
        sources = _first(sources, limit)
    return Discovery(sources, {root.name: root.path for root in roots}, single, ignored)


def _check_patterns(roots: list[Root], walk: _Walk) -> None:
    trial = replace(walk, ignored=Counter(), files=set())
    for root in roots:
        if root.pattern and next(_matching(root, "", trial), None) is None:
            raise InputNotFoundError(f"no image or video matches {root.path}/{root.pattern}")


def media_of(name: str) -> Media | None:
    """What the extension of a file name says: ``image``, ``video``, or None where it is not one of ours."""
    extension = _extension(name)
    if extension in IMAGE_EXTENSIONS:
        return "image"
    return "video" if extension in VIDEO_EXTENSIONS else None


def _extension(name: str) -> str:
    # `ab.JPG` → `jpg`; a name like `.jpg` has none.
    stem, dot, extension = name.rpartition(".")
    return extension.lower() if dot and stem else ""


def _first(sources: Iterator[Source], limit: int) -> Iterator[Source]:
    for index, source in enumerate(sources):
        if index >= limit:
            return
        yield source


def _sources(roots: list[Root], single: bool, walk: _Walk, listings: dict[str, Listing]) -> Iterator[Source]:
    for root in roots:
        prefix = "" if single else f"{root.name}/"
        if root.kind == "file":
            yield from _named_file(root.path, root.name, walk, sniffed=True)
        elif root.kind == "folder":
            yield from _folder(root.path, prefix, walk)
        elif root.kind == "url":
            yield from _remote(listings[root.name], root.name, prefix, walk)
        elif root.pattern:
            yield from _matching(root, prefix, walk)
        elif is_url(root.path):
            yield from _remote_list(root, prefix)
        else:
            yield from _listed(root, prefix, walk)


def _matching(root: Root, prefix: str, walk: _Walk) -> Iterator[Source]:
    """What a glob with ``**`` stands for: the walk decides what is seen, so that linked folders and hidden files follow one rule."""
    pattern = root.pattern.split("/")
    for source in _folder(root.path, prefix, walk):
        if source.name.endswith("/") or matches(source.name.removeprefix(prefix).split("/"), pattern):
            yield source


def _listed(root: Root, prefix: str, walk: _Walk) -> Iterator[Source]:
    """The entries of a list or a glob, and what is in those that are folders; each name once."""
    seen: set[str] = set()
    for entry in root.entries:
        for source in _entry(root, entry, prefix + entry, walk):
            if source.name not in seen:
                seen.add(source.name)
                yield source


def _entry(root: Root, entry: str, name: str, walk: _Walk) -> Iterator[Source]:
    path = os.path.join(root.path, entry)
    if os.path.isdir(path):
        yield from _folder(path, f"{name}/", walk)
    elif root.kind == "glob" and media_of(entry) is None and not is_tar(entry):
        walk.ignored[_extension(entry)] += 1
    else:
        yield from _named_file(path, name, walk, sniffed=media_of(entry) is None)


def _named_file(path: str, name: str, walk: _Walk, sniffed: bool) -> Iterator[Source]:
    """A file that was named on its own, or the members of an archive that was."""
    if is_tar(path) and Path(path).is_file():
        container = _source(path, name, "image")
        yield from _tar(path, container.name, container.fingerprint, walk)
    elif walk.is_new(path):
        yield _explicit(path, name, sniffed)


def _tar(path: str, name: str, fingerprint: str, walk: _Walk) -> Iterator[Source]:
    """The images and videos in an archive, in its order; what stops the reading of the archive is a source of its own."""
    taken: set[str] = set()
    found = False
    try:
        for member in tar_members(path):
            media = media_of(member.name)
            hidden = any(part.startswith(".") for part in member.name.split("/"))
            if hidden or media is None:
                walk.ignored["hidden" if hidden else _extension(member.name)] += 1
                continue
            shown = _unique(_utf8(f"{name}/{member.name}"), taken)
            taken.add(shown)
            found = True
            place = range_path(path, member.offset, member.size)
            yield Source(place, shown, media, member.size, etag=f"{fingerprint}@{member.offset:x}")
        if not found:
            problem = Problem("error", "not_media", "the archive holds no images or videos")
            yield Source(path, name, "image", problem=problem)
    except InputError as error:
        yield Source(path, name, "image", problem=Problem("error", error.code, error.message))


def _remote_list(root: Root, prefix: str) -> Iterator[Source]:
    """The URLs of a list, each a file. Queries may hold signatures and are not part of a name."""
    taken: set[str] = set()
    urls = list(dict.fromkeys(root.path + entry for entry in root.entries))
    for url, item in zip(urls, remote_items(urls), strict=True):
        plain = url.removeprefix(root.path).partition("?")[0]
        name = _unique(_utf8(prefix + plain), taken)
        taken.add(name)
        media = media_of(plain) or "image"
        if isinstance(item, InputError):
            yield Source(url, name, media, problem=Problem("error", item.code, item.message))
        else:
            yield Source(url, name, media, item.size, item.mtime_ns, item.etag)


def _remote(listing: Listing, root: str, prefix: str, walk: _Walk) -> Iterator[Source]:
    for item in listing.items:
        if is_tar(item.key) and (listing.is_file or listing.globbed):
            shown = root if listing.is_file else _utf8(prefix + item.key)
            mark = item.etag or f"{item.size:x}-{item.mtime_ns:x}"
            yield from _tar(item.url, shown, mark, walk)
            continue
        if listing.is_file:
            yield Source(item.url, root, media_of(root) or "image", item.size, item.mtime_ns, item.etag)
            continue
        media = media_of(item.key)
        hidden = any(part.startswith(".") for part in item.key.split("/"))
        if hidden or media is None:
            walk.ignored["hidden" if hidden else _extension(item.key)] += 1
        else:
            yield Source(item.url, _utf8(prefix + item.key), media, item.size, item.mtime_ns, item.etag)


def _explicit(path: str, name: str, sniffed: bool) -> Source:
    """A file that was named on its own: an input, whatever it is called."""
    source = _source(path, name, media_of(path) or "image")
    if sniffed and source.problem is None and source.size:
        try:
            media = sniff(read_head(path, SNIFF_BYTES)).media
        except InputError as error:
            return _with_problem(source, Problem("error", error.code, error.message))
        if _extension(path) in _JPEG_STREAMS:  # begins as an image does
            return source
        if media is not None and media != source.media:
            return Source(path, source.name, media, source.size, source.mtime_ns)
    return source


def _folder(path: str, prefix: str, walk: _Walk, visited: set[tuple[int, int]] | None = None) -> Iterator[Source]:
    """The inputs in a folder and below it, sorted by name in each folder.

    Only names are kept, and one ``stat`` is made per input, so that a folder of a million files costs about 130 MB.
    """
    if walk.exclude and os.path.realpath(path) in walk.exclude:
        return
    visited = set() if visited is None else visited
    try:
        if walk.follow:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in visited:
                return
            visited.add((status.st_dev, status.st_ino))
        names = sorted(_entries(path, walk))
    except OSError as error:
        problem = as_input_error(error)
        message = problem.message.replace("the file", "the folder")
        yield Source(path, _utf8(prefix or "./"), "image", problem=Problem("error", problem.code, message))
        return
    taken: set[str] = set()
    escaped = any(not name.isascii() and _utf8(name) != name for name, _ in names)
    base = path if path.endswith("/") else f"{path}/"
    for name, media in names:
        shown = prefix + name
        if media is None:
            yield from _folder(base + name, f"{shown}/", walk, visited)
            continue
        if escaped:
            # Only here can two names become equal: an invalid byte, and the same spelled out by a joker.
            shown = _unique(prefix + _utf8(name), taken)
            taken.add(shown)
        if walk.is_new(base + name):
            yield _source(base + name, shown, media)


def _entries(path: str, walk: _Walk) -> Iterator[tuple[str, Media | None]]:
    """Names of the inputs with their media, and of the folders to enter with None."""
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                walk.ignored["hidden"] += 1
            elif entry.is_dir(follow_symlinks=False):
                yield name, None
            else:
                media = media_of(name)
                if media is None and (walk.sniff or _extension(name) in _SHARED_EXTENSIONS):
                    media = _sniffed(entry.path)
                    if media == "image" and not walk.sniff:
                        media = None
                # A link costs a stat only if it may be a folder; a linked `x.jpg` is taken to be a file at first.
                if (media is None or walk.follow) and entry.is_symlink() and _is_linked_folder(entry):
                    if walk.follow:
                        yield name, None
                    else:
                        walk.ignored["link to a folder"] += 1
                elif media is None:
                    walk.ignored[_extension(name)] += 1
                else:
                    yield name, media


def _sniffed(path: str) -> Media | None:
    """What the first bytes of a file say that it is; None where it is neither an image nor a video, or cannot be read."""
    try:
        return sniff(read_head(path, SNIFF_BYTES)).media
    except InputError:
        return None


def _is_linked_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=True)
    except OSError:  # a loop of links
        return False


def _source(path: str, name: str, media: Media) -> Source:
    name = _utf8(name)
    try:
        status = os.stat(path)
    except OSError as error:
        failure = as_input_error(error)
        code, message = failure.code, failure.message
        if code == "not_found" and os.path.islink(path):
            message = "a link to a file that does not exist"
        return Source(path, name, media, problem=Problem("error", code, message))
    except ValueError as error:  # a NUL in the name
        return Source(path, name, media, problem=Problem("error", "not_found", f"no file can have this name ({error})"))
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = Problem("error", "special_file", f"not a regular file but {describe_mode(status.st_mode)}")
    return Source(path, name, media, status.st_size, status.st_mtime_ns, problem=problem)


def _with_problem(source: Source, problem: Problem) -> Source:
    return Source(source.path, source.name, source.media, source.size, source.mtime_ns, problem=problem)


def _utf8(name: str) -> str:
    """The name with bytes that are no UTF-8 written as ``\\xff``; the same object where there are none."""
    if name.isascii():
        return name
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        stem, dot, extension = name.rpartition(".")
        candidate = f"{stem}~{number}.{extension}" if dot else f"{name}~{number}"
        number += 1
    return candidate
