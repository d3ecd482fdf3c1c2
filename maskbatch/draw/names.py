"""What drawn files are called: two inputs never share an output."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from maskbatch.draw.images import image_output_name
from maskbatch.draw.videos import video_output_name
from maskbatch.types import Media, Source

_LIKE_A_FRAME = re.compile(r"(.*)_f\d+$")


def annotated_name(name: str, media: Media) -> str:
    """Name of the annotated copy of an input that is drawn as `name`."""
    return image_output_name(name) if media == "image" else video_output_name(name)


def changed_names(sources: Iterable[Source]) -> dict[str, str]:
    """The inputs that must be drawn under another name than their own, and that name.

    An ending that is added may give what another input is called already (``photo.webp`` beside ``photo.webp.jpg``), and a crop of
    frame 3 of ``clip`` what a crop of an input ``clip_f3`` would be. Names that keep their ending come first.

    Args:
        sources: all inputs of the scan, in order; the names given are the same for the same inputs.
    """
    known = list(sources)
    names = {source.name for source in known}
    taken = {source.name.lower() for source in known if annotated_name(source.name, source.media) == source.name}
    changed = {}
    for source in known:
        if annotated_name(source.name, source.media) == source.name:
            continue
        name, number = source.name, 1
        while annotated_name(name, source.media).lower() in taken or _is_like_a_frame(name, names):
            number += 1
            path = PurePosixPath(source.name)
            name = str(path.with_name(f"{path.stem}~{number}{path.suffix}"))
        taken.add(annotated_name(name, source.media).lower())
        if name != source.name:
            changed[source.name] = name
    return changed


def _is_like_a_frame(name: str, names: set[str]) -> bool:
    match = _LIKE_A_FRAME.match(name)
    return match is not None and match[1] in names
