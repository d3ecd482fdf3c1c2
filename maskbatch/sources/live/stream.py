"""Opening a camera's stream: the protocols that are allowed, and what comes out of the first one that fits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import av
import av.error

from maskbatch.config import Limits
from maskbatch.errors import InputError
from maskbatch.sources.live.address import Address
from maskbatch.sources.live.http import HttpBody, HttpSource
from maskbatch.sources.videos.containers import DEMUXERS

_RTSP_PROTOCOLS = "rtsp,rtsps,rtp,rtps,srtp,udp,tcp,tls,crypto"
_PROBE = {"probesize": "1000000", "analyzeduration": "2000000"}
"""Bytes and microseconds in which FFmpeg finds out what a stream holds; its own five seconds would be latency."""


class LiveStream:
    """An open stream.

    Args:
        address: of the camera.
        limits: frames with more pixels are refused.
        open_s: seconds in which it must answer.
        stall_s: seconds without a frame after which reading fails.

    Attributes:
        paced: the source gives data as fast as it is read (a playlist, a file behind HTTP), so reading must keep time.
        opened: `time.monotonic()` before the connection was made.
        stamped: its frames have time stamps of their own.

    Raises:
        InputError: what is wrong, without the address.
    """

    def __init__(self, address: Address, limits: Limits, open_s: float = 10.0, stall_s: float = 10.0) -> None:
        self._address = address
        self._limits = limits
        self._http: HttpSource | None = None
        self._stall_s = stall_s
        self._container: Any = None
        self.failed = 0
        self.opened = time.monotonic()
        self.paced = False
        self.stamped = True
        try:
            self._container = self._open(address, (open_s, stall_s))
            streams = self._container.streams.video
            if not streams:
                raise InputError("not_media", "there is no video in it")
            self._stream: Any = streams[0]
            self._stream.thread_type = "NONE"
            self._stream.codec_context.thread_count = 1
        except BaseException as error:
            self.close()
            raise self._as_input_error(error) from None

    def frames(self) -> Iterator[Any]:
        """Decoded frames as they arrive, until the stream ends; undecodable packets are counted in `failed`.

        Raises:
            InputError: the connection is lost, stalls, or gives something else than video.
        """
        last = time.monotonic()
        codec = self._stream.codec_context
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0:
                    break
                try:
                    frames = codec.decode(packet)
                except (av.error.FFmpegError, ValueError):
                    self.failed += 1
                    frames = []
                for frame in frames:
                    if frame.width * frame.height > self._limits.max_pixels:
                        raise InputError("too_large", f"frames of {frame.width}×{frame.height} are over --max-pixels")
                    yield frame
                    last = time.monotonic()
                    self._postpone(last)
                if time.monotonic() - last > self._stall_s:
                    raise InputError("hung", f"data come, but no frame for {self._stall_s:g} s")
        except (OSError, ValueError, EOFError) as error:
            raise self._as_input_error(error) from None

    def close(self) -> None:
        """Close the connection."""
        if self._container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.close()
        if self._http is not None:
            self._http.close()

    def _postpone(self, now: float) -> None:
        if self._http is not None:
            self._http.deadline = now + self._stall_s

    def _open(self, address: Address, timeout: tuple[float, float]) -> Any:
        if address.kind == "rtsp":
            options = {"rtsp_transport": "tcp", "protocol_whitelist": _RTSP_PROTOCOLS, "fflags": "nobuffer", **_PROBE}
            return av.open(address.url, format="rtsp", options=options, timeout=timeout)
        if address.kind == "device":
            return av.open(address.url, format="v4l2", options={"protocol_whitelist": "file"}, timeout=timeout)
        self._http = source = HttpSource(address, timeout[0])
        body = source.open()
        if body.is_playlist:
            body.close()
            self.paced = True

            def opened(url: str, _flags: int, _options: dict[str, str]) -> HttpBody:
                return source.open(url)

            options = {"http_persistent": "0", "http_multiple": "0", "allowed_extensions": "ALL", "max_reload": "1000"}
            return av.open(source.url, format="hls", io_open=opened, options={**options, **_PROBE}, timeout=timeout)
        if body.content_type.startswith("multipart/"):
            self.stamped = False  # FFmpeg makes time stamps up for it
            return av.open(body, format="mpjpeg", options=_PROBE, buffer_size=4096)
        self.paced = True
        container = (
            "mpegts" if body.peek(189)[:189:188] == b"GG" else None
        )  # so that FFmpeg need not guess from a megabyte
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "", **_PROBE}
        return av.open(body, format=container, options=options, buffer_size=8192)

    def _as_input_error(self, error: BaseException) -> InputError:
        if isinstance(error, InputError):
            return error
        if isinstance(error, av.error.ExitError | TimeoutError):
            return InputError("hung", "it does not answer")
        if isinstance(error, PermissionError | av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            device = self._address.kind == "device"
            refused = "this user may not open it" if device else "the camera refuses the user or the password"
            return InputError("permission", refused)
        if isinstance(error, av.error.FFmpegError):
            invalid = isinstance(error, av.error.InvalidDataError)
            return InputError(
                "not_media" if invalid else "io", self._address.without_secrets(error.strerror or str(error))
            )
        if isinstance(error, OSError):
            reason = getattr(error, "reason", None)
            text = getattr(reason, "strerror", None) or error.strerror or str(reason or error)
            return InputError("io", self._address.without_secrets(text))
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        return InputError("internal", f"unexpected {type(error).__name__} while reading")
