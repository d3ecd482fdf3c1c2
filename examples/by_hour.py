"""Who wore a mask, by camera and hour of the day, with DuckDB; and a chart where matplotlib is installed.

``python by_hour.py results.parquet [CHART.png]``. Without a result, ``python by_hour.py --synthetic FOLDER`` writes one to play with:
a week of two cameras, made up, in the format of a scan.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import duckdb
import numpy as np

QUERY = """
    SELECT camera, hour(captured_at AT TIME ZONE 'Europe/Berlin') AS hour,
           count(*) AS faces, avg((label = 'with_mask')::INT) AS share
    FROM read_parquet(?)
    WHERE captured_at IS NOT NULL
    GROUP BY ALL ORDER BY ALL
"""


def by_hour(result: Path) -> duckdb.DuckDBPyRelation:
    return duckdb.sql(QUERY, params=[str(result)])


def chart(result: Path, out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    table = by_hour(result).df()
    for (camera, rows), colour, marker in zip(table.groupby("camera"), ("#0072B2", "#D55E00"), "os", strict=False):
        error = 1.96 * np.sqrt(rows["share"] * (1 - rows["share"]) / rows["faces"])
        axes.fill_between(
            rows["hour"], 100 * (rows["share"] - error), 100 * (rows["share"] + error), color=colour, alpha=0.2
        )
        axes.plot(rows["hour"], 100 * rows["share"], marker=marker, color=colour, label=camera)
    axes.set(xlabel="hour of the day", ylabel="with a mask, %", ylim=(0, 100), xticks=range(6, 23, 2))
    axes.legend(loc="lower right", ncols=2, frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


def write_synthetic(folder: Path) -> Path:
    """A result of 6,000 faces, made up: the entrance is stricter than the hall, and evenings are lax."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from maskbatch.results.schema import RESULTS

    chance = np.random.default_rng(7)
    rows = []
    for index in range(6000):
        camera, day, hour = ("entrance", "hall")[index % 2], int(chance.integers(7)), int(chance.integers(6, 22))
        when = dt.datetime(2026, 3, 2, tzinfo=dt.UTC) + dt.timedelta(
            days=day, hours=hour - 1, minutes=int(chance.integers(60))
        )
        wears = chance.random() < (0.92 if camera == "entrance" else 0.78) - 0.02 * max(0, hour - 15)
        label = "with_mask" if wears else chance.choice(["without_mask", "mask_weared_incorrect"], p=[0.8, 0.2])
        row = dict.fromkeys(RESULTS.names, 0.0) | {
            "source": f"{camera}.mp4",
            "camera": camera,
            "media": "video",
            "frame": index,
        }
        row |= {"captured_at": when, "face": 0, "landmarks": None, "label": label, "confidence": 0.9, "track": None}
        rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS), folder / "results.parquet")
    return folder / "results.parquet"


def main(arguments: list[str]) -> None:
    result = write_synthetic(Path(arguments[1])) if arguments[0] == "--synthetic" else Path(arguments[0])
    print(by_hour(result))
    for out in arguments[2 if arguments[0] == "--synthetic" else 1 :]:
        chart(result, Path(out))
        print(f"wrote {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
