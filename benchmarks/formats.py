"""What conversions cost: `python benchmarks/formats.py [FOLDER]`: seconds, memory and size per format for synthetic results.

Formats with a file per image (voc, yolo) are measured with a tenth of the faces: a million small files say more of the disk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from reports import write_synthetic

FACES = 1_000_000
MANY_FILES = ("voc", "yolo")
FORMATS = ("csv", "jsonl", "coco", "labelstudio", "cvat", *MANY_FILES)


def measure(result: Path, name: str) -> dict[str, float]:
    """One conversion in a process of its own."""
    out = result.parent / f"as-{name}"
    shutil.rmtree(out, ignore_errors=True)
    code = (
        f"import resource,sys;sys.argv=['maskbatch','convert',{str(result)!r},'--to',{name!r},'--out',{str(out)!r}];"
        "from maskbatch.cli import build_app;build_app()(standalone_mode=False);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    before = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds = time.monotonic() - before
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    return {
        "seconds": round(seconds, 1),
        "peak_mb": round(int(done.stdout.split()[-1]) / 1024),
        "mb": round(size / 1e6, 1),
    }


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path("out/formats")
    large = write_synthetic(folder / "large", FACES)
    small = write_synthetic(folder / "small", FACES // 10)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in FORMATS:
        found[name] = {f"{FACES // 10} faces": measure(small, name)}
        if name not in MANY_FILES:
            found[name][f"{FACES} faces"] = measure(large, name)
        print(name, json.dumps(found[name]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
