"""Streams that end, stall, lie, jump, change and attack: the reader goes on, counts, and says why in words without secrets."""

from __future__ import annotations

import http.server
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import live_kit
import psutil
import pytest
import video_makers

from maskbatch.config import Limits, Sampling
from maskbatch.errors import InputError, UsageError
from maskbatch.sources.live.address import parse_address
from maskbatch.sources.live.cameras import Camera, cameras_of
from maskbatch.sources.live.clock import UNITS, LiveClock
from maskbatch.sources.live.reader import CameraReader, Counts, Health, Sample, Timing
from maskbatch.sources.live.stream import LiveStream

SECRET = "s3cret-word"


class Ear:
    """A listener that takes every sample at once, or leaves them lying."""

    def __init__(self, *, takes: bool = True) -> None:
        self.takes = takes
        self.samples: list[Sample] = []
        self.connections: list[float] = []
        self.losses: list[tuple[Counts, Health]] = []
        self.reader: CameraReader | None = None

    def sampled(self, _camera: str) -> None:
        if self.takes and self.reader is not None:
            sample = self.reader.take()
            if sample is not None:
                self.samples.append(sample)

    def connected(self, _camera: str, at: float) -> None:
        self.connections.append(at)

    def lost(self, _camera: str, counts: Counts, health: Health) -> None:
        self.losses.append((counts, health))


@contextmanager
def reading(
    url: str, *, every_s: float = 0.01, takes: bool = True, speed: float = 20.0, stall_s: float = 2.0
) -> Iterator[Ear]:
    ear = Ear(takes=takes)
    reader = CameraReader(
        Camera("gate", parse_address(url)), Sampling(every_s=every_s), 320, Limits(), ear, Timing(2.0, stall_s, speed)
    )
    ear.reader = reader
    reader.start()
    try:
        yield ear
    finally:
        reader.stop()
        assert reader.join(stall_s + 3), "the reader's thread did not end"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    return live_kit.write_clip(folder / "clip.mp4", 32, picture=video_makers.numbered)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"rtsp://viewer:{SECRET}@10.0.0.5:554/stream1", "rtsp://***@10.0.0.5:554/stream1"),
        (f"http://cam.local/video?user=a&pwd={SECRET}", "http://cam.local/video?***"),
        (f"rtsp://cam/user=admin_password={SECRET}_channel=1", "rtsp://cam/user=admin_password=***_channel=1"),
        (f"https://{SECRET}@cam/x.m3u8", "https://***@cam/x.m3u8"),
    ],
)
def test_an_address_is_shown_without_what_is_secret_in_it(text: str, shown: str) -> None:
    address = parse_address(text)
    assert address.shown == shown
    assert SECRET not in repr(address)
    assert SECRET not in address.without_secrets(f"cannot open '{text}' ({SECRET})")


@pytest.mark.parametrize(
    "text",
    [f"file:///etc/{SECRET}?p={SECRET}", f"ftp://u:{SECRET}@h/x", "nowhere", "", f"rtsp://u:{SECRET}@/x", "concat:a|b"],
)
def test_other_protocols_are_refused_in_a_sentence_without_secrets(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert f":{SECRET}@" not in str(caught.value)
    assert f"p={SECRET}" not in str(caught.value)


def test_cameras_come_from_names_addresses_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_PASSWORD", SECRET)
    file = tmp_path / "cameras.toml"
    file.write_text(
        '[gate]\naddress = "rtsp://v:${GATE_PASSWORD}@h/1"\ntimezone = "Europe/Berlin"\nignore = [[[0,0],[0.5,0],[0.5,1]]]\n'
    )
    cameras = cameras_of([str(file), "yard=http://h/x.m3u8", "rtsp://other/1", "rtsp://other/2"])
    assert [camera.name for camera in cameras] == ["gate", "yard", "other", "other-2"]
    assert cameras[0].address is not None
    assert SECRET in cameras[0].address.url
    assert cameras[0].ignore == (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0)),)
    with pytest.raises(UsageError, match="two cameras are called yard"):
        cameras_of(["yard=rtsp://a/1", "yard=rtsp://b/1"])
    for wrong, why in (
        ('[gate]\nurl = "rtsp://h/1"\n', "url is not known"),
        ("[gate]\n", "needs an address"),
        ('[gate]\naddress = "rtsp://h/1"\nignore = [[[0, 0], [200, 0], [1, 1]]]\n', "share of width and height"),
        ('[gate]\naddress = "rtsp://h/1"\ntimezone = "Mars"\n', "not a time zone"),
    ):
        file.write_text(wrong)
        with pytest.raises(UsageError, match=why):
            cameras_of([str(file)])


