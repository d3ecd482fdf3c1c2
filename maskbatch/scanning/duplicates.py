"""``--skip-duplicates``: inputs with the same bytes are worked on once; images that look alike are pointed out.

Bytes are compared by SHA-256, and only those of files of the same length that also begin and end alike, so that an archive without
duplicates is not read a second time. The checksums are kept in the work folder.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from maskbatch.errors import InputError
from maskbatch.jobs.completed import SourceKey
from maskbatch.storage import Store
from maskbatch.storage.opener import open_binary
from maskbatch.types import PieceResult, Source

CHECKSUMS = "checksums.json"
PROBE = 1 << 14
"""Bytes of the beginning and of the end that are compared before whole files are."""

BLOCK = 1 << 20
THREADS = 4
NEAR = 3
"""Bits in which the difference hashes of images that look alike differ at most, of 64."""

BANDS = NEAR + 1
BAND_BITS = 64 // BANDS


def find_duplicates(sources: Iterable[Source], work: Store) -> dict[SourceKey, Source]:
    """Every input whose bytes are those of an earlier one, with that one.

    Args:
        sources: the inputs, in order; those that cannot be read have no duplicates.
        work: the work folder, where checksums are kept for the next run.
    """
    readable = [source for source in sources if source.problem is None and source.size]
    known = _known(work)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="maskbatch-hash") as pool:

        def alike(groups: Sequence[list[Source]], what: Callable[[Source], Hashable | None]) -> list[list[Source]]:
            flat = [source for group in groups for source in group]
            values = dict(zip(map(_key, flat), pool.map(what, flat), strict=True))
            found = []
            for group in groups:
                parts: defaultdict[Hashable, list[Source]] = defaultdict(list)
                for source in group:
                    if (value := values[_key(source)]) is not None:
                        parts[value].append(source)
                found += [part for part in parts.values() if len(part) > 1]
            return found

        by_size: defaultdict[Hashable, list[Source]] = defaultdict(list)
        for source in readable:
            by_size[source.media, source.size, source.stream or 0].append(source)
        groups = alike([group for group in by_size.values() if len(group) > 1], _ends)
        checksums: dict[str, str] = {}

        def checksum(source: Source) -> str | None:
            version = _version(source)
            found = known.get(version) or _checksum(source)
            if found is not None:
                checksums[version] = found
            return found

        groups = alike(groups, checksum)
    if checksums != known:
        work.write(CHECKSUMS, json.dumps(checksums).encode())
    return {_key(source): first for first, *others in groups for source in others}


def _key(source: Source) -> SourceKey:
    return source.name, source.fingerprint


def _version(source: Source) -> str:
    return f"{source.fingerprint} {source.path}"


def _known(work: Store) -> dict[str, str]:
    try:
        kept = json.loads(work.read(CHECKSUMS))
        return {str(version): str(checksum) for version, checksum in kept.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _ends(source: Source) -> bytes | None:
    """The first and last bytes of an input; None where it cannot be read, of which the scan itself will tell."""
    try:
        with open_binary(source.path) as file:
            head = file.read(PROBE)
            if source.size > 2 * PROBE:
                file.seek(source.size - PROBE)
            return hashlib.sha256(head + file.read(PROBE)).digest()
    except (OSError, InputError):
        return None


def _checksum(source: Source) -> str | None:
    digest = hashlib.sha256()
    try:
        with open_binary(source.path) as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except (OSError, InputError):
        return None
    return digest.hexdigest()


class LookAlikes:
    """Finds images that look like an earlier one: difference hashes at most `NEAR` bits apart.

    Of four parts of a hash one is the same where three bits differ, so that only hashes which share a part are compared. An image
    that looks like an earlier one does not stand for others, which keeps chains (a camera's slowly changing view) from growing
    into one group.

    Attributes:
        found: how many there were.
    """

    def __init__(self) -> None:
        self.found = 0
        self._first: dict[int, str] = {}
        self._bands: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def find(self, result: PieceResult) -> str | None:
        """The name of the first image that looks like this one, or None; this one is then what later ones are compared with."""
        if result.dhash is None:
            return None
        value = int(result.dhash, 16)
        if value in self._first:
            self.found += 1
            return self._first[value]
        bands = [(band, value >> (band * BAND_BITS) & ((1 << BAND_BITS) - 1)) for band in range(BANDS)]
        for band in bands:
            for other in self._bands[band]:
                if (value ^ other).bit_count() <= NEAR:
                    self.found += 1
                    return self._first[other]
        self._first[value] = result.name
        for band in bands:
            self._bands[band].append(value)
        return None
