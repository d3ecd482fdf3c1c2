"""Files with several video streams: which of them are inputs, and what they are called.

The stream that is read by default has the file's name; any other is called ``name#v1`` by its number among the video streams. So each
is an input of its own in every table, count and drawing, and no column is needed.
"""

from __future__ import annotations

import re
from dataclasses import replace

from maskbatch.config import Limits
from maskbatch.errors import InputError
from maskbatch.sources.videos.containers import OpenVideo
from maskbatch.types import Source

_STREAM = re.compile(r"(.+)#v(\d{1,3})")


def streams_of(source: Source, wanted: str, limits: Limits) -> list[Source]:
    """What a scan looks at of one input.

    Args:
        source: an image or a video file as found.
        wanted: ``default``, ``all``, or a number (`Sampling.video_stream`). For ``all`` a video's headers are read.
        limits: what is refused.

    Returns:
        The source itself, or one per stream. A file that cannot be opened stays one, and is told of when it is read.
    """
    if source.media != "video" or source.problem is not None or wanted == "default":
        return [source]
    if wanted != "all":
        return [_stream(source, int(wanted), named=int(wanted) > 0)]
    try:
        with OpenVideo(source, limits) as video:
            default, count = video.number, len(video.videos)
    except InputError:
        return [source]
    if count == 1:
        return [source]
    return [source if i == default else _stream(source, i, named=True) for i in range(count)]


def file_and_stream(name: str) -> tuple[str, int | None]:
    """The name of the file and the number of the stream in it (None: by default) of the name of an input."""
    match = _STREAM.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def _stream(source: Source, number: int, *, named: bool) -> Source:
    return replace(source, stream=number, name=f"{source.name}#v{number}" if named else source.name)
