"""What `maskbatch bench` does: find the files, measure, and say it in a few lines."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from maskbatch.config import ScanConfig
from maskbatch.diagnose.bench.compare import compare, machine
from maskbatch.errors import UsageError
from maskbatch.pipeline.models import model_identity, pin_models
from maskbatch.runtime import resolve_device
from maskbatch.sources.discovery.discover import discover

MADE_UP = 240


def bench_paths(
    paths: Sequence[str],
    config: ScanConfig,
    *,
    rounds: int,
    limit: int,
    kernel_s: float,
    told: Callable[[str], None],
) -> dict[str, Any]:
    """Measure images and videos; see `compare` for the figures.

    Args:
        paths: as for a scan; none stands for images without faces synthetic.
        config: detection, sampling, device and workers are used.
        rounds, kernel_s, told: see `compare`.
        limit: inputs at most.

    Raises:
        UsageError: nothing to measure was found.
        MaskbatchError: as a scan.
    """
    device = resolve_device(config.execution.device)
    config = dataclasses.replace(config, models=pin_models(config.models, device))
    with _inputs(paths) as places:
        sources = [source for source in itertools.islice(discover(places).sources, limit) if source.problem is None]
        if not sources:
            raise UsageError(f"no images or videos in {', '.join(places)}")
        detection, execution = config.models, config.execution
        options = [
            *("--device", device.name, "--workers", str(execution.workers), "--limit", str(limit)),
            *("--detector", detection.detector, "--classifier", detection.classifier),
            *("--det-size", str(detection.det_size), "--precision", detection.precision),
            *("--every", f"{config.sampling.every_s}s"),
        ]
        found = compare(sources, places, config, device, options=options, rounds=rounds, kernel_s=kernel_s, told=told)
        what = "images without faces synthetic, 1920×1080" if not paths else ", ".join(paths)
    return {
        "what": what,
        "machine": machine(),
        "device": device.name,
        "provider": device.provider,
        "models": model_identity(config.models, device),
        **found.as_dict(),
    }


@contextmanager
def _inputs(paths: Sequence[str]) -> Iterator[list[str]]:
    if paths:
        yield list(paths)
        return
    with tempfile.TemporaryDirectory(prefix="maskbatch-bench-") as folder:
        _make_up(Path(folder))
        yield [folder]


def _make_up(folder: Path) -> None:
    """JPEGs as large as a camera's: clouds of several sizes with sensor noise. Twelve different ones, linked many times."""
    noise = np.random.default_rng(0)
    for index in range(MADE_UP):
        file = folder / f"{index:04d}.jpg"
        if index >= 12:
            file.hardlink_to(folder / f"{index % 12:04d}.jpg")
            continue
        image = np.zeros((1080, 1920, 3), np.float32)
        for cells in (4, 16, 64):
            clouds = noise.normal(0, 160 / cells**0.5, (cells, cells * 2, 3)).astype(np.float32)
            image += cv2.resize(clouds, (1920, 1080), interpolation=cv2.INTER_CUBIC)
        image += 128 + noise.normal(0, 6, image.shape).astype(np.float32)
        file.write_bytes(simplejpeg.encode_jpeg(np.clip(image, 0, 255).astype(np.uint8), 95, "BGR", "420"))


def report_lines(found: dict[str, Any]) -> list[str]:
    """The figures for a person."""
    place, kernels = found["machine"], found["kernel_ms_per_frame"]
    total = sum(kernels.values())
    lines = [
        f"{place['cpu']}, {place['cores']} cores; {found['provider']}; {', '.join(found['models'])}",
        f"{found['what']}: {found['inputs']} inputs, {found['frames']} frames, {found['faces']} faces",
        "",
        "kernels alone on one core, ms per frame:",
        *(f"  {stage:<9}{value:8.2f}  {value / total:5.0%}" for stage, value in kernels.items()),
        f"  {'sum':<9}{total:8.2f}",
        f"ceiling   {found['ceiling_frames_per_s']:8.1f} frames/s  ({found['cores']} cores ÷ {total:.2f} ms)",
        f"scan      {found['frames_per_s']:8.1f} frames/s  = {found['fraction_of_ceiling']:.2f} of the ceiling, "
        f"{found['workers']} workers, median of {found['rounds']}",
        f"          {found['faces_per_s']:8.1f} faces/s",
    ]
    if found["video_hours_per_hour"]:
        lines.append(f"          {found['video_hours_per_hour']:8.1f} hours of video per hour")
    lines += [
        f"          {found['cpu_s_per_1000_frames']:8.1f} CPU seconds per 1,000 frames",
        f"memory    {found['worker_mb']:8d} MB per worker at most, {found['parent_mb']} MB the parent",
    ]
    if found["first_result_s"] is not None:
        lines.append(f"start     {found['first_result_s']:8.1f} s to the first result")
    return lines
