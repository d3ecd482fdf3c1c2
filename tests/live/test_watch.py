"""The watch as a whole, on real streams: the same faces as a scan, nothing lost but what is named, events, and an orderly end."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import live_kit
import onnx_maker
import pytest

import maskbatch
from maskbatch.config import ModelSettings, Sampling
from maskbatch.errors import LockedError, OutputExistsError, SettingsChangedError, UsageError
from maskbatch.live.options import AlarmRules, WatchOptions
from maskbatch.live.watch import Watch
from maskbatch.results.reader import ResultReader
from maskbatch.results.summary import summarize
from maskbatch.sources.live.address import parse_address
from maskbatch.sources.live.cameras import Camera, cameras_of

SECRET = "s3cret-word"


@pytest.fixture
def models(red_model: Path, tmp_path: Path) -> ModelSettings:
    """Red squares are faces; what is around them says what they wear."""
    classifier = tmp_path / "exact.onnx"
    classifier.write_bytes(onnx_maker.share_classifier(("with_mask", "without_mask", "mask_weared_incorrect")))
    return ModelSettings(f"red:{red_model}", str(classifier), det_size=320)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_kit.write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 48)


@contextmanager
def watching(watch: Watch) -> Iterator[threading.Event]:
    """The watch in a thread; its end is part of the test."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            watch.run(stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        began = time.monotonic()
        thread.join(10)
        assert not thread.is_alive()
        assert time.monotonic() - began < 4
    if failed:
        raise failed[0]


def options(models: ModelSettings, **more: Any) -> WatchOptions:
    return WatchOptions(
        **{"models": models, "device": "cpu", "sampling": Sampling(every_s=0.125), "stall_s": 3.0, **more}
    )


def events_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ended(watch: Watch) -> bool:
    return watch.view().cameras[0].state == "lost" or watch.view().cameras[0].connects > 1


def test_a_clip_gives_the_same_faces_by_scan_and_by_watch(clip: Path, models: ModelSettings, tmp_path: Path) -> None:
    maskbatch.scan(
        [clip],
        tmp_path / "scan.parquet",
        detector=models.detector,
        classifier=models.classifier,
        det_size=320,
        mode="all",
        workers=1,
        executor="inline",
        device="cpu",
    )
    live_kit.write_hls(clip, tmp_path / "hls")
    out = f"{tmp_path}/live/"
    with live_kit.serving(tmp_path / "hls") as port:
        watch = Watch(
            cameras_of([f"gate=http://127.0.0.1:{port}/stream.m3u8"]),
            options(models, out=out, commit_s=0.5, track=True),
        )
        with watching(watch):
            live_kit.wait_for(lambda: ended(watch), 30)
    names = ["frame", "face", "time_s", "x1", "y1", "x2", "y2", "score", "label", "p_with_mask", "sharpness"]
    expected = ResultReader(tmp_path / "scan.parquet").read().select(names).to_pylist()
    reader = ResultReader(out)
    inputs = {row["source"]: row for row in reader.inputs().to_pylist()}
    first = min(name for name in inputs if not name.endswith(".gap"))
    rows = [row for row in reader.read().to_pylist() if row["source"] == first]
    looked = {row["frame"] for row in rows}
    assert inputs[first]["frames_read"] >= 40, "the models kept up with all but a few frames"
    assert [{name: row[name] for name in names} for row in rows] == [row for row in expected if row["frame"] in looked]
    assert inputs[first]["frames_read"] + inputs[first]["frames_skipped"] == 48
    assert {row["camera"] for row in rows} == {"gate"}
    at = [row["captured_at"] for row in rows]
    assert at == sorted(at)
    tracks = reader.tracks()
    assert tracks is not None
    assert {row["track"] for row in rows} == set(
        tracks.filter([s == first for s in tracks["source"].to_pylist()])["track"].to_pylist()
    )
    assert summarize(out, by=("camera",)).rows[0]["camera"] == "gate"


