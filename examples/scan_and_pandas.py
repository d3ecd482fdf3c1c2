"""Scan a folder and read the table with pandas: ``python scan_and_pandas.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import maskbatch


def main(folder: Path, out: Path = Path("results.parquet")) -> None:
    summary = maskbatch.scan(folder, out, every_s=1)
    print(f"{summary.faces} faces in {summary.inputs} inputs, exit code {summary.exit_code}")

    faces = maskbatch.read_results(out)
    print(faces.groupby(["camera", "label"], observed=True, dropna=False).size().to_string())

    # The least certain faces are the first to look at.
    doubtful = faces.nsmallest(5, "confidence")[["source", "time_s", "label", "confidence"]]
    print(doubtful.to_string(index=False))

    # Nothing disappears: what could not be read has a row, a code and a sentence.
    inputs = maskbatch.read_inputs(out)
    for row in inputs[inputs["status"] != "ok"].itertuples():
        print(f"{row.source}: {row.status}, {row.error}: {row.message}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
