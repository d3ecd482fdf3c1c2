"""What a scan did: the figures that `maskbatch.scan` returns, the command line prints and the run file keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from maskbatch.errors import EXIT_OK, EXIT_SOME_FAILED


@dataclass(slots=True)
class ScanSummary:
    """What a scan did.

    Attributes:
        inputs: inputs found.
        status: inputs by status.
        faces: rows of the result.
        labels: faces by label.
        clocks: inputs by where their time comes from (manifest, option, name, metadata, unknown).
        cameras: the same for their camera.
        messages: inputs by what is said of them (column ``message``); one message stands for all that differ in numbers only.
        ignored_by_extension: files in folders that are not inputs, most frequent first.
        older: inputs that were left out as older than ``--since``.
        duplicates: inputs with the bytes of an earlier one, whose rows they got.
        near_duplicates: images that look like an earlier one.
        pieces: images and parts of videos processed in this run.
        resumed: inputs whose rows an earlier run had already made.
        wall_s: seconds from the first unit handed out to the last receipt.
        stages: seconds of CPU per stage, summed over the workers.
        ceiling_fraction: share of the workers' time that went into decoding, detecting, cropping, classifying and writing;
            1.0 is the ceiling (see docs/throughput.md). None where nothing had to be done.
        outputs: what was written.
        drawn: inputs that are annotated or whose faces are cropped, from this run or an earlier one.
        not_drawn: name → why, of those that could not be; they are tried again by the next run.
        draw_s: seconds that drawing took in this run.
        people: tracks of persons, with ``--track``.
        people_seen_once: those of them with a single sighting: a passer-by at the edge, or somebody whom the step was too wide to follow.
        dry_run: nothing was.
    """

    inputs: int = 0
    status: dict[str, int] = field(default_factory=dict)
    media: dict[str, int] = field(default_factory=dict)
    clocks: dict[str, int] = field(default_factory=dict)
    cameras: dict[str, int] = field(default_factory=dict)
    ignored: int = 0
    ignored_by_extension: dict[str, int] = field(default_factory=dict)
    messages: dict[str, int] = field(default_factory=dict)
    older: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    faces: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    frames_read: int = 0
    frames_skipped: int = 0
    frames_failed: int = 0
    video_s: float = 0.0
    pieces: int = 0
    resumed: int = 0
    wall_s: float = 0.0
    total_s: float = 0.0
    first_result_s: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    ceiling_fraction: float | None = None
    provider: str = ""
    device: str = ""
    workers: int = 0
    models: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    drawn: int = 0
    not_drawn: dict[str, str] = field(default_factory=dict)
    draw_s: float = 0.0
    people: int = 0
    people_seen_once: int = 0
    notes: list[str] = field(default_factory=list)
    dry_run: bool = False

    @property
    def exit_code(self) -> int:
        """0 when every input is ok; 3 when some failed, are partial or could not be drawn, and when there was none.

        Where all inputs are older than ``--since``, nothing is new, and that is well.
        """
        if not self.inputs:
            return EXIT_OK if self.older else EXIT_SOME_FAILED  # nothing to scan is no success
        failed = self.status.get("error") or self.status.get("partial") or self.not_drawn
        return EXIT_SOME_FAILED if failed else EXIT_OK

    @property
    def bottleneck(self) -> str | None:
        """The stage that used most time."""
        return max(self.stages, key=lambda stage: self.stages[stage]) if self.stages else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the derived figures."""
        return {**dataclasses.asdict(self), "exit_code": self.exit_code, "bottleneck": self.bottleneck}
