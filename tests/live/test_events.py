"""Rules of events, and their delivery: signed, tried again, bounded, to the given address alone."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import time
from typing import Any

import live_kit
import numpy as np
import pytest

from maskbatch.errors import UsageError
from maskbatch.live.events import Alarms
from maskbatch.live.options import AlarmRules
from maskbatch.live.people import Person
from maskbatch.live.webhook import HELD, Webhook
from maskbatch.tasks import MASK

WITHOUT = MASK.labels.index("without_mask")
WITH = MASK.labels.index(MASK.headline)


def person(number: int, label: int, sightings: int = 3, doubt: float = 0.0) -> Person:
    votes = np.zeros(len(MASK.labels))
    votes[label], votes[label - 1] = sightings * (1 - doubt), sightings * doubt
    return Person(number, 0.0, 1.0, 0, 1, sightings, votes)


def test_the_vote_decides_and_each_person_is_told_once() -> None:
    alarms = Alarms(AlarmRules(cooldown_s=0), MASK)
    assert alarms.person("gate", "s", person(0, WITHOUT, sightings=2), 0) is None
    assert alarms.person("gate", "s", person(1, WITH), 0) is None
    assert alarms.person("gate", "s", person(2, WITHOUT, doubt=0.45), 0) is None
    seen = person(3, WITHOUT)
    event = alarms.person("gate", "s", seen, 0)
    assert event is not None
    assert (event["event"], event["camera"], event["label"], event["track"]) == ("no_mask", "gate", "without_mask", 3)
    assert alarms.person("gate", "s", seen, 1) is None


def test_a_suppressed_event_neither_uses_up_the_cooldown_nor_is_lost() -> None:
    alarms = Alarms(AlarmRules(cooldown_s=60), MASK)
    assert alarms.person("gate", "s", person(0, WITHOUT), 0) is not None
    second = person(1, WITHOUT)
    assert alarms.person("gate", "s", second, 30) is None
    assert alarms.suppressed == 1
    assert alarms.person("yard", "s", person(0, WITHOUT), 30) is not None, "each camera has its own"
    assert alarms.person("gate", "s", second, 61) is not None, "60 s after the event that was told, not after the other"


def test_the_share_is_told_when_it_falls_and_when_it_recovers() -> None:
    alarms = Alarms(AlarmRules(share_under=0.5, window_s=100, window_people=4), MASK)
    told = []
    for number, label in enumerate([WITH] * 3 + [WITHOUT] * 4 + [WITH] * 9):
        alarms.finished(person(number, label), float(number))
        event = alarms.share(float(number))
        told += [(number, event["event"])] if event else []
    assert told == [(6, "share_under"), (7, "share_recovered")]
    assert alarms.share(1000.0) is None


def test_a_camera_is_lost_once_and_back_once_and_short_breaks_are_not_told() -> None:
    alarms = Alarms(AlarmRules(lost_after_s=2), MASK)
    assert alarms.back("gate", 0) is None
    alarms.lost("gate", 10, "refused")
    assert alarms.back("gate", 11) is None
    alarms.lost("gate", 20, "refused")
    alarms.lost("gate", 25, "still refused")
    assert [event["event"] for event in alarms.check_lost(23)] == ["camera_lost"]
    assert alarms.check_lost(30) == []
    back = alarms.back("gate", 50)
    assert back is not None
    assert (back["event"], back["lost_s"]) == ("camera_back", 30)


def test_a_webhook_is_signed_and_tried_again_with_the_same_id() -> None:
    got: list[tuple[dict[str, str], bytes]] = []

    def receive(request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        got.append((dict(request.headers), body))
        request.send_response(500 if len(got) == 1 else 204)
        request.end_headers()

    with live_kit.answering(receive) as port:
        hook = Webhook(f"http://127.0.0.1:{port}/hook", "shared secret")
        hook.send({"event": "no_mask", "id": "x-1"})
        live_kit.wait_for(lambda: hook.sent == 1, 10)
        hook.close(1)
    assert len(got) == 2
    assert {json.loads(body)["id"] for _, body in got} == {"x-1"}
    for headers, body in got:
        stamp = headers["X-Maskbatch-Timestamp"]
        assert abs(time.time() - int(stamp)) < 20
        expected = hmac.new(b"shared secret", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert headers["X-Maskbatch-Signature"] == f"sha256={expected}"


def test_a_webhook_that_does_not_answer_holds_up_nobody_and_drops_are_counted() -> None:
    hook = Webhook(f"http://127.0.0.1:{live_kit.free_port()}/hook")
    began = time.monotonic()
    for number in range(HELD + 50):
        hook.send({"event": "no_mask", "id": str(number)})
    assert time.monotonic() - began < 1
    assert 40 <= hook.dropped <= 50
    hook.close(0.5)
    assert time.monotonic() - began < 3


def test_a_webhook_follows_no_redirect() -> None:
    called: list[Any] = []
    with live_kit.answering(lambda request: called.append(request.path)) as other:

        def redirect(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(307)
            request.send_header("Location", f"http://127.0.0.1:{other}/stolen")
            request.end_headers()

        with live_kit.answering(redirect) as port:
            hook = Webhook(f"http://127.0.0.1:{port}/")
            hook.send({"event": "no_mask", "id": "1"})
            live_kit.wait_for(lambda: hook.last_error)
            hook.close(1)
    assert called == []


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///x", "http://u:p@h/x", "/dev/video0"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Webhook(url)
