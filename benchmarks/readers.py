"""Which pictures are read: ours beside OpenCV, Pillow and FFmpeg, file by file, with the damaged and the odd among them.

    python benchmarks/readers.py FOLDER [FOLDER ...] [--damaged 500] [--out readers.md]

Every picture in the folders, and `--damaged` more that are made here (seeded: cut, overwritten, with bytes changed in the header
or in the pixels, with rubbish behind the end), is given to four readers, each in a process of its own that is replaced when it
dies. *Whole* means: an image came, and the reader said nothing (OpenCV and FFmpeg tell damage on standard error or in their log alone).
The exit status is 1 where two of the other readers read a file whole and ours gives no image, or where a library says something while ours reads.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

WHOLE, PARTIAL, REFUSED, DIED = "whole", "partial", "refused", "died"
OTHERS = ("opencv", "pillow", "ffmpeg")
TITLES = {"opencv": "OpenCV", "pillow": "Pillow", "ffmpeg": "FFmpeg"}
TIME_LIMIT_S = 60
MAX_PIXELS = 180_000_000
FORMATS = {
    "jpeg": {"quality": 90},
    "jpeg progressive": {"progressive": True, "quality": 85},
    "png": {},
    "webp": {"quality": 80},
    "webp lossless": {"lossless": True},
    "tiff": {},
    "tiff lzw": {"compression": "tiff_lzw"},
    "bmp": {},
    "gif": {},
    "ppm": {},
    "avif": {"quality": 70},
    "jpeg2000": {},
}


# --- the readers: each returns what it made of one file -------------------------------------------------------------------


def ours(path: str) -> str:
    from maskbatch.errors import InputError
    from maskbatch.sources.images.decode import decode_image

    try:
        frame = decode_image(Path(path).read_bytes(), cover=0, max_pixels=MAX_PIXELS)
        frame.load_full()
    except InputError as error:
        return f"{REFUSED} {error.code}"
    left_out = frame.problem is not None and frame.problem.status == "partial" and not frame.problem.frames_left
    return f"{PARTIAL} {frame.problem.error}" if left_out and frame.problem else WHOLE


def opencv(path: str) -> str:
    import cv2

    return WHOLE if cv2.imread(path, cv2.IMREAD_COLOR) is not None else REFUSED


def pillow(path: str) -> str:
    import warnings

    from PIL import Image

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with Image.open(path) as image:
                image.convert("RGB").load()
        except Exception:
            return REFUSED
    return PARTIAL if any("runcated" in str(warning.message) for warning in said) else WHOLE


def ffmpeg(path: str) -> str:
    import av

    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as said:
        try:
            with av.open(path) as container:
                next(iter(container.decode(video=0))).to_ndarray(format="bgr24")
        except Exception:
            return REFUSED
    return PARTIAL if said else WHOLE


READERS: dict[str, Callable[[str], str]] = {"ours": ours, "opencv": opencv, "pillow": pillow, "ffmpeg": ffmpeg}


def serve(reader: str) -> None:
    """Read paths from standard input, one per line; answer each with a line of JSON. What a library says counts as doubt."""
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        for line in sys.stdin:
            said.seek(0)
            said.truncate()
            answer = READERS[reader](json.loads(line))
            said.seek(0)
            words = said.read().decode("utf-8", "replace").strip()
            if words and answer == WHOLE and reader != "ours":
                answer = PARTIAL
            print(json.dumps({"answer": answer, "said": words}), flush=True)


def ask(reader: str, paths: list[str]) -> Iterator[dict[str, str]]:
    """The answers of one reader, in order; its process is replaced when it dies or hangs."""
    child: subprocess.Popen[str] | None = None
    for path in paths:
        if child is None or child.poll() is not None:
            child = subprocess.Popen(
                [sys.executable, __file__, "--serve", reader], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(path) + "\n")
        child.stdin.flush()
        killer = subprocess.Popen(["sh", "-c", f"sleep {TIME_LIMIT_S}; kill -9 {child.pid} 2>/dev/null"])
        line = child.stdout.readline()
        killer.kill()
        killer.wait()
        yield json.loads(line) if line else {"answer": DIED, "said": ""}
    if child is not None:
        assert child.stdin is not None
        child.stdin.close()
        child.wait()


# --- the files --------------------------------------------------------------------------------------------------------


def found(folders: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Every picture below the folders, with its format by its bytes."""
    from maskbatch.sources.sniff import SNIFF_BYTES, sniff

    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                kind = sniff(path.read_bytes()[:SNIFF_BYTES])
                if kind.media == "image":
                    yield kind.key, path


