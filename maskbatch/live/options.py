"""What `maskbatch watch` is told, beside the settings that it shares with a scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from maskbatch.config import DeviceName, Limits, ModelSettings, Sampling
from maskbatch.errors import UsageError


@dataclass(frozen=True, slots=True)
class AlarmRules:
    """When somebody is told.

    Attributes:
        labels: a person with one of these is an alarm; empty = ``without_mask``, or every label but the task's headline.
        sightings: frames in which a person must have been seen first.
        share: of the vote that the label must have.
        cooldown_s: seconds after such an event in which the same camera gives none.
        share_under: tell when the share of people with the headline label falls under this; None = never.
        window_s: seconds over which that share is counted.
        window_people: people that must have been seen in it.
        lost_after_s: a camera that is back sooner is not told of.
    """

    labels: tuple[str, ...] = ()
    sightings: int = 3
    share: float = 0.6
    cooldown_s: float = 60.0
    share_under: float | None = None
    window_s: float = 600.0
    window_people: int = 10
    lost_after_s: float = 2.0

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.share_under is not None and not 0 < self.share_under <= 1:
            raise UsageError(f"--share-under must be over 0 and at most 1, not {self.share_under:g}")
        if self.cooldown_s < 0 or self.window_s <= 0 or self.sightings < 1:
            raise UsageError("--cooldown must not be negative, --window and --sightings must be over 0")


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """Settings of a watch.

    Attributes:
        models: as in a scan.
        sampling: which frames are looked at, by each camera's own time.
        limits: what is refused.
        device: as in a scan.
        workers: threads with models of their own; 0 = one for two cores.
        out: the data set, a folder ending in ``/``; None = no table.
        commit_s: seconds between two commits.
        track: the column ``track`` and the table of tracks.
        rules: when there is an event.
        events: file of JSON lines, ``-`` for standard output, None for none.
        webhook: URL to which events are posted.
        webhook_secret: with which they are signed.
        keep_frames: ``alarms`` keeps a redacted image of each alarm, ``none`` none.
        retain_s: seconds after which kept images are deleted.
        frames: folder of kept images.
        stall_s: seconds without a frame after which a camera counts as lost.
        speed: recordings behind HTTP are played this many times faster (for measuring).
        settle_s: seconds that a recording in a folder must stand still.
        page: somebody looks at the page, so people are followed.
    """

    models: ModelSettings = field(default_factory=ModelSettings)
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    device: DeviceName = "auto"
    workers: int = 0
    out: str | None = None
    commit_s: float = 60.0
    track: bool = False
    rules: AlarmRules = field(default_factory=AlarmRules)
    events: str | None = None
    webhook: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    keep_frames: str = "none"
    retain_s: float = 7 * 86400.0
    frames: Path | None = None
    stall_s: float = 10.0
    speed: float = 1.0
    settle_s: float = 5.0
    page: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.keep_frames not in ("none", "alarms"):
            raise UsageError(f"--keep-frames must be none or alarms, not {self.keep_frames!r}")
        if self.sampling.gate != "none":
            raise UsageError("--gate motion is for recordings; a camera is looked at in each sample")
        if self.keep_frames == "alarms" and self.frames is None:
            raise UsageError("--keep-frames alarms needs --out FOLDER/, beside which the frames are kept")
        if self.out is not None and not self.out.endswith("/"):
            raise UsageError(f"--out {self.out}: name a folder that ends in /, since the result grows in files")
        if not 0.2 <= self.commit_s <= 3600:
            raise UsageError("--commit must be from 0.2 to 3600 seconds")

    @property
    def follows_people(self) -> bool:
        """Whether persons are followed from frame to frame."""
        return bool(self.track or self.events or self.webhook or self.page or self.keep_frames != "none")