def test_a_killed_watch_loses_what_came_after_its_last_commit_and_names_the_gap(
    clip: Path, models: ModelSettings, tmp_path: Path
) -> None:
    out = tmp_path / "live"
    server = live_kit.RtspServer(clip.parent)
    arguments = [
        "watch", f"gate=rtsp://viewer:{SECRET}@127.0.0.1:{server.port}/clip.mp4", "--out", f"{out}/", "--commit", "300ms",
        "--detector", models.detector, "--classifier", models.classifier, "--det-size", "320", "--device", "cpu",
        "--every", "125ms", "--track", "--events", str(tmp_path / "events.jsonl"), "--stall", "3s",
    ]  # fmt: skip

    def rows() -> int:
        try:
            return len(ResultReader(out).read())
        except UsageError:
            return 0

    try:
        first = live_kit.command(*arguments)
        live_kit.wait_for(lambda: rows() > 3, 40)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        kept = ResultReader(out).read().to_pylist()
        strange = next((out / "camera=gate").iterdir()) / "left-over.parquet"
        strange.write_bytes(b"half a commit")
        second = live_kit.command(*arguments)
        live_kit.wait_for(lambda: rows() > len(kept) + 3, 40)
        assert summarize(f"{out}/", by=("camera",)).rows[0]["camera"] == "gate", "a summary of the growing result"
        began = time.monotonic()
        second.send_signal(signal.SIGTERM)
        _, told = second.communicate(timeout=10)
        assert time.monotonic() - began < 3
        assert second.returncode == 0
        assert SECRET not in told
    finally:
        server.close()
    assert not strange.exists()
    reader = ResultReader(out)
    after = reader.read().to_pylist()
    assert [row for row in after if row["source"] == kept[0]["source"]] == kept
    inputs = reader.inputs().to_pylist()
    gaps = [row for row in inputs if row["error"] == "gap"]
    assert any("killed" in row["message"] and row["duration_s"] > 0 for row in gaps)
    sources = {row["source"]: row["faces"] for row in inputs if row["error"] != "gap"}
    assert sum(sources.values()) >= len(after)
    last = max(sources)
    assert sources[last] == sum(row["source"] == last for row in after), "all rows of an orderly end are written"
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.encode() not in everything


def test_a_camera_that_is_down_leaves_the_others_alone_and_is_told_of(
    clip: Path, models: ModelSettings, tmp_path: Path
) -> None:
    data = live_kit.transport_stream(clip)
    port_down = live_kit.free_port()
    file = tmp_path / "events.jsonl"
    with live_kit.answering(live_kit.sending(*[data] * 20)) as port:
        watch = Watch(
            cameras_of([f"gate=http://127.0.0.1:{port}/", f"yard=http://u:{SECRET}@127.0.0.1:{port_down}/x.ts"]),
            options(models, events=str(file), out=f"{tmp_path}/live/", rules=AlarmRules(lost_after_s=0.3)),
        )
        with watching(watch):
            live_kit.wait_for(lambda: watch.view().cameras[0].samples > 5)
            live_kit.wait_for(lambda: any(e["event"] == "camera_lost" for e in events_in(file)))
            with live_kit.answering(live_kit.sending(data), port_down):
                live_kit.wait_for(lambda: watch.view().cameras[1].samples > 3, 12)
            live_kit.wait_for(lambda: any(e["event"] == "camera_back" for e in events_in(file)))
            assert watch.view().cameras[0].state == "live"
    told = [event for event in events_in(file) if event["event"].startswith("camera")]
    assert {event["camera"] for event in told} == {"yard"}
    assert SECRET not in file.read_text() + repr(watch.view())
    inputs = ResultReader(f"{tmp_path}/live/").inputs().to_pylist()
    gap = next(row for row in inputs if row["error"] == "gap")
    assert gap["source"].startswith("yard/")
    assert "not seen for" in gap["message"]


