"""Events by HTTP: one POST each, signed, tried again, never more in memory than a bound.

The receiver checks ``X-Maskbatch-Signature``: ``sha256=`` and the HMAC-SHA256, in hex, of the value of ``X-Maskbatch-Timestamp``, a full
stop, and the body, with the secret that both know. Events carry an ``id``; one that comes twice has the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from maskbatch.errors import UsageError
from maskbatch.live.events import Event
from maskbatch.sources.live.address import Address, parse_address

HELD = 1000
TRIES = 6
FIRST_WAIT_S = 0.5
TIMEOUT_S = 5.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:
        """Events go to the address that was given and nowhere else."""


def webhook_address(url: str) -> Address:
    """Where events go; raises UsageError unless it is http or https, without user and password."""
    address = parse_address(url)
    if address.kind != "http" or "***@" in address.shown:
        raise UsageError(f"--webhook {address.shown}: an http or https address without user and password is needed")
    return address


class Webhook:
    """Posts events in a thread of its own.

    Args:
        url: http or https.
        secret: shared with the receiver; None leaves the signature out.

    Attributes:
        sent, failed, dropped: events delivered, given up after `TRIES`, and not taken since `HELD` waited.
    """

    def __init__(self, url: str, secret: str | None = None) -> None:
        """Raises UsageError."""
        self._address = webhook_address(url)
        self._secret = secret.encode() if secret else None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
        self._waiting: queue.Queue[Event | None] = queue.Queue(HELD)
        self._stop = threading.Event()
        self.sent = self.failed = self.dropped = 0
        self.last_error = ""
        self._thread = threading.Thread(target=self._run, name="maskbatch-webhook", daemon=True)
        self._thread.start()

    def send(self, event: Event) -> None:
        """Take an event; never waits."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_s: float) -> None:
        """Try once to send what waits, for so long."""
        until = time.monotonic() + timeout_s
        self._stop.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=0.1)
        self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            wait = FIRST_WAIT_S
            for attempt in range(TRIES):
                if self._post(event):
                    self.sent += 1
                    break
                if attempt + 1 == TRIES or self._stop.wait(wait):
                    self.failed += 1
                    break
                wait *= 2

    def _post(self, event: Event) -> bool:
        body = json.dumps(event, ensure_ascii=True).encode()
        stamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", "User-Agent": "maskbatch", "X-Maskbatch-Timestamp": stamp}
        if self._secret is not None:
            mac = hmac.new(self._secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers["X-Maskbatch-Signature"] = f"sha256={mac}"
        request = urllib.request.Request(self._address.url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                answer.read(1024)
            return True
        except urllib.error.HTTPError as error:
            self.last_error = f"the webhook answers {error.code}"
            error.close()
        except (OSError, ValueError) as error:
            self.last_error = self._address.without_secrets(str(getattr(error, "reason", error)))
        return False
