"""HTTP for cameras: a playlist, and what FFmpeg asks for while it follows one, come from here and from the camera's own host only.

FFmpeg would follow a playlist to any host and to local files, and knows no rule against it. Every address that it wants to open is
therefore opened by Python: same scheme family, same host, redirects included, with a deadline on every read.
"""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from maskbatch.sources.live.address import Address

MAX_PLAYLIST = 4 << 20
_PLAYLIST_TYPES = ("application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl")
_AGENT = "maskbatch"


class RefusedAddressError(OSError):
    """A playlist or a redirect named an address that is not the camera's own."""


class _OwnHostRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self._check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class HttpSource:
    """Opens what belongs to one camera.

    Args:
        address: of the camera, kind ``http``.
        timeout_s: for connecting, and for each read.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        parts = urlsplit(address.url)
        self.host = address.host
        self.url = _without_user(address.url)
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self._bodies: list[HttpBody] = []
        passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
        handlers: list[Any] = [
            urllib.request.ProxyHandler({}),
            _OwnHostRedirects(self.check),
        ]
        if parts.username is not None:
            user, password = (urllib.parse.unquote(text or "") for text in (parts.username, parts.password))
            root = f"{parts.scheme}://{self.host}"
            passwords.add_password(None, [self.url, root], user, password, is_authenticated=False)
            handlers += [
                urllib.request.HTTPBasicAuthHandler(passwords),
                urllib.request.HTTPDigestAuthHandler(passwords),
            ]
        self._opener = urllib.request.build_opener(*handlers)

    def check(self, url: str) -> None:
        """Raises RefusedAddressError unless the address is HTTP on the camera's own host."""
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https"):
            raise RefusedAddressError(f"it names a {parts.scheme or 'local'}: address, which is refused")
        if (parts.hostname or "").lower() != self.host:
            raise RefusedAddressError("it names media on another host, which is refused")

    def open(self, url: str | None = None) -> HttpBody:
        """Open an address, by default the camera's own; raises OSError."""
        url = urljoin(self.url, url) if url is not None else self.url
        self.check(url)
        try:
            response = self._opener.open(
                urllib.request.Request(url, headers={"User-Agent": _AGENT}), timeout=self.timeout_s
            )
        except urllib.error.HTTPError as error:
            code = error.code
            error.close()
            kind = PermissionError if code in (401, 403) else OSError
            raise kind(f"the server answers {code} {http.client.responses.get(code, '')}".rstrip()) from None
        except http.client.HTTPException as error:
            raise OSError(f"the server does not answer as HTTP ({type(error).__name__})") from None
        body = HttpBody(self, response)
        self._bodies = [other for other in self._bodies if not other.closed]
        self._bodies.append(body)
        return body

    def close(self) -> None:
        """Close all that is open."""
        for body in self._bodies:
            body.close()
        self._bodies = []


class HttpBody(io.RawIOBase):
    """The body of an answer, read as it arrives, until the source's deadline."""

    def __init__(self, source: HttpSource, response: Any) -> None:
        super().__init__()
        self._source = source
        self._response: Any = response
        self._ahead = b""
        self.content_type = response.headers.get_content_type().lower()

    def peek(self, count: int) -> bytes:
        """The first bytes, which stay to be read."""
        while len(self._ahead) < count:
            more = self._receive(count - len(self._ahead))
            if not more:
                break
            self._ahead += more
        return self._ahead[:count]

    @property
    def is_playlist(self) -> bool:
        """Whether this is an HLS playlist."""
        if self.content_type.startswith("multipart/"):
            return False
        return self.content_type in _PLAYLIST_TYPES or self.peek(7) == b"#EXTM3U"

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes; raises TimeoutError when the source's deadline has passed."""
        if self._ahead:
            data, self._ahead = self._ahead[:count], self._ahead[count:]
            return data
        return self._receive(count if count > 0 else 1 << 16)

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self._response.close()
        super().close()

    def _receive(self, count: int) -> bytes:
        if time.monotonic() > self._source.deadline:
            raise TimeoutError("no frame has come for too long")
        try:
            return bytes(self._response.read1(count))
        except http.client.HTTPException as error:
            raise OSError(f"the answer breaks off ({type(error).__name__})") from None


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, ""))
