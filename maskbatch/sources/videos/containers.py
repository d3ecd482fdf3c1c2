"""Opening video files safely: local bytes only, known containers only, and every failure as an `InputError`.

FFmpeg would follow a playlist to other files and to the network. Three locks keep it at the one file: the protocol
allow-list, the demuxer allow-list (no playlists, no ``concat``, no image sequences), and the ``file:`` prefix, without
which a file named ``http:…`` would be taken for an address.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import av.error
from av.stream import Discard

from maskbatch.config import Limits
from maskbatch.errors import InputError
from maskbatch.sources.sniff import SNIFF_BYTES, sniff
from maskbatch.storage import opener
from maskbatch.types import Source

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,dhav,h264,hevc,m4v,mjpeg,ivf,obu,av1,mxf"
"""FFmpeg's names of the containers and raw streams that are read. None of them opens a second file."""

_BUFFER = 1 << 18
"""Bytes per read from a Python file, which is what a video in an object store is."""

_LONG_PROBE = {"probesize": "200000000", "analyzeduration": "120000000"}
"""Bytes and microseconds that FFmpeg looks through for a stream's first image, where its own five seconds do not do."""

RAW_STREAMS = frozenset({"h264", "hevc", "m4v", "mjpeg", "obu", "av1", "mpegvideo"})
"""Containers without time stamps and without an index."""

FREE_CLOCKS = frozenset({"mpegts", "mpeg"})
"""Containers whose clock starts anywhere, so that a time in them says nothing without the time of the first frame."""


class OpenVideo:
    """An open container with its one video stream; a context manager.

    Attributes:
        container: the `av` container; audio and other streams are not read.
        videos: its video streams but for cover images, in the order of the file.
        stream: the one of them that is read: the source's, or the first of which a picture is known.
        number: its place among `videos`.
        format: FFmpeg's name of the container (first of its aliases).
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._file: BinaryIO | None = None
        self.reopen()

    def reopen(self) -> None:
        """Open the file, or start at its beginning once more."""
        self.close()
        try:
            self._look({})
            if not _has_size(self.stream):
                # The first key frame comes late: a recording cut out of a stream. FFmpeg is told to look further.
                self.close()
                self._look(_LONG_PROBE)
                if self._source.stream is None:  # a stream that is announced and never comes hides no other
                    self._take(next((i for i, stream in enumerate(self.videos) if _has_size(stream)), self.number))
            _check(self.stream, self._limits)
        except BaseException:
            self.close()
            raise
        self.format: str = self.container.format.name.split(",")[0]
        for stream in self.container.streams:
            if stream is not self.stream:
                stream.discard = Discard.all
        codec = self.stream.codec_context
        # A worker per core: threads inside a decoder would only fight over the cores, and delay frames.
        codec.thread_count = 1
        codec.options = {"max_pixels": str(self._limits.max_pixels)}  # the size may grow in mid-stream

    def _look(self, probe: dict[str, str]) -> None:
        self.container: Any = self._open(self._source, probe)
        self.videos: list[Any] = [s for s in self.container.streams.video if not _is_cover(s)]
        if not self.videos:
            raise InputError("not_media", "the file holds no video (sound or data only)")
        wanted = self._source.stream or 0
        if wanted >= len(self.videos):
            count = "1 video stream" if len(self.videos) == 1 else f"{len(self.videos)} video streams"
            raise InputError("unsupported", f"there is no video stream {wanted}; the file has {count}, counted from 0")
        self._take(wanted)

    def _take(self, number: int) -> None:
        self.number = number
        self.stream: Any = self.videos[number]
        if self.stream.codec_context is None:
            raise InputError("unsupported", "there is no decoder for the video's codec")

    def _open(self, source: Source, probe: dict[str, str]) -> Any:
        options = {
            "protocol_whitelist": "file",
            "format_whitelist": DEMUXERS,
            # In transport streams: a video whose PID changes with the program map stays one stream.
            "merge_pmt_versions": "1",
            **probe,
        }
        head = opener.read_head(source.path, SNIFF_BYTES)
        if not head:
            raise InputError("empty", "the file is empty (0 bytes)")
        refuse_lists(head)
        if opener.is_url(source.path):
            target: Any = opener.open_binary(source.path)
            self._file = target
        else:
            target = "file:" + os.path.abspath(source.path)  # noqa: PTH100  (a Path would normalise odd names)
            try:
                target.encode()
            except UnicodeEncodeError:  # a name that is not UTF-8 cannot be handed to PyAV
                target = self._file = opener.open_binary(source.path)
        # A raw stream of JPEG images begins as one image does; by itself FFmpeg takes it for that.
        named = source.path.lower().endswith((".mjpg", ".mjpeg"))
        form = "mjpeg" if named and head.startswith(b"\xff\xd8\xff") else None
        with translated(head):
            return av.open(target, format=form, options=options, metadata_errors="replace", buffer_size=_BUFFER)

    def close(self) -> None:
        """Close container and file."""
        container = getattr(self, "container", None)
        if container is not None:
            container.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def refuse_lists(head: bytes) -> None:
    """Refuse files that name other files: playlists, concat lists, session and streaming descriptions."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512]
    low = start.lower()
    if (
        low.startswith((b"#extm3u", b"ffconcat", b"v=0", b"[playlist]", b"<asx", b";ffmetadata"))
        or b"<mpd" in low
        or b"<smoothstreamingmedia" in low
        or low.startswith(b"<?xml")
    ):
        raise InputError("unsupported", "a playlist or a description of other files, not a video; name the files in it")


