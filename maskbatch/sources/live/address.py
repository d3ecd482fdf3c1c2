"""Addresses of cameras. What is secret in one is only ever handed to the connection itself, never to a text that a person reads."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from maskbatch.errors import UsageError

Kind = Literal["rtsp", "http", "device", "folder"]

_SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}
_DEVICE = re.compile(r"/dev/video\d+")
_SECRET_WORDS = re.compile(r"(?i)((?:pass(?:word|wd)?|pwd|token|secret|key|auth)[=:])[^/&_?]*")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where frames come from.

    Attributes:
        url: with user name and password, if it has any; never shown.
        kind: how it is read.
        shown: the same for people: without password, and without the query, in which many cameras take it.
    """

    url: str = field(repr=False)
    kind: Kind
    shown: str

    @property
    def host(self) -> str:
        """Name of the host in small letters; empty for a device or a folder."""
        return (urlsplit(self.url).hostname or "").lower() if self.kind in ("rtsp", "http") else ""

    def without_secrets(self, text: str) -> str:
        """`text` (of an error) with this address, and the secrets in it, taken out."""
        text = text.replace(self.url, self.shown)
        for secret in _secrets(self.url):
            text = text.replace(secret, "***")
        return text


def parse_address(text: str) -> Address:
    """The address of a camera; ``${NAME}`` stands for a variable of the environment.

    Raises:
        UsageError: not an address that is read; its message has no secret in it.
    """
    url = _VARIABLE.sub(_variable, text.strip())
    if _DEVICE.fullmatch(url):
        return Address(url, "device", url)
    if "://" not in url and not url.lower().startswith("file:"):
        if not url or not os.path.isdir(url):  # noqa: PTH112  (an address is text)
            raise UsageError(
                f"{_masked(url) or 'an empty source'} is neither an address (rtsp://, http://, /dev/video0) nor a folder"
            )
        return Address(url, "folder", url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(
            f"the address {_masked(url)} cannot be read; write rtsp://user:password@host:554/path"
        ) from None
    kind = _SCHEMES.get(parts.scheme.lower())
    if kind is None:
        raise UsageError(f"{_masked(url)}: {parts.scheme}: is not read as a camera; rtsp, rtsps, http and https are")
    if not parts.hostname or any(ord(c) < 33 for c in url):
        raise UsageError(f"the address {_masked(url)} names no host, or has spaces in it")
    return Address(url, kind, _shown(parts, port))


def _variable(match: re.Match[str]) -> str:
    value = os.environ.get(match[1])
    if value is None:
        raise UsageError(f"an address names the variable {match[1]}, which is not set in the environment")
    return value


def _shown(parts: SplitResult, port: int | None) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    place = f"{host}:{port}" if port else host
    path = _SECRET_WORDS.sub(r"\1***", parts.path)
    return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{place}{path}{'?***' if parts.query else ''}"


def _masked(url: str) -> str:
    """Something to name a bad address by, with whatever may be a secret cut off."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return _SECRET_WORDS.sub(r"\1***", url)
    rest = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}://{_SECRET_WORDS.sub(chr(92) + '1***', rest)}"


def _secrets(url: str) -> list[str]:
    """What must not be shown, the longest first."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    found = {parts.query, parts.password or "", unquote(parts.password or "")}
    if "@" in parts.netloc:
        found.add(parts.netloc.rpartition("@")[0])
    for pair in parts.query.split("&"):
        value = pair.partition("=")[2]
        if _SECRET_WORDS.match(pair) or len(value) > 3:  # short ones are numbers of channels, and would spoil any text
            found |= {value, unquote(value)}
    found |= {m[0].partition(m[1])[2] for m in _SECRET_WORDS.finditer(parts.path)}
    return sorted(filter(None, found), key=len, reverse=True)
