"""`maskbatch watch`."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskbatch.config import CLASSIFIER, DET_SIZE, DETECTOR, MIN_SCORE, Limits

if TYPE_CHECKING:
    from types import FrameType

    from maskbatch.live.watch import Watch

MODELS = "Models and faces"
OUTPUT = "What comes out"
ALARMS = "Events"
PAGE = "Page"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch", short_help="Watch cameras: rows, events and a page, until stopped.", no_args_is_help=True)(
        watch
    )


def watch(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="NAME=ADDRESS or ADDRESS (rtsp://, rtsps://, http://, https://, /dev/video0, a folder), or a file cameras.toml.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Folder ending in / in which the result grows. [default: no table]"),
    ] = None,
    every: Annotated[str, typer.Option(help="Look at one frame per interval of each camera: 1s, 200ms …")] = "1s",
    fps: Annotated[
        float | None, typer.Option(min=0.0001, help="Look at this many frames per second, in place of --every.")
    ] = None,
    track: Annotated[bool, typer.Option("--track", help="Write the tracks of persons too.")] = False,
    timezone: Annotated[
        str, typer.Option(help="Time zone of cameras that have none of their own (today's counts).")
    ] = "UTC",
    commit: Annotated[
        str, typer.Option(help="Time between two commits: at most so much is lost by a kill.", rich_help_panel=OUTPUT)
    ] = "1m",
    events: Annotated[
        str | None,
        typer.Option(help="Write events as JSON lines here; - is standard output.", rich_help_panel=ALARMS),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            help="Post events here, signed with MASKBATCH_WEBHOOK_SECRET of the environment.", rich_help_panel=ALARMS
        ),
    ] = None,
    alarm: Annotated[
        list[str] | None,
        typer.Option(
            help="Label that is an alarm; may be given often. [default: without_mask]", rich_help_panel=ALARMS
        ),
    ] = None,
    sightings: Annotated[
        int, typer.Option(min=1, help="Frames in which a person must be seen before an alarm.", rich_help_panel=ALARMS)
    ] = 3,
    cooldown: Annotated[
        str, typer.Option(help="Time after an alarm in which its camera gives none.", rich_help_panel=ALARMS)
    ] = "1m",
    share_under: Annotated[
        float | None,
        typer.Option(help="Tell when the share of people with a mask falls under this.", rich_help_panel=ALARMS),
    ] = None,
    window: Annotated[str, typer.Option(help="Time over which that share is counted.", rich_help_panel=ALARMS)] = "10m",
    keep_frames: Annotated[
        Literal["none", "alarms"],
        typer.Option(
            help="alarms = keep an image of each alarm beside --out, its faces blurred.", rich_help_panel=ALARMS
        ),
    ] = "none",
    retain: Annotated[
        str, typer.Option(help="Delete kept images after this time: 7d, 12h …", rich_help_panel=ALARMS)
    ] = "7d",
    page: Annotated[
        bool, typer.Option("--page", help="Serve a page on this machine; its address is printed.", rich_help_panel=PAGE)
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page; 0 = any free one.", rich_help_panel=PAGE)
    ] = 0,
    show_faces: Annotated[
        bool, typer.Option("--show-faces", help="Do not blur faces on the page.", rich_help_panel=PAGE)
    ] = False,
    detector: Annotated[str, typer.Option(help="As in a scan.", rich_help_panel=MODELS)] = DETECTOR,
    classifier: Annotated[str, typer.Option(help="As in a scan.", rich_help_panel=MODELS)] = CLASSIFIER,
    det_size: Annotated[int, typer.Option(min=64, max=4096, help="As in a scan.", rich_help_panel=MODELS)] = DET_SIZE,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="As in a scan.", rich_help_panel=MODELS)
    ] = MIN_SCORE,
    min_face: Annotated[int, typer.Option(min=0, help="As in a scan.", rich_help_panel=MODELS)] = 0,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"], typer.Option(help="As in a scan.", rich_help_panel=MODELS)
    ] = "auto",
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"], typer.Option(help="As in a scan.", rich_help_panel=MODELS)
    ] = "auto",
    workers: Annotated[
        int,
        typer.Option(
            "--workers", "-j", min=0, help="Threads with models; 0 = one for two cores.", rich_help_panel=MODELS
        ),
    ] = 0,
    stall: Annotated[str, typer.Option(help="A camera without a frame for this long is lost.")] = "10s",
    settle: Annotated[str, typer.Option(help="Time that a new file in a folder must stand still.")] = "5s",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and events.")] = False,
) -> None:
    """Watch cameras and write who wears a mask, as it happens.

    Stop with Ctrl-C or SIGTERM: everything that was looked at is then written. Nothing is stored but the table, unless asked.
    """
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    from maskbatch import config as c
    from maskbatch.cli.values import seconds
    from maskbatch.live.options import AlarmRules, WatchOptions
    from maskbatch.live.watch import Watch
    from maskbatch.sources.live.cameras import cameras_of

    options = WatchOptions(
        models=c.ModelSettings(detector, classifier, det_size, min_score, min_face, precision),
        sampling=c.Sampling(every_s=1 / fps if fps else seconds(every, "--every")),
        limits=Limits(),
        device=device,
        workers=workers,
        out=out,
        commit_s=seconds(commit, "--commit"),
        track=track,
        rules=AlarmRules(
            labels=tuple(alarm or ()),
            sightings=sightings,
            cooldown_s=seconds(cooldown, "--cooldown"),
            share_under=share_under,
            window_s=seconds(window, "--window"),
        ),
        events=events,
        webhook=webhook,
        webhook_secret=os.environ.get("MASKBATCH_WEBHOOK_SECRET"),
        keep_frames=keep_frames,
        retain_s=seconds(retain, "--retain"),
        frames=Path(f"{out.rstrip('/')}.frames") if out else None,
        stall_s=seconds(stall, "--stall"),
        settle_s=seconds(settle, "--settle"),
        page=page,
    )
    running = Watch(cameras_of(sources, timezone), options)
    if page:
        _serve(running, port, show_faces)
    if not quiet:
        for view in running.view().cameras:
            typer.echo(f"watching {view.name}: {view.address}", err=True)
    running.run(stop)
    if not quiet:
        _print(running)


def _serve(running: Watch, port: int, show_faces: bool) -> None:
    from maskbatch.live.page import serve

    typer.echo(f"page: {serve(running, port, show_faces=show_faces)}", err=True)


def _print(running: Watch) -> None:
    """What came of each camera, for a person."""
    for camera in running.view().cameras:
        lost = f"; {camera.state}: {camera.reason}" if camera.reason else ""
        dropped = f", {camera.dropped} dropped" if camera.dropped else ""
        typer.echo(f"{camera.name}: {camera.samples} frames looked at{dropped}{lost}", err=True)