@contextlib.contextmanager
def translated(head: bytes = b"") -> Iterator[None]:
    """Turn what PyAV raises into an `InputError`. `head`: first bytes of the file, for a better sentence."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("out_of_memory", "not enough memory to open the video") from error
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise as_input_error(error, head) from error
    except OSError as error:
        raise opener.as_input_error(error) from error


def as_input_error(error: BaseException, head: bytes) -> InputError:
    """The row that an error of FFmpeg at opening becomes."""
    kind = sniff(head)
    known = kind.media == "video"
    if isinstance(error, av.error.InvalidDataError | av.error.EOFError | EOFError):
        if kind.key == "mp4" and b"moov" not in head[:SNIFF_BYTES]:
            message = "the index (moov) is missing or broken: the recording was not finished, or the file was cut off"
            return InputError("truncated", message)
        if known:
            return InputError("corrupt", f"begins like {kind.title}, but its headers cannot be read")
        if kind.key in ("unknown", "text"):
            return InputError("not_media", "neither an image nor a video that is known")
        return InputError("unsupported", f"holds {kind.title}, which is not read as a video")
    if isinstance(error, av.error.DecoderNotFoundError | av.error.DemuxerNotFoundError | av.error.PatchWelcomeError):
        return InputError("unsupported", "the video's format is known but there is no decoder for it")
    if isinstance(error, av.error.ArgumentError | ValueError):
        if known:
            return InputError("corrupt", f"begins like {kind.title}, but its headers make no sense")
        return InputError("unsupported", f"holds {kind.title}: a kind of container that is not read")
    if isinstance(error, OSError) and error.errno:
        return opener.as_input_error(error)
    return InputError("corrupt", f"FFmpeg cannot read it: {getattr(error, 'strerror', '') or type(error).__name__}")


def _has_size(stream: Any) -> bool:
    codec = stream.codec_context
    return bool(codec is not None and codec.width and codec.height)


def _is_cover(stream: Any) -> bool:
    disposition = stream.disposition
    return bool(disposition & type(disposition).attached_pic)


def _check(stream: Any, limits: Limits) -> None:
    codec = stream.codec_context
    width, height = codec.width, codec.height
    if width * height > limits.max_pixels:
        message = f"{width}×{height} pixels are more than the {limits.max_pixels:,} that are allowed (--max-pixels)"
        raise InputError("too_large", message)
    if width <= 0 or height <= 0:
        raise InputError("corrupt", "the headers give no size of the image; no frame could be found")


def cut_off(path: str, format_name: str) -> str | None:
    """What the container's own lengths say is missing at its end; None where nothing is, or where it cannot be told.

    ISO media (ISO/IEC 14496-12, 4.2), RIFF and Matroska (RFC 8794, 8) declare how long they are, MPEG transport streams
    (ISO/IEC 13818-1, 2.4.3) consist of whole packets.
    """
    if opener.is_url(path):
        return None
    with open(path, "rb") as file:  # noqa: PTH123
        size = os.fstat(file.fileno()).st_size
        if format_name == "mov":
            wanted = _iso_end(file, size)
        elif format_name == "avi":
            wanted = _riff_end(file, size)
        elif format_name == "matroska":
            wanted = _matroska_end(file)
        elif format_name == "mpegts" and size % 188 and size % 192 and size % 204:
            return "the file ends within a packet"
        else:
            wanted = None
    if wanted is not None and wanted > size:
        return f"the file was cut off: {wanted - size:,} of its {wanted:,} bytes are missing"
    return None


def _iso_end(file: BinaryIO, size: int) -> int | None:
    at = 0
    for _ in range(100_000):
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return None if not header else at + 8
        length = int.from_bytes(header[:4], "big")
        if length == 0:  # to the end of the file
            return None
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isascii():
            return None
        at += length
        if at >= size:
            return at
    return None


def _riff_end(file: BinaryIO, size: int) -> int | None:
    at = 0  # OpenDML files have several RIFF chunks
    for _ in range(10_000):
        file.seek(at)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            return None
        length = int.from_bytes(header[4:8], "little")
        if length == 0:  # never finished; the number of frames tells nothing either
            return None
        at += 8 + length
        if at >= size:
            return at
    return None


def _matroska_end(file: BinaryIO) -> int | None:
    file.seek(0)
    head = file.read(4096)
    body = _ebml_size(head, 4)
    if body is None or body[0] is None:
        return None
    segment = body[1] + body[0]
    if head[segment : segment + 4] != b"\x18\x53\x80\x67":
        return None
    content = _ebml_size(head, segment + 4)
    if content is None or content[0] is None:  # unknown size: a live recording
        return None
    return content[1] + content[0]


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int] | None:
    """A variable-length size (RFC 8794, 4) at `at`: its value (None: unknown) and the offset behind it."""
    if at >= len(data) or not data[at]:
        return None
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length
