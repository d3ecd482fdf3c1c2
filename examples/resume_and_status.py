"""Interrupt a scan, look at what is done, continue it: ``python resume_and_status.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import maskbatch


class StopsEarly(maskbatch.SilentReporter):
    """Stands for the user who presses Ctrl-C when the first results are there."""

    def progress(self, state: maskbatch.Progress) -> None:
        if state.pieces_done:
            raise KeyboardInterrupt


def main(folder: Path, out: Path = Path("results.parquet")) -> None:
    try:
        maskbatch.scan(folder, out, workers=1, unit_images=4, reporter=StopsEarly())
    except KeyboardInterrupt:
        print("interrupted")

    status = maskbatch.read_status(str(out))
    print(f"{status.done} of {status.inputs} inputs done, {status.left} left")

    # The same call continues; the result has the same bytes as if nothing had happened.
    summary = maskbatch.scan(folder, out, workers=1, unit_images=4)
    print(f"continued: {summary.resumed} were done already, {summary.faces} faces")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
