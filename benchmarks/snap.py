"""What `--snap` saves: a scan of clips with a key frame every 1, 2 and 10 seconds, exact samples beside snapped ones and key frames alone.

    python benchmarks/snap.py --seconds 240 --every 5s --snap 2.5s

The clips are those of `throughput.py`: 720p H.264 with faces and camera noise. The ways take turns; the least of the rounds counts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from worksets import encode_clip

import maskbatch
from maskbatch.cli.values import seconds

RATE = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=240, help="length of a clip")
    parser.add_argument("--every", default="5s")
    parser.add_argument("--snap", default="2.5s")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    every, snap = seconds(given.every, "--every"), seconds(given.snap, "--snap")
    ways = {"exact": {"every_s": every}, "snap": {"every_s": every, "snap_s": snap}, "keyframes": {"mode": "keyframes"}}
    with tempfile.TemporaryDirectory() as folder:
        for key_s in (1, 2, 10):
            clip = Path(folder) / f"keys-{key_s}.mp4"
            encode_clip(clip, (1280, 720), given.seconds, 2, key_s * RATE, 2_000_000)
            least: dict[str, tuple[float, int]] = {}
            for number in range(given.rounds):
                for name, options in ways.items():
                    out = Path(folder) / f"{key_s}-{name}-{number}.parquet"
                    found = maskbatch.scan([clip], out, device="cpu", executor="inline", **options)  # type: ignore[arg-type]
                    used = sum(found.stages.values())
                    least[name] = min(least.get(name, (used, 0)), (used, found.frames_read))
            told = ", ".join(
                f"{name} {used:.2f} s of CPU for {frames} frames" for name, (used, frames) in least.items()
            )
            ratio = least["exact"][0] / least["snap"][0]
            print(f"key frame every {key_s} s: {told}; --snap is {ratio:.2f} x as fast as exact", flush=True)


if __name__ == "__main__":
    main()
