"""Memory, handles and threads do not grow with the length of a watch."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import live_kit
import onnx_maker
import psutil
import pytest

from maskbatch.config import ModelSettings, Sampling
from maskbatch.live.options import WatchOptions
from maskbatch.live.watch import Watch
from maskbatch.sources.live.cameras import cameras_of

SECONDS = float(os.environ.get("MASKBATCH_LIVE_SECONDS") or 450)
"""At eight times real time, 450 s are an hour of recordings."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_hour_at_eight_times_real_time_and_its_many_connections_leave_memory_flat(
    red_model: Path, tmp_path: Path
) -> None:
    classifier = tmp_path / "exact.onnx"
    classifier.write_bytes(onnx_maker.share_classifier(("with_mask", "without_mask", "mask_weared_incorrect")))
    live_kit.write_hls(live_kit.write_clip(tmp_path / "clip.mp4", 240), tmp_path / "hls")
    process = psutil.Process()
    with live_kit.serving(tmp_path / "hls") as port:
        options = WatchOptions(
            models=ModelSettings(f"red:{red_model}", str(classifier), det_size=320),
            sampling=Sampling(every_s=0.5),
            device="cpu",
            out=f"{tmp_path}/live/",
            commit_s=2.0,
            track=True,
            events=str(tmp_path / "events.jsonl"),
            speed=8.0,
        )
        watch = Watch(cameras_of([f"gate=http://127.0.0.1:{port}/stream.m3u8"]), options)
        stop = threading.Event()
        thread = threading.Thread(target=watch.run, args=(stop,))
        thread.start()
        live_kit.wait_for(lambda: watch.view().cameras[0].connects >= 3, 60)
        sizes, handles = [], []
        for _ in range(20):
            time.sleep(SECONDS / 20)
            sizes.append(process.memory_info().rss / 1e6)
            handles.append((process.num_fds(), process.num_threads()))
        camera = watch.view().cameras[0]
        stop.set()
        thread.join()
    print([round(size) for size in sizes], handles, camera.connects, camera.samples)
    assert camera.connects > SECONDS / 15
    assert max(sizes[10:]) < max(sizes[:10]) + 25, "the second half needs no more than the first"
    files, threads = zip(*handles, strict=True)
    assert max(files[10:]) <= max(files[:10]) + 3
    assert max(threads[10:]) <= max(threads[:10]) + 3
