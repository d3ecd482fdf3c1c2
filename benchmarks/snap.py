"""What `--snap` saves: a scan of clips with a key frame every 1, 2 and 10 seconds, exact samples beside snapped ones and key frames alone.

    python benchmarks/snap.py --seconds 60 --every 2s --snap 1s

The clips are those of `throughput.py`: 720p H.264 with faces and camera noise. Key frames come a frame early, as no camera keeps time with
our sampling points. The ways take turns; the least of the rounds counts.
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
    parser.add_argument("--seconds", type=int, default=60, help="length of a clip")
    parser.add_argument("--every", default="2s")
    parser.add_argument("--snap", default="1s")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    every, snap = seconds(given.every, "--every"), seconds(given.snap, "--snap")
    ways = {"exact": {"every_s": every}, "snap": {"every_s": every, "snap_s": snap}, "keyframes": {"mode": "keyframes"}}
    with tempfile.TemporaryDirectory() as folder:
        for key_s in (1, 2, 10):
            clip = Path(folder) / f"keys-{key_s}.mp4"
            encode_clip(clip, (1280, 720), given.seconds, 2, key_s * RATE - 1, 2_000_000)
            least: dict[str, tuple[float, float, int]] = {}
            for number in range(given.rounds):
                for name, options in ways.items():
                    out = Path(folder) / f"{key_s}-{name}-{number}.parquet"
                    found = maskbatch.scan([clip], out, device="cpu", executor="inline", **options)  # type: ignore[arg-type]
                    run = (found.stages["decode"], sum(found.stages.values()), found.frames_read)
                    least[name] = min(least.get(name, run), run)
            told = ", ".join(
                f"{name} {decode:.2f} s of {used:.2f} for {frames} frames"
                for name, (decode, used, frames) in least.items()
            )
            ratio = least["exact"][1] / least["snap"][1]
            print(
                f"key frame every {key_s} s, decoding and all CPU: {told}; --snap is {ratio:.2f} x as fast", flush=True
            )


if __name__ == "__main__":
    main()