def test_every_frame_of_a_playlist_is_read_in_order_and_connected_again(clip: Path, tmp_path: Path) -> None:
    live_kit.write_hls(clip, tmp_path)
    with live_kit.serving(tmp_path) as port, reading(f"http://127.0.0.1:{port}/stream.m3u8") as ear:
        live_kit.wait_for(lambda: len(ear.connections) >= 2)
    first = [sample for sample in ear.samples if sample.session == 1]
    assert [video_makers.number_in(sample.frame.image) for sample in first] == list(range(32))
    assert [sample.frame.ordinal for sample in first] == list(range(32))
    assert [sample.frame.time_s for sample in first] == pytest.approx([n / live_kit.RATE for n in range(32)])
    counts, health = ear.losses[0]
    assert (counts.frames, counts.dropped, health.reason) == (32, 0, "the stream ended")


def test_what_nobody_looks_at_is_dropped_and_counted_and_the_newest_stays(clip: Path, tmp_path: Path) -> None:
    live_kit.write_hls(clip, tmp_path)
    url = "http://127.0.0.1:{}/stream.m3u8"
    with live_kit.serving(tmp_path) as port, reading(url.format(port), takes=False) as ear:
        live_kit.wait_for(lambda: ear.losses)
        assert ear.reader is not None
        sample = ear.reader.take()
    assert sample is not None
    assert video_makers.number_in(sample.frame.image) == 31
    assert ear.losses[0][0].dropped == 31


@pytest.mark.parametrize(
    "line", ["file:///etc/hostname", "http://localhost:{other}/x.ts", "/../../etc/hostname", "concat:/etc/a|/etc/b"]
)
def test_a_playlist_may_name_only_media_of_its_own_host(line: str, clip: Path, tmp_path: Path) -> None:
    called = []

    def other(request: http.server.BaseHTTPRequestHandler) -> None:
        called.append(request.path)
        live_kit.sending(live_kit.transport_stream(clip))(request)

    with live_kit.answering(other) as port_of_other, live_kit.serving(tmp_path) as port:
        uri = line.format(other=port_of_other)
        (tmp_path / "evil.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{uri}\n#EXT-X-ENDLIST\n")
        with pytest.raises(InputError):
            next(LiveStream(parse_address(f"http://127.0.0.1:{port}/evil.m3u8"), Limits(), 2, 2).frames())
    assert called == []