def test_an_alarm_is_told_once_a_person_with_a_redacted_image_that_goes_in_time(
    clip: Path, models: ModelSettings, tmp_path: Path
) -> None:
    data = live_kit.transport_stream(clip)
    file = tmp_path / "events.jsonl"
    with live_kit.answering(live_kit.sending(data)) as port:
        watch = Watch(
            cameras_of([f"gate=http://127.0.0.1:{port}/"]),
            options(
                models,
                events=str(file),
                rules=AlarmRules(labels=("with_mask", "without_mask"), sightings=3, share=0.5, cooldown_s=0.0),
                keep_frames="alarms",
                frames=tmp_path / "live.frames",
                out=f"{tmp_path}/live/",
                retain_s=1.5,
            ),
        )
        with watching(watch):
            live_kit.wait_for(lambda: any(e["event"] == "no_mask" for e in events_in(file)))
            alarm = next(e for e in events_in(file) if e["event"] == "no_mask")
            image = Path(alarm["image"])
            assert image.is_file()
            live_kit.wait_for(lambda: not image.exists(), 8)
    told = [(e["source"], e["track"]) for e in events_in(file) if e["event"] == "no_mask"]
    assert len(told) == len(set(told))
    assert alarm["sightings"] >= 3
    assert alarm["camera"] == "gate"


def test_what_must_not_be_looked_at_is_black_before_detection(clip: Path, models: ModelSettings) -> None:
    data = live_kit.transport_stream(clip)
    whole = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    with live_kit.answering(live_kit.sending(data)) as port:
        camera = Camera("gate", parse_address(f"http://127.0.0.1:{port}/"), ignore=(whole,))
        watch = Watch([camera], options(models))
        with watching(watch):
            live_kit.wait_for(lambda: watch.view().cameras[0].samples > 5)
            assert sum(watch.view().cameras[0].today.values()) == 0
            frame = watch.frame("gate", show_faces=True)
    assert frame is not None
    assert len(frame) < 5000, "a black frame compresses to little"


def test_a_result_is_never_mixed_nor_overwritten_nor_written_twice(
    clip: Path, models: ModelSettings, tmp_path: Path
) -> None:
    data = live_kit.transport_stream(clip)
    out = f"{tmp_path}/live/"
    with live_kit.answering(live_kit.sending(data)) as port:
        cameras = cameras_of([f"gate=http://127.0.0.1:{port}/"])
        watch = Watch(cameras, options(models, out=out))
        with watching(watch):
            live_kit.wait_for(lambda: watch.view().cameras[0].samples > 2)
            with pytest.raises(LockedError), watching(Watch(cameras, options(models, out=out))):
                pass
        other = options(models, out=out, sampling=Sampling(every_s=7))
        with pytest.raises(SettingsChangedError), watching(Watch(cameras, other)):
            pass
        maskbatch.scan(
            [clip], f"{tmp_path}/scan/", detector=models.detector, classifier=models.classifier, det_size=320,
            workers=1, executor="inline", device="cpu",
        )  # fmt: skip
        with pytest.raises(OutputExistsError), watching(Watch(cameras, options(models, out=f"{tmp_path}/scan/"))):
            pass
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("keep")
        with (
            pytest.raises(UsageError, match=r"letter\.txt"),
            watching(Watch(cameras, options(models, out=f"{tmp_path}/mine/"))),
        ):
            pass
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"out": "x.parquet"}, "ends in /"),
        ({"keep_frames": "alarms"}, "needs --out"),
        ({"rules": AlarmRules(labels=("hat",))}, "labels are with_mask"),
        ({"webhook": "ftp://h/x"}, "is not read as a camera"),
        ({"sampling": Sampling(gate="motion")}, "--gate motion is for recordings"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(wrong: dict[str, Any], why: str, models: ModelSettings) -> None:
    with pytest.raises(UsageError, match=why):
        Watch(cameras_of(["rtsp://h/1"]), options(models, **wrong))


def test_the_command_says_it_without_a_traceback(tmp_path: Path) -> None:
    process = live_kit.command("watch", "--device", "cpu", f"file:///etc/passwd?{SECRET}", cwd=tmp_path)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2, told
    assert "file: is not read as a camera" in told
    assert "Traceback" not in told
    assert SECRET not in told
