"""A scan that goes on as its folders are filled: look, wait until a file is finished, scan what is new, merge, look again.

Polling, not notifications: what another machine writes to a mounted folder raises none. A file counts as finished when its size and
time of change have stood still for a while *as seen from here* (clocks of other machines may be wrong) and its container says that it is
whole. A recorder that writes under another name and renames the file is covered by the same rule.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from maskbatch.errors import UsageError
from maskbatch.scanning.run import scan
from maskbatch.scanning.summary import ScanSummary
from maskbatch.sources.discovery.discover import discover
from maskbatch.sources.live.rest import GIVE_UP_S, Rest
from maskbatch.types import Source


def _among(finished: dict[str, str]) -> Callable[[Source], bool]:
    return lambda source: finished.get(source.name) == source.fingerprint


def follow_folders(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    stop: threading.Event,
    *,
    settle_s: float = 5.0,
    give_up_s: float = GIVE_UP_S,
    overwrite: bool = False,
    restart: bool = False,
    follow: bool = False,
    sniff: bool = False,
    **options: Any,
) -> Iterator[ScanSummary]:
    """Keep one result current as files arrive; a summary after each pass that found something new.

    Every pass is a whole scan of all that is finished: what an earlier one did is taken over, and the merge replaces the result in one step.

    Args:
        paths: as for `scan`; lists on standard input cannot be followed.
        out: as for `scan`.
        stop: ends it, between two passes.
        settle_s: seconds that a file must stand still; also how often is looked.
        give_up_s: see `GIVE_UP_S`.
        overwrite: for the first pass, as for `scan`.
        restart: for the first pass, as for `scan`.
        follow: enter linked folders.
        sniff: as for `scan`.
        options: of `scan`.

    Raises:
        MaskbatchError: as `scan`.
    """
    named = tuple(os.fspath(path) for path in paths)
    if "-" in named:
        raise UsageError("--watch looks again and again, which standard input cannot give; name a folder")
    rest = Rest(settle_s, give_up_s)
    done: dict[str, str] = {}
    while True:
        found = discover(named, follow=follow, sniff_all=sniff)
        finished = rest.look(found.sources)
        if finished and finished != done:
            yield scan(
                named,
                out,
                overwrite=overwrite,
                restart=restart,
                follow=follow,
                sniff=sniff,
                accept=_among(finished),
                **options,
            )
            done, overwrite, restart = finished, False, False
        with suppress(KeyboardInterrupt):
            if stop.wait(min(settle_s, 5.0)):
                return
            continue
        return  # interrupted between two passes: the result is whole
