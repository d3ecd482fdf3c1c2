"""How large, quick and heavy reports are: `python benchmarks/reports.py [FOLDER]`; and the synthetic archive that the pictures in docs show.

Needs the extra `stats`, the group `browser` and Debian's Chromium (or CHROMIUM=path).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.results.schema import INPUTS, RESULTS
from maskbatch.results.tracks import TRACKS

_EPOCH_S = 1_772_409_600  # 2026-03-02 00:00 UTC, a Monday
_LABELS = ("with_mask", "without_mask", "mask_weared_incorrect")


def write_synthetic(
    folder: Path, people: int, *, cameras: int = 20, days: int = 60, tracked: bool = True, effects: bool = True
) -> Path:
    """A made-up archive: a video per camera and hour from 7 to 21, with some that failed; camera-days differ by chance.

    With `effects`, cameras 1 to 3 are laxer, evenings are laxer, and so are Sundays.
    """
    rng = np.random.default_rng(7)
    camera, day = rng.integers(0, cameras, people), rng.integers(0, days, people)
    hour = np.clip(np.round(rng.normal(13.5, 3.2, people)), 7, 20).astype(int)
    logit = 1.6 + 0.45 * rng.standard_normal((cameras, days))[camera, day]
    if effects:
        logit += -0.9 * (camera < 3) - 0.14 * np.maximum(0, hour - 15) - 0.5 * (day % 7 == 6)
    worn = rng.random(people) < 1 / (1 + np.exp(-logit))
    label = np.where(worn, 0, np.where(rng.random(people) < 0.75, 1, 2))
    order = np.lexsort((hour, day, camera))
    camera, day, hour, label = camera[order], day[order], hour[order], label[order]
    second = rng.integers(0, 3600, people)
    video = (camera * days + day) * 24 + hour
    names = {int(v): _name(int(v), days) for v in np.unique(video)}
    source = pa.array([names[int(v)] for v in video])
    at = (_EPOCH_S + (day * 24 + hour) * 3600 + second) * 1_000_000
    side = np.exp(rng.normal(3.7, 0.5, people)).astype(np.float32)
    confidence = np.clip(rng.beta(9, 1.1, people), 0.34, 1).astype(np.float32)
    where = pa.array([f"cam {c + 1:02d}" for c in range(cameras)]).take(pa.array(camera))
    columns: dict[str, Any] = {
        "source": source,
        "camera": where,
        "media": pa.array(["video"] * people),
        "frame": second,
        "time_s": second.astype(float),
        "captured_at": pa.array(at, pa.timestamp("us", tz="UTC")),
        "x2": side,
        "y2": side,
        "score": confidence,
        "label": pa.array(_LABELS).take(pa.array(label)),
        "confidence": confidence,
        "track": np.arange(people) if tracked else pa.nulls(people, pa.int64()),
        "landmarks": pa.nulls(people, RESULTS.field("landmarks").type),
    }
    for code, name in enumerate(_LABELS):
        columns[f"p_{name}"] = np.where(label == code, confidence, (1 - confidence) / 2).astype(np.float32)
    arrays = []
    for field in RESULTS:
        values = columns.get(field.name, np.zeros(people, np.float32))
        array = values if isinstance(values, pa.Array) else pa.array(values)
        plain = pa.string() if pa.types.is_dictionary(field.type) else field.type
        array = array.cast(plain)
        arrays.append(array.dictionary_encode().cast(field.type) if plain != field.type else array)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_arrays(arrays, schema=RESULTS), folder / "results.parquet")
    if tracked:
        _write_tracks(folder, columns, people)
    _write_inputs(folder, cameras, days, np.bincount(video, minlength=cameras * days * 24))
    return folder / "results.parquet"


def _name(video: int, days: int) -> str:
    camera, day, hour = video // (24 * days), video // 24 % days, video % 24
    when = time.gmtime(_EPOCH_S + day * 86400)
    return f"cam {camera + 1:02d}/cam {camera + 1:02d}_{time.strftime('%Y%m%d', when)}_{hour:02d}0000.mp4"


def _write_tracks(folder: Path, faces: dict[str, Any], people: int) -> None:
    values: dict[str, Any] = {name: faces[name] for name in ("source", "camera", "track")}
    values |= {"first_s": faces["time_s"], "last_s": faces["time_s"], "first_at": faces["captured_at"]}
    values |= {"last_at": faces["captured_at"], "sightings": np.ones(people, int), "share": np.ones(people, np.float32)}
    values["label"] = faces["label"].dictionary_encode()
    zero = np.zeros(people, np.float32)
    arrays = []
    for field in TRACKS:
        value = values.get(field.name, zero)
        array = value if isinstance(value, pa.Array) else pa.array(value)
        if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        arrays.append(array.cast(field.type))
    pq.write_table(pa.Table.from_arrays(arrays, schema=TRACKS), folder / "results.tracks.parquet")


def _write_inputs(folder: Path, cameras: int, days: int, faces: Any) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for video in range(cameras * days * 24):
        if not 7 <= video % 24 <= 20:
            continue
        kind = rng.random()
        status = "ok" if faces[video] or kind > 0.01 else "error"
        status = "partial" if faces[video] and kind < 0.004 else status
        rows.append(
            dict.fromkeys(INPUTS.names, 0)
            | {"source": _name(video, days), "media": "video", "status": status, "faces": int(faces[video])}
            | {"error": None if status == "ok" else "truncated" if status == "partial" else "corrupt", "sha256": None}
            | {"message": None if status == "ok" else "the file ends early", "width": 1280, "height": 720}
            | {
                "duration_s": 3600.0,
                "frames_read": 3600,
                "frames_skipped": 86400,
                "frames_failed": 50 if status == "partial" else 0,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=INPUTS), folder / "results.inputs.parquet")


def measure(result: Path) -> dict[str, Any]:
    """Seconds and memory of the command, size of the file, milliseconds in the browser."""
    out = result.with_suffix(".html")
    before = time.monotonic()
    code = f"import resource,sys;sys.argv=['maskbatch','report',{str(result)!r},'--out',{str(out)!r}];from maskbatch.cli import build_app;build_app()(standalone_mode=False);print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, Any] = {
        "command_s": round(time.monotonic() - before, 1),
        "command_mb": round(int(done.stdout.split()[-1]) / 1024),
        "file_mb": round(out.stat().st_size / 1e6, 2),
    }
    return found | in_browser(out)


def in_browser(page_file: Path) -> dict[str, Any]:
    """Time to the first chart, and of filters, each the slowest of what is tried."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector("html[data-ready-ms]", state="attached", timeout=60_000)
        ready = float(page.evaluate("document.documentElement.dataset.readyMs"))
        times = []
        for selector, value in (
            ("#f-confidence", "80"),
            ("#f-size", "35"),
            ("#f-camera", "1"),
            ("#f-camera", "-1"),
            ("#f-hour-from", "12"),
        ):
            page.evaluate(
                "([s, v]) => { delete document.documentElement.dataset.filterMs; const e = document.querySelector(s); e.value = v;"
                " e.dispatchEvent(new Event('input', {bubbles: true})); }",
                [selector, value],
            )
            page.wait_for_selector("html[data-filter-ms]", state="attached")
            times.append(float(page.evaluate("document.documentElement.dataset.filterMs")))
        browser.close()
    return {"first_chart_ms": ready, "slowest_filter_ms": max(times), "filters_ms": times}


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path("out/reports")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = {
        f"{count}{' tracked' * tracked}": measure(
            write_synthetic(folder / f"{count}{'-tracked' * tracked}", count, tracked=tracked)
        )
        | {"tracked": tracked}
        for count, tracked in ((50_000, True), (1_000_000, False), (1_000_000, True))
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
