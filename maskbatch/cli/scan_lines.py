"""A scan's summary as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from maskbatch.cli.reporters import clock
from maskbatch.config import Sampling, ScanConfig
from maskbatch.scanning.summary import ScanSummary
from maskbatch.sources.capture_metadata import UNKNOWN

SHOWN_MESSAGES = 3
"""Of what is said of inputs, this many kinds are shown, the most frequent first."""

SHORT_RUN_S = 5.0
"""Of a shorter run the share of the ceiling would tell about its start and end, not about its speed."""


def summary_lines(summary: ScanSummary, config: ScanConfig) -> Iterator[str]:
    """What a person wants to know when a scan has ended, most important first."""
    media = ", ".join(f"{count} {kind}{'s' if count != 1 else ''}" for kind, count in sorted(summary.media.items()))
    if summary.dry_run:
        yield f"dry run: {summary.inputs} inputs ({media or 'none'}){ignored_files(summary)}"
        yield f"would run on {summary.device} ({summary.provider}) with {summary.workers} workers; nothing was written"
        return
    labels = ", ".join(f"{label} {count}" for label, count in summary.labels.items())
    yield f"{summary.faces} faces ({labels})"
    status = ", ".join(f"{count} {name}" for name, count in summary.status.items())
    yield f"{summary.inputs} inputs ({media or 'none'}): {status}{ignored_files(summary)}"
    if summary.older:
        older = "1 older input" if summary.older == 1 else f"{summary.older} older inputs"
        yield f"left out by --since: {older}, without rows in this result"
    if summary.duplicates or summary.near_duplicates:
        yield (
            f"copies of other inputs, with their rows: {summary.duplicates}; images that look like another: "
            f"{summary.near_duplicates} (columns duplicate_of and near_duplicate_of of {summary.outputs['inputs']})"
        )
    if not summary.inputs and not summary.older:
        yield "nothing to scan: no file there is an image or a video by its name (--sniff looks into the others)"
    if any(set(found) - {UNKNOWN} for found in (summary.clocks, summary.cameras)) or summary.media.get("video"):
        yield f"time from {origins(summary.clocks)}; camera from {origins(summary.cameras)}"
    messages = sorted(summary.messages.items(), key=lambda item: -item[1])
    for message, count in messages[:SHOWN_MESSAGES]:
        yield f"  {count} × {message if len(message) <= 160 else message[:159] + '…'}"
    if len(messages) > SHOWN_MESSAGES:
        yield f"  and {len(messages) - SHOWN_MESSAGES} other messages: see the column message of {summary.outputs['inputs']}"
    if summary.media.get("video"):
        skipped = f"{summary.frames_skipped} frames skipped" + (
            f", {summary.frames_failed} failed" if summary.frames_failed else ""
        )
        yield f"video: {clock(summary.video_s)} at {describe_sampling(config.sampling)}; {skipped}"
    if config.outputs.track:
        once = f", {summary.people_seen_once} of them seen once" if summary.people_seen_once else ""
        yield f"{summary.people} people followed in videos{once}"
    if summary.pieces:
        all_new = not summary.resumed and not summary.duplicates  # else frames were counted that this run did not read
        rate = summary.frames_read / summary.wall_s if all_new else summary.pieces / summary.wall_s
        unit = "frames/s" if all_new else "pieces/s"
        yield f"{summary.wall_s:.1f} s, {rate:.1f} {unit} on {summary.device} with {summary.workers} workers ({summary.provider})"
        total = sum(summary.stages.values()) or 1.0
        stages = ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in summary.stages.items())
        ceiling = f"; {100 * (summary.ceiling_fraction or 0):.0f} % of the ceiling"
        yield f"time by stage: {stages}{ceiling if summary.wall_s >= SHORT_RUN_S else ''}"
    elif summary.resumed:
        yield "nothing new: every input was done already"
    for name, path in summary.outputs.items():
        yield f"{name}: {path}"
    if summary.not_drawn:
        names = ", ".join(list(summary.not_drawn)[:3]) + (" …" if len(summary.not_drawn) > 3 else "")
        yield f"{summary.drawn} inputs drawn, {len(summary.not_drawn)} not: {names}; see not_drawn in {summary.outputs['run']}"
    if summary.status.get("error") or summary.status.get("partial"):
        yield f"some inputs are not ok: see the columns status, error and message of {summary.outputs['inputs']}"


def origins(found: dict[str, int]) -> str:
    """From where something is known, and of how many inputs: ``name 40, unknown 2``."""
    return (
        ", ".join(f"{name} {count}" for name, count in sorted(found.items(), key=lambda item: -item[1]) if count) or "–"
    )


def ignored_files(summary: ScanSummary) -> str:
    """How many files are not inputs, and of which kinds."""
    if not summary.ignored:
        return ""
    kinds = list(summary.ignored_by_extension.items())
    shown = ", ".join(
        f"{count} {f'.{kind}' if kind and ' ' not in kind and kind != 'hidden' else kind or 'without extension'}"
        for kind, count in kinds[:5]
    )
    return f"; {summary.ignored} other files ignored ({shown}{', …' if len(kinds) > 5 else ''})"


def describe_sampling(sampling: Sampling) -> str:
    """The sampling in words."""
    if sampling.mode == "all":
        return "every frame"
    if sampling.mode == "keyframes":
        return "key frames only"
    if sampling.every_s < 1:
        return f"{1 / sampling.every_s:.3g} frames per second"
    return f"one frame per {sampling.every_s:.4g} s"
