"""What the page serves: state, frames that are blurred, health and metrics; nothing without the token but counts."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import live_kit
import numpy as np
import onnx_maker
import pytest

from maskbatch.config import ModelSettings, Sampling
from maskbatch.live.options import AlarmRules, WatchOptions
from maskbatch.live.page import serve
from maskbatch.live.watch import Watch
from maskbatch.sources.live.cameras import cameras_of

SECRET = "s3cret-word"


@pytest.fixture
def watch(red_model: Path, tmp_path: Path) -> Iterator[Watch]:
    """A camera that plays, and one that is down."""
    classifier = tmp_path / "exact.onnx"
    classifier.write_bytes(onnx_maker.share_classifier(("with_mask", "without_mask", "mask_weared_incorrect")))
    data = live_kit.transport_stream(live_kit.write_clip(tmp_path / "clip.mp4", 64))
    with live_kit.answering(live_kit.sending(*[data] * 20)) as port:
        cameras = cameras_of(
            [f"gate=http://127.0.0.1:{port}/", f"yard=http://u:{SECRET}@127.0.0.1:{live_kit.free_port()}/x?k={SECRET}"]
        )
        options = WatchOptions(
            models=ModelSettings(f"red:{red_model}", str(classifier), det_size=320),
            sampling=Sampling(every_s=0.25),
            device="cpu",
            page=True,
            rules=AlarmRules(labels=("with_mask",), sightings=2, share=0.4, lost_after_s=0.2),
        )
        running = Watch(cameras, options)
        stop = threading.Event()
        thread = threading.Thread(target=running.run, args=(stop,))
        thread.start()
        live_kit.wait_for(lambda: running.view().cameras[0].samples > 4)
        live_kit.wait_for(lambda: running.view().event_count.get("camera_lost"))
        yield running
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


class Client:
    """A browser of few words: keeps the cookie."""

    def __init__(self, address: str) -> None:
        self.base = address.partition("/?")[0]
        jar = urllib.request.HTTPCookieProcessor()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)
        self.first = self._opener.open(address, timeout=5).read().decode()

    def __call__(self, path: str) -> bytes:
        with self._opener.open(self.base + path, timeout=5) as answer:
            return bytes(answer.read())

    def state(self) -> dict[str, Any]:
        with self._opener.open(self.base + "/state", timeout=5) as answer:
            line = answer.readline()
        found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        return found


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_the_page_shows_state_and_blurred_frames_to_who_has_the_token(watch: Watch) -> None:
    address = serve(watch)
    page = Client(address)
    assert "maskbatch watch" in page.first
    state = page.state()
    gate, yard = state["cameras"]
    assert (gate["state"], yard["state"]) == ("live", "lost")
    assert sum(gate["today"].values()) > 0
    assert SECRET not in json.dumps(state)
    blurred = cv2.imdecode(np.frombuffer(page("/frame/gate"), np.uint8), cv2.IMREAD_COLOR)
    assert blurred is not None
    assert blurred.shape == (192, 320, 3)
    shown = watch.frame("gate", show_faces=True)
    assert shown is not None
    clear = cv2.imdecode(np.frombuffer(shown, np.uint8), cv2.IMREAD_COLOR)

    def red(image: Any) -> int:
        return int(((image[..., 2] > 200) & (image[..., 1] < 60) & (image[..., 0] < 60)).sum())

    assert red(clear) > 300
    assert red(blurred) < red(clear) / 2, "the square, which is the face here, is averaged away"
    base = address.partition("/?")[0]
    for path in ("/", "/state", "/frame/gate", "/page.js", "/page.css"):
        assert status(base + path) == 403
    assert status(address) == 403, "the token works once"
    assert status(base + "/healthz") == 503
    with urllib.request.urlopen(base + "/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'maskbatch_camera_up{camera="gate"} 1' in text
    assert 'maskbatch_camera_up{camera="yard"} 0' in text
    assert SECRET not in text
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


def test_state_is_pushed_as_things_happen(watch: Watch) -> None:
    page = Client(serve(watch))
    with page._opener.open(page.base + "/state", timeout=5) as answer:
        seen = []
        until = time.monotonic() + 10
        while len(seen) < 3 and time.monotonic() < until:
            line = answer.readline()
            if line.startswith(b"data: "):
                seen.append(json.loads(line.removeprefix(b"data: "))["cameras"][0]["samples"])
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


def test_the_page_ends_with_the_watch(watch: Watch) -> None:
    address = serve(watch)
    page = Client(address)
    with page._opener.open(page.base + "/state", timeout=5) as answer:
        assert answer.readline().startswith(b"data: ")
        watch.has_ended = True
        while answer.readline():
            pass
    for call in watch._at_end:
        call()
    live_kit.wait_for(lambda: not any(t.name == "maskbatch-page" for t in threading.enumerate()), 10)
