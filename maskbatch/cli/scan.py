"""`maskbatch scan`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args

import typer
from typer.core import TyperCommand

from maskbatch.config import (
    CLASSIFIER,
    DET_SIZE,
    DETECTOR,
    MIN_SCORE,
    REDACT_SIZE,
    Areas,
    Execution,
    Limits,
    RedactedPart,
    Sampling,
)

if TYPE_CHECKING:
    from maskbatch.config import ScanConfig
    from maskbatch.scanning.summary import ScanSummary

_EXECUTION = Execution()

# Panels of `--help`, in the order in which a user needs them.
MODELS = "Models and faces"
VIDEO = "Video"
WHEN = "When and where"
PICTURES = "Images out"
SPEED = "Speed and limits"
OUTPUT = "Run and output"

INTERRUPTED = "interrupted; the same command continues where it stopped"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "scan",
        cls=ScanCommand,
        short_help="Find every face in images and videos; write one table.",
        no_args_is_help=True,
    )(scan)


class ScanCommand(TyperCommand):
    """Reads ``--redact eyes`` and ``--redact=eyes`` as ``--redact --redact-part eyes``; a folder of that name is ``./eyes``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`."""
        return super().parse_args(ctx, with_redacted_part(args))


def with_redacted_part(args: list[str]) -> list[str]:
    """The arguments with the value of ``--redact`` as an option of its own."""
    parts = get_args(RedactedPart)
    found: list[str] = []
    for index, word in enumerate(args):
        if word == "--":
            return [*found, *args[index:]]
        if word.startswith("--redact="):
            found += ["--redact", "--redact-part", word.removeprefix("--redact=")]
        elif word in parts and index and args[index - 1] == "--redact":
            found += ["--redact-part", word]
        else:
            found.append(word)
    return found


def scan(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Files, folders (recursive), globs, URLs, @LIST (a file with a path per line) or - (paths on standard input).",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="The table to write; a folder ending in / gives a data set.")
    ] = "results.parquet",
    detector: Annotated[
        str,
        typer.Option(
            help="Face detector: retinaface, yunet, centerface, scrfd, or FAMILY:FILE.onnx.", rich_help_panel=MODELS
        ),
    ] = DETECTOR,
    classifier: Annotated[
        str,
        typer.Option(
            help="Classifier: a registered name, or an ONNX file, which names its own labels.", rich_help_panel=MODELS
        ),
    ] = CLASSIFIER,
    det_size: Annotated[
        int,
        typer.Option(
            min=64,
            max=4096,
            help="Long side of the detector's input in pixels (multiple of 32).",
            rich_help_panel=MODELS,
        ),
    ] = DET_SIZE,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Drop faces with a lower detector score.", rich_help_panel=MODELS)
    ] = MIN_SCORE,
    min_face: Annotated[
        int, typer.Option(min=0, help="Drop faces smaller than this many pixels (longer side).", rich_help_panel=MODELS)
    ] = 0,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"],
        typer.Option(help="Model variant; auto = the fastest that runs well on the device.", rich_help_panel=MODELS),
    ] = "auto",
    tile: Annotated[
        Literal["off", "auto"],
        typer.Option(
            help="auto = images over three times as long as --det-size are looked at in overlapping tiles too: finds small faces, "
            "costs a detection per tile.",
            rich_help_panel=MODELS,
        ),
    ] = "off",
    every: Annotated[
        str | None,
        typer.Option(
            help="Sample one frame per interval: the first at or after each multiple of 1s, 500ms, 2m … [default: 1s]",
            show_default=False,
            rich_help_panel=VIDEO,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.0001, help="Sample this many frames per second of video, in place of --every.", rich_help_panel=VIDEO
        ),
    ] = None,
    keyframes: Annotated[
        bool, typer.Option("--keyframes", help="Sample key frames only (fastest).", rich_help_panel=VIDEO)
    ] = False,
    all_frames: Annotated[bool, typer.Option("--all", help="Process every frame.", rich_help_panel=VIDEO)] = False,
    assume_fps: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            help="Frames per second of videos without time stamps (raw streams); 0 = as their headers say, else 25.",
            rich_help_panel=VIDEO,
        ),
    ] = 0.0,
    video_stream: Annotated[
        str,
        typer.Option(
            metavar="all|N|default",
            help="Of files with several video streams: default = the first, N = the one with this number (from 0), all = each "
            "as an input of its own.",
            rich_help_panel=VIDEO,
        ),
    ] = "default",
    snap: Annotated[
        str | None,
        typer.Option(
            help="With --every or --fps: take the key frame within this time of a sampling point where there is one (500ms, 0.5s); "
            "less to decode, less even in time.",
            rich_help_panel=VIDEO,
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Begin at this time in each video: 90s, 1:30, 01:02:03.", rich_help_panel=VIDEO)
    ] = None,
    end: Annotated[str | None, typer.Option(help="End before this time in each video.", rich_help_panel=VIDEO)] = None,
    gate: Annotated[
        Literal["none", "motion"],
        typer.Option(help="motion = skip frames in which nothing moves.", rich_help_panel=VIDEO),
    ] = "none",
    gate_refresh: Annotated[
        float,
        typer.Option(
            min=0.1, help="With --gate motion, process at least one frame in this many seconds.", rich_help_panel=VIDEO
        ),
    ] = Sampling().gate_refresh_s,
    track: Annotated[
        bool,
        typer.Option(
            "--track",
            help="Follow persons within each video; writes results.tracks.parquet. Looks 3 times a second unless --fps, --every, --keyframes or --all say "
            "otherwise.",
            rich_help_panel=VIDEO,
        ),
    ] = False,
    camera: Annotated[
        str | None,
        typer.Option(help="Camera name of all inputs. [default: from the file name or folder]", rich_help_panel=WHEN),
    ] = None,
    time_pattern: Annotated[
        str | None,
        typer.Option(
            help="Pattern of camera and time in file names, tried before the built-in ones, e.g. {camera}_%Y%m%d_%H%M%S.",
            rich_help_panel=WHEN,
        ),
    ] = None,
    start_time: Annotated[
        str | None,
        typer.Option(help="Wall-clock time (ISO 8601) of the first frame of every video.", rich_help_panel=WHEN),
    ] = None,
    timezone: Annotated[
        str,
        typer.Option(
            help="Time zone of file names and of times without an offset, e.g. Europe/Berlin.", rich_help_panel=WHEN
        ),
    ] = "UTC",
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV with path,camera,start_time; overrides all of the above.", rich_help_panel=WHEN),
    ] = None,
    cameras: Annotated[
        Path | None,
        typer.Option(
            help="File cameras.toml, as for watch: black out each camera's ignore areas before detection.",
            rich_help_panel=WHEN,
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(help="Write images and videos with boxes, labels and confidences here.", rich_help_panel=PICTURES),
    ] = None,
    crops: Annotated[
        Path | None, typer.Option(help="Write every face here, in a folder per label.", rich_help_panel=PICTURES)
    ] = None,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Blur every detected face in what is written; --redact eyes covers the eyes only.",
            rich_help_panel=PICTURES,
        ),
    ] = False,
    redact_part: Annotated[
        Literal["faces", "eyes"],
        typer.Option(
            help="What --redact hides: the face, or the eyes, so that nose and mouth can be judged.",
            rich_help_panel=PICTURES,
        ),
    ] = "faces",
    redact_every: Annotated[
        str | None,
        typer.Option(
            help="In videos, let --redact search for faces once per interval, e.g. 200ms. [default: every frame]",
            show_default=False,
            rich_help_panel=PICTURES,
        ),
    ] = None,
    redact_size: Annotated[
        int,
        typer.Option(
            min=64,
            max=4096,
            help="Long side of the detector's input in that search (multiple of 32).",
            rich_help_panel=PICTURES,
        ),
    ] = REDACT_SIZE,
    mute: Annotated[
        bool, typer.Option("--mute", help="Write annotated videos without sound.", rich_help_panel=PICTURES)
    ] = False,
    boxes: Annotated[
        bool, typer.Option("--boxes/--no-boxes", help="Draw boxes and labels.", rich_help_panel=PICTURES)
    ] = True,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Also write the report here: one HTML file, as `maskbatch report` makes it.", rich_help_panel=OUTPUT
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        typer.Option(
            help="Where models run: auto = the best that works; any other fails if it is not available.",
            rich_help_panel=SPEED,
        ),
    ] = "auto",
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            "-j",
            min=0,
            help="Number of worker processes; 0 = auto: one per usable CPU core, or one per GPU.",
            rich_help_panel=SPEED,
        ),
    ] = 0,
    batch_size: Annotated[
        int,
        typer.Option(
            min=0,
            max=1024,
            help="Images per detector call and faces per classifier call; 0 = auto.",
            rich_help_panel=SPEED,
        ),
    ] = 0,
    prefetch: Annotated[
        int,
        typer.Option(
            min=0,
            help="Megabytes of decoded images to hold ready for the models, per worker; 0 = auto.",
            rich_help_panel=SPEED,
        ),
    ] = 0,
    decode_threads: Annotated[
        int,
        typer.Option(
            min=0,
            max=256,
            help="Threads per worker that read and decode ahead; 0 = auto.",
            rich_help_panel=SPEED,
        ),
    ] = 0,
    executor: Annotated[
        Literal["auto", "inline", "processes", "ray"],
        typer.Option(
            help="Where workers run: processes of this machine, inline (this process, no isolation), or a Ray cluster.",
            rich_help_panel=SPEED,
        ),
    ] = "auto",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster, with --executor ray: auto or HOST:PORT. [default: a local one]",
            show_default=False,
            rich_help_panel=SPEED,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=1.0, help="Replace a worker that shows no progress for this many seconds.", rich_help_panel=SPEED
        ),
    ] = _EXECUTION.timeout_s,
    max_memory: Annotated[
        int,
        typer.Option(
            min=0, help="Replace a worker that uses more than this many megabytes; 0 = no limit.", rich_help_panel=SPEED
        ),
    ] = _EXECUTION.max_memory_mb,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, help="Refuse images and frames with more pixels, before decoding.", rich_help_panel=SPEED),
    ] = Limits().max_pixels,
    limit: Annotated[int | None, typer.Option(min=1, help="Process at most N inputs.", rich_help_panel=OUTPUT)] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-L", help="Enter linked folders too.", rich_help_panel=OUTPUT)
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Go on: scan files as they arrive and are finished, keep the result current, until stopped.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    settle: Annotated[
        str,
        typer.Option(help="With --watch, time that a new file must stand still.", rich_help_panel=OUTPUT),
    ] = "5s",
    sniff: Annotated[
        bool,
        typer.Option(
            "--sniff",
            help="Also scan files without a known extension, if their content is an image or a video.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    hash_inputs: Annotated[
        bool, typer.Option("--hash", help="Record the SHA-256 of every input.", rich_help_panel=OUTPUT)
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            help="Leave out older inputs, by time of capture or else of last change: 7d, 12h, 2026-03-01T08:00.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    skip_duplicates: Annotated[
        bool,
        typer.Option(
            "--skip-duplicates",
            help="Copy the rows of files with the same content; flag images that look the same.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            "-n",
            help="Find the inputs, check models, device and output, and exit.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing result.", rich_help_panel=OUTPUT)
    ] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Discard the work of an interrupted run instead of continuing it.", rich_help_panel=OUTPUT
        ),
    ] = False,
    progress: Annotated[
        Literal["auto", "bar", "text", "jsonl", "none"],
        typer.Option(help="How to show progress (on standard error).", rich_help_panel=OUTPUT),
    ] = "auto",
    json_summary: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON on standard output.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Find every face in images and videos, say how it wears its mask, and write one table.

    Writes RESULTS.parquet (a row per face), RESULTS.inputs.parquet (a row per input) and RESULTS.run.json.

    The same command continues an interrupted scan.

    Exit codes: 0 all inputs ok, 1 fatal, 2 usage, 3 some inputs failed or are partial, 130 interrupted.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_before_start)
    if not dry_run and executor in ("auto", "processes") and device in ("auto", "cpu"):
        _start_workers_early(workers)
    from maskbatch import config as c
    from maskbatch.cli.reporters import make_reporter
    from maskbatch.cli.settings_file import settings_in_use
    from maskbatch.cli.values import sampling_from, seconds
    from maskbatch.errors import EXIT_INTERRUPTED, UsageError
    from maskbatch.scanning.run import scan as run_scan

    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = c.ScanConfig(
        models=c.ModelSettings(detector, classifier, det_size, min_score, min_face, precision, tile),
        sampling=sampling_from(
            every, fps, keyframes, all_frames, start, end, gate, gate_refresh, snap, track, assume_fps, video_stream
        ),
        limits=c.Limits(max_pixels),
        execution=c.Execution(
            device=device,
            workers=workers,
            executor=executor,
            batch_size=batch_size,
            prefetch_mb=prefetch,
            decode_threads=decode_threads,
            timeout_s=timeout,
            max_memory_mb=max_memory,
            ray_address=ray_address,
        ),
        capture=c.CaptureMetadata(camera, time_pattern, start_time, timezone, manifest),
        outputs=c.OutputOptions(
            annotate,
            crops,
            redact,
            boxes,
            track,
            hash_inputs,
            skip_duplicates,
            redact_part=redact_part,
            redact_every_s=seconds(redact_every, "--redact-every") if redact_every else 0.0,
            redact_size=redact_size,
            mute=mute,
        ),
        areas=_areas(cameras),
    )
    settings = settings_in_use()
    if watch:
        if dry_run or limit is not None:
            raise UsageError("--watch goes on until it is stopped; leave out --dry-run and --limit")
        options: dict[str, Any] = {
            "settle_s": seconds(settle, "--settle"),
            "overwrite": overwrite,
            "restart": restart,
            "follow": follow,
            "sniff": sniff,
            "config": config,
            "since": since,
            "settings_file": settings.as_dict() if settings is not None else None,
        }
        _follow(paths, out, options, quiet=quiet, after=_reporting(out, report, timezone))
        return
    reporter = make_reporter("none" if quiet else progress)
    try:
        summary = run_scan(
            paths,
            out,
            config,
            overwrite=overwrite,
            restart=restart,
            limit=limit,
            dry_run=dry_run,
            follow=follow,
            sniff=sniff,
            since=since,
            settings_file=settings.as_dict() if settings is not None else None,
            reporter=reporter,
        )
    except KeyboardInterrupt:
        typer.echo(INTERRUPTED, err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if report is not None and not dry_run:
        _report(out, report, timezone)
        summary.outputs["report"] = str(report)
    if json_summary:
        import json

        typer.echo(json.dumps(summary.as_dict(), indent=1, default=str))
    elif not quiet:
        _print(summary, config)
    raise typer.Exit(summary.exit_code)


def _report(out: str, report: Path, timezone: str) -> None:
    from maskbatch.report.make import ReportOptions, write_report

    write_report(out, report, options=ReportOptions(timezone))


def _reporting(out: str, report: Path | None, timezone: str) -> Callable[[], None] | None:
    return None if report is None else lambda: _report(out, report, timezone)


def _areas(cameras: Path | None) -> Areas:
    """The areas of a file of cameras."""
    if cameras is None:
        return Areas()
    from maskbatch.sources.live.cameras import read_cameras

    return Areas(tuple((camera.name, camera.ignore) for camera in read_cameras(cameras, addresses=False)))


def _follow(
    paths: list[str], out: str, options: dict[str, Any], *, quiet: bool, after: Callable[[], None] | None
) -> None:
    """``--watch``: a line per pass."""
    import threading

    from maskbatch.errors import EXIT_INTERRUPTED
    from maskbatch.scanning.follow import follow_folders

    if not quiet:
        typer.echo(f"following {', '.join(paths)}; stop with Ctrl-C", err=True)
    try:
        for summary in follow_folders(paths, out, threading.Event(), **options):
            if after is not None:
                after()
            if not quiet:
                failed = summary.status.get("error", 0) + summary.status.get("partial", 0)
                more = f", {failed} failed or partial" if failed else ""
                typer.echo(f"{summary.inputs:,} inputs, {summary.pieces:,} new, {summary.faces:,} faces{more}")
    except KeyboardInterrupt:
        typer.echo(INTERRUPTED, err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _start_workers_early(workers: int) -> None:
    """Workers load their libraries while this process loads its own and finds the inputs; not where a GPU may want only one."""
    from maskbatch.jobs.executors.warm_pool import start_warm_pool
    from maskbatch.runtime.cpu import usable_cpus

    if not Path("/dev/nvidiactl").exists():
        start_warm_pool(workers or usable_cpus(), preload="maskbatch.pipeline.worker")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _interrupt_before_start(_number: int, _frame: FrameType | None) -> NoReturn:
    """While the libraries load there is nothing to tidy up, and an exception in the middle of an import would not end well."""
    from maskbatch.errors import EXIT_INTERRUPTED

    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def _print(summary: ScanSummary, config: ScanConfig) -> None:
    """The summary for a person."""
    from maskbatch.cli.reporters import printable
    from maskbatch.cli.scan_lines import summary_lines

    for line in summary_lines(summary, config):
        typer.echo(printable(line))
