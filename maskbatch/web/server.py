"""Pages that a program serves on this machine: who may see them, and how they are served.

The address that is printed holds a token that works once; whoever opens it gets a cookie. Any other program, page or person on the machine or
the network is refused: the names under which the server may be addressed are checked (DNS rebinding), and so is where a change comes from
(cross-site requests). Nothing is loaded from elsewhere, and nothing is kept by the browser.
"""

from __future__ import annotations

import contextlib
import hmac
import html
import secrets
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from maskbatch.errors import MissingExtraError, UsageError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-robots-tag", b"noindex"),
)
_SAFE = ("GET", "HEAD")


class Guard:
    """An ASGI application that lets in who has the token, and puts the headers on every answer.

    Args:
        app: what is behind it.
        port: that the server listens on.
        hosts: names under which it may be addressed, besides those of loopback.
        token: None = a new one.
        open_paths: need neither token nor cookie (a health check).
    """

    def __init__(
        self, app: App, port: int, hosts: Iterable[str] = (), token: str | None = None, open_paths: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._hosts = {*LOOPBACK, *(host.lower() for host in hosts)}
        self._port = port
        self._open = frozenset(open_paths)
        self._session = secrets.token_urlsafe(32)
        self._cookie = f"maskbatch_{port}"
        self.token: str | None = token or secrets.token_urlsafe(24)
        """What opens the page; None once it was used."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """See ASGI 3."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_ours(headers.get("host", "")):
            await _answer(send, 421, "This server is addressed by another name.")
            return
        if scope["path"] in self._open:
            await self._app(scope, receive, _with_headers(send))
            return
        if scope["method"] not in _SAFE and not self._same_origin(headers):
            await _answer(send, 403, "This request comes from another page.")
            return
        if self._has_cookie(headers):
            await self._app(scope, receive, _with_headers(send))
            return
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if (
            self.token is not None
            and scope["method"] == "GET"
            and hmac.compare_digest(given.encode(), self.token.encode())
        ):
            self.token = None
            cookie = f"{self._cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(send, 303, "", ((b"location", scope["path"].encode()), (b"set-cookie", cookie.encode())))
            return
        await _answer(
            send, 403, "Open the address that the program printed. It works once; start it again for a new one."
        )

    def _is_ours(self, host: str) -> bool:
        try:
            found = urlsplit(f"//{host}")
            return (found.hostname or "").lower() in self._hosts and found.port in (self._port, None)
        except ValueError:
            return False

    def _same_origin(self, headers: dict[str, str]) -> bool:
        origin = headers.get("origin")
        return (
            origin == f"http://{headers.get('host', '')}"
            and headers.get("sec-fetch-site", "same-origin") == "same-origin"
        )

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        return found is not None and hmac.compare_digest(found.value.encode(), self._session.encode())


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is a free one. Raises UsageError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(f"{host}:{port} cannot be listened on: {getattr(error, 'strerror', None) or error}") from None
    return listening


def address(host: str, port: int, token: str | None) -> str:
    """What a person opens."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    name = f"[{shown}]" if ":" in shown else shown
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def make_server(guarded: App) -> Any:
    """A `uvicorn.Server` for a guarded application: ``server.run(sockets=[…])`` serves until a signal or ``should_exit``.

    Raises:
        MissingExtraError: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("pages need the extra `review`: install it with `uv sync --extra review`") from None

    class Server(uvicorn.Server):
        """Ends at a signal without raising it again, so that what comes after serving is done."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():  # the program's own handlers decide then
                yield
                return
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    config = uvicorn.Config(
        guarded,
        log_level="warning",
        access_log=False,  # addresses may hold tokens
        server_header=False,
        timeout_graceful_shutdown=2,
        lifespan="off",
    )
    return Server(config)


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", [])}
            more = [pair for pair in HEADERS if pair[0] not in names]
            kept = [] if b"cache-control" in names else [(b"cache-control", b"no-store")]
            message = {**message, "headers": [*message.get("headers", []), *more, *kept]}
        await send(message)

    return sent


async def _answer(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    body = f"<!doctype html><meta charset=utf-8><title>maskbatch</title><p>{html.escape(text)}</p>".encode()
    own = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    sent = _with_headers(send)
    await sent({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await sent({"type": "http.response.body", "body": body})
