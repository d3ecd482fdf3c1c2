"""Run as a program: scans once per given number, each time in a process that kills itself at that file operation.

The libraries are loaded once and each scan is forked from that; models are loaded after the fork.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from durability_kit import CountingOps, installed, kill_myself

import maskbatch.scanning.run


def main(archive: Path, folder: Path, points: list[int]) -> None:
    """The result of the death at operation 17 goes to `folder/17/results.parquet`."""
    from durability_kit import CONFIG

    for at in points:
        child = os.fork()
        if not child:
            with installed(CountingOps(at, kill_myself)):
                maskbatch.scanning.run.scan([archive], folder / f"{at}" / "results.parquet", CONFIG)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(at, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(text) for text in sys.argv[3:]])
