"""``.tar`` archives that are named as inputs (WebDataset style): an index pass over the headers, and then each member is an input.

Only the headers are read here; of a local archive that is 512 bytes per member, of a remote one whole blocks, so that an archive of small
members is read once in full. The workers then read their members by offset, neighbours one after the other. Compressed archives have
no offsets and are refused.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from maskbatch.errors import InputError, InputErrorCode
from maskbatch.storage.opener import open_binary

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "Zstandard"}


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive: its name, made safe, and where its bytes are."""

    name: str
    offset: int
    size: int


def is_tar(name: str) -> bool:
    """Whether a name says that it is an archive; of a compressed one, reading it says that it must be unpacked."""
    return name.lower().endswith((".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"))


def tar_members(path: str) -> Iterator[Member]:
    """The regular files of an archive in their order.

    Args:
        path: local path or URL.

    Raises:
        InputError: after the members that could be found: the archive cannot be opened, is compressed (``unsupported``), cut off
            (``truncated``), damaged (``corrupt``), or no archive (``not_media``).
    """
    with open_binary(path) as file:
        head = file.read(512)
        file.seek(0)
        for magic, kind in _COMPRESSED.items():
            if head.startswith(magic):
                raise InputError("unsupported", f"the archive is compressed with {kind}; store it as plain .tar")
        if not head:
            raise InputError("empty", "the archive is empty (0 bytes)")
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # the index must not grow with the archive
                    if not info.isreg() or info.issparse():
                        continue
                    if info.offset_data + info.size > end:
                        raise InputError("truncated", f"the archive was cut off within {info.name}")
                    yield Member(_safe(info.name), info.offset_data, info.size)
        except tarfile.ReadError as error:
            code: InputErrorCode = (
                "truncated" if "unexpected end" in str(error) else "corrupt" if _is_archive(head) else "not_media"
            )
            raise InputError(code, f"not a whole .tar archive: {error}") from error
        except tarfile.TarError as error:
            raise InputError("corrupt", f"the archive is damaged: {error}") from error


def _is_archive(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _safe(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