def damaged(count: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """`count` pictures made here, damaged one way each; the seed is fixed."""
    from PIL import Image, features

    rng = random.Random(20)
    grid = np.random.default_rng(20).normal(size=(6, 8, 3))
    pixels = np.asarray(
        Image.fromarray((128 + 60 * grid).clip(0, 255).astype(np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)
    )
    whole: dict[str, bytes] = {}
    for name, options in FORMATS.items():
        if name in ("avif", "webp") and not features.check(name):
            continue
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, name.split()[0], **options)  # type: ignore[arg-type]
        whole[name] = buffer.getvalue()
    for index in range(count):
        name = list(whole)[index % len(whole)]
        kind = DAMAGE[index // len(whole) % len(DAMAGE)]
        path = folder / f"{index:04} {name} {kind.__name__}.{name.split()[0]}"
        path.write_bytes(kind(whole[name], rng))
        yield name.split()[0], path


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(20, len(data))]


def cut_last_bytes(data: bytes, rng: random.Random) -> bytes:
    return data[: -rng.randrange(1, 9)]


def overwritten(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) // 4, len(data) - 64)
    return data[:at] + bytes(64) + data[at + 64 :]


def header_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(4, min(200, len(data)))
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def pixel_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) // 3, len(data) - 4)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def rubbish_behind(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 4000))


DAMAGE = (cut, cut_last_bytes, overwritten, header_byte, pixel_byte, rubbish_behind)


# --- the table --------------------------------------------------------------------------------------------------------


def table(rows: list[dict[str, str]]) -> str:
    from maskbatch.web.tables import markdown_table

    head = ("format", "files", "ours: whole", "partial", "refused", *(f"{TITLES[name]} whole" for name in OTHERS))
    lines = []
    for name in [*sorted({row["format"] for row in rows}), "all"]:
        mine = [row for row in rows if name in (row["format"], "all")]
        counts = {reader: Counter(row[reader].split()[0] for row in mine) for reader in READERS}
        own = counts["ours"]
        cells = [name, len(mine), own[WHOLE], own[PARTIAL], own[REFUSED] + own[DIED]]
        lines.append([*cells, *(counts[reader][WHOLE] for reader in OTHERS), sum(map(missed, mine))])
    return markdown_table((*head, "whole by two others, refused by us"), lines)


def missed(row: dict[str, str]) -> bool:
    """Whether two of the others read the file whole and ours gives no image (a limit that the user can raise aside)."""
    given = row["ours"].split()[0] in (WHOLE, PARTIAL) or row["ours"] == f"{REFUSED} too_large"
    return sum(row[reader] == WHOLE for reader in OTHERS) >= 2 and not given


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--damaged", type=int, default=500, help="how many damaged pictures are made")
    parser.add_argument("--out", type=Path, help="where the table goes; standard output otherwise")
    parser.add_argument("--serve", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        files = [*found(options.folders), *damaged(options.damaged, Path(folder))]
        rows = [{"format": kind, "path": str(path)} for kind, path in files]
        for reader in READERS:
            for row, answer in zip(rows, ask(reader, [row["path"] for row in rows]), strict=True):
                row[reader] = answer["answer"]
                if reader == "ours" and answer["said"]:
                    row["said"] = answer["said"]
    text = table(rows)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    bad = [row for row in rows if missed(row) or row["ours"] == DIED or "said" in row]
    for row in bad:
        print(json.dumps(row), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