def test_a_redirect_to_another_host_or_protocol_is_refused(clip: Path) -> None:
    called = []

    def other(request: http.server.BaseHTTPRequestHandler) -> None:
        called.append(request.path)
        live_kit.sending(live_kit.transport_stream(clip))(request)

    with live_kit.answering(other) as port_of_other:

        def redirect(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(302)
            request.send_header("Location", f"http://localhost:{port_of_other}/x.ts")
            request.end_headers()

        with live_kit.answering(redirect) as port, pytest.raises(InputError, match="another host"):
            LiveStream(parse_address(f"http://127.0.0.1:{port}/"), Limits(), 2, 2)
    assert called == []


def test_a_stall_is_noticed_and_ends(tmp_path: Path) -> None:
    data = live_kit.transport_stream(live_kit.write_clip(tmp_path / "x.mp4", 200, picture=video_makers.numbered))
    trickle = [data, *[part for _ in range(40) for part in (0.1, b"\x47" + bytes(187))]]
    for parts in ((data, 20.0), trickle):  # silence, and null packets for ever
        with (
            live_kit.answering(live_kit.sending(*parts)) as port,
            reading(f"http://127.0.0.1:{port}/", stall_s=0.6) as ear,
        ):
            live_kit.wait_for(lambda ear=ear: ear.losses, 8)
        assert ear.losses[0][0].frames > 5
        assert ear.losses[0][1].code in ("hung", "io")


def test_rubbish_and_errors_are_said_without_secrets(clip: Path) -> None:
    def refuses(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_error(401)

    for answer in (refuses, live_kit.sending(bytes(range(256)) * 400), live_kit.sending(b"")):
        with live_kit.answering(answer) as port, pytest.raises(InputError) as caught:
            LiveStream(parse_address(f"http://viewer:{SECRET}@127.0.0.1:{port}/x?k={SECRET}"), Limits(), 2, 2)
        assert SECRET not in str(caught.value)
    with pytest.raises(InputError) as caught:
        LiveStream(parse_address(f"rtsp://viewer:{SECRET}@127.0.0.1:{live_kit.free_port()}/x"), Limits(), 2, 2)
    assert SECRET not in str(caught.value)
    assert "refused" in str(caught.value)


def test_a_camera_that_refuses_the_password_is_not_asked_again_at_once() -> None:
    asked = []

    def refuses(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        request.send_error(403)

    with live_kit.answering(refuses) as port, reading(f"http://u:{SECRET}@127.0.0.1:{port}/") as ear:
        live_kit.wait_for(lambda: ear.losses)
        time.sleep(1.5)
    assert len(asked) == 1
    assert ear.losses[0][1].code == "permission"


def test_a_password_is_given_to_the_camera_that_asks_for_it(clip: Path) -> None:
    data = live_kit.transport_stream(clip)

    def guarded(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.headers.get("Authorization") != "Basic dmlld2VyOnMzY3JldC13b3Jk":
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.end_headers()
        else:
            live_kit.sending(data)(request)

    with live_kit.answering(guarded) as port:
        stream = LiveStream(parse_address(f"http://viewer:{SECRET}@127.0.0.1:{port}/x.ts"), Limits(), 5, 5)
        assert sum(1 for _ in stream.frames()) == 32
        stream.close()


def test_a_clock_that_is_reset_is_bridged_and_time_never_falls(clip: Path) -> None:
    data = live_kit.transport_stream(clip)
    with live_kit.answering(live_kit.sending(data, data)) as port, reading(f"http://127.0.0.1:{port}/") as ear:
        live_kit.wait_for(lambda: ear.losses)
    times = [sample.frame.time_s or 0.0 for sample in ear.samples if sample.session == 1]
    assert len(times) > 50
    assert all(after > before for before, after in itertools.pairwise(times))


def test_a_size_that_changes_is_followed(tmp_path: Path) -> None:
    data = video_makers.write_resolution_change(tmp_path / "x.ts", [(160, 120), (320, 240), (128, 96)]).read_bytes()
    with live_kit.answering(live_kit.sending(data)) as port, reading(f"http://127.0.0.1:{port}/") as ear:
        live_kit.wait_for(lambda: ear.losses)
    sizes = {(sample.frame.width, sample.frame.height) for sample in ear.samples}
    assert sizes == {(160, 120), (320, 240), (128, 96)}
    assert ear.losses[0][0].sizes == 2
    first = [video_makers.number_in(s.frame.load_full()) for s in ear.samples if s.session == 1]
    assert first == sorted(first)


def test_frames_without_time_stamps_of_their_own_come_by_the_clock_of_this_machine() -> None:
    import cv2

    def motion_jpeg(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for number in range(15):
            jpeg = cv2.imencode(".jpg", video_makers.numbered(number))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            request.wfile.write(head + jpeg + b"\r\n")
            time.sleep(0.1)

    with live_kit.answering(motion_jpeg) as port, reading(f"http://127.0.0.1:{port}/", speed=1.0) as ear:
        live_kit.wait_for(lambda: ear.losses)
    samples = [sample for sample in ear.samples if sample.session == 1]
    assert [video_makers.number_in(sample.frame.image) for sample in samples] == list(range(len(samples)))
    assert len(samples) >= 12
    assert 0.8 < (samples[-1].frame.time_s or 0) < 4.0


@pytest.mark.parametrize("factor", [0.0, 0.1, 10.0])
def test_a_clock_that_stands_still_or_runs_wrong_is_replaced_by_ours(factor: float) -> None:
    clock = LiveClock()
    seconds = [
        clock.read(round(n * 0.04 * factor * 90_000), Fraction(1, 90_000), 100 + n * 0.04) / UNITS for n in range(5000)
    ]
    assert all(after > before for before, after in itertools.pairwise(seconds))
    assert seconds[-1] == pytest.approx(4999 * 0.04, abs=12)
    assert clock.repairs > 0


def test_a_sound_clock_is_left_alone_whatever_the_network_does() -> None:
    clock = LiveClock()
    late = [0.0, 1.5, 0.2, 0.0, 3.0, 0.1]
    found = [clock.read(n * 3600, Fraction(1, 90_000), 7 + n * 0.04 + late[n % 6]) for n in range(2000)]
    assert found == [n * 3600 for n in range(2000)]
    assert clock.repairs == 0


def test_a_hundred_connections_leave_no_thread_and_no_handle(clip: Path) -> None:
    data = live_kit.transport_stream(clip)
    process = psutil.Process()
    with live_kit.answering(live_kit.sending(data[: len(data) // 2])) as port:
        address = parse_address(f"http://127.0.0.1:{port}/")

        def once() -> None:
            stream = LiveStream(address, Limits(), 5, 5)
            assert sum(1 for _ in stream.frames()) > 5
            stream.close()

        before = threading.active_count()
        for _ in range(3):
            once()
        live_kit.wait_for(lambda: threading.active_count() <= before, 5)
        threads, handles = process.num_threads(), process.num_fds()
        for _ in range(100):
            once()
        live_kit.wait_for(lambda: process.num_fds() <= handles and process.num_threads() <= threads, 5)


def test_rtsp_plays_and_a_server_that_is_back_is_seen_within_ten_seconds(clip: Path) -> None:
    server = live_kit.RtspServer(clip.parent)
    port = server.port
    try:
        with reading(f"rtsp://viewer:{SECRET}@127.0.0.1:{port}/clip.mp4", speed=1.0) as ear:
            live_kit.wait_for(lambda: len(ear.samples) > 4)
            server.close()
            live_kit.wait_for(lambda: ear.losses, 8)
            time.sleep(0.5)
            known = len(ear.connections)
            server = live_kit.RtspServer(clip.parent, port)
            back = time.monotonic()
            live_kit.wait_for(lambda: len(ear.connections) > known, 10)
            assert time.monotonic() - back < 10
        assert all(SECRET not in health.reason for _, health in ear.losses)
    finally:
        server.close()
