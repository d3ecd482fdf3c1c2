"""What a file holds, by its first bytes.

Only the formats that a scan meets or has to name in a message are told apart. ``media`` of a format that is neither a
image nor a video is None.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskbatch.types import Media

SNIFF_BYTES = 4096
"""How much of a file `sniff` wants to see; MPEG transport streams need three packets in a row."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A format: short key, whether it is an image or a video, and what a person calls it (with article)."""

    key: str
    media: Media | None
    title: str


_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"\xff\xd8\xff", Kind("jpeg", "image", "a JPEG image")),
    (b"\x89PNG\r\n\x1a\n", Kind("png", "image", "a PNG image")),
    (b"GIF87a", Kind("gif", "image", "a GIF image")),
    (b"GIF89a", Kind("gif", "image", "a GIF image")),
    (b"II*\x00", Kind("tiff", "image", "a TIFF image")),
    (b"MM\x00*", Kind("tiff", "image", "a TIFF image")),
    (b"II+\x00", Kind("tiff", "image", "a BigTIFF image")),
    (b"MM\x00+", Kind("tiff", "image", "a BigTIFF image")),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Kind("jpeg2000", "image", "a JPEG 2000 image")),
    (b"\xff\x4f\xff\x51", Kind("jpeg2000", "image", "a JPEG 2000 image")),
    (b"qoif", Kind("qoi", "image", "a QOI image")),
    (b"farbfeld", Kind("farbfeld", "image", "a farbfeld image")),
    (b"v/1\x01", Kind("exr", "image", "an OpenEXR image")),
    (b"#?RADIANCE", Kind("hdr", "image", "a Radiance HDR image")),
    (b"#?RGBE", Kind("hdr", "image", "a Radiance HDR image")),
    (b"8BPS", Kind("psd", "image", "a Photoshop document")),
    (b"\xff\x0a", Kind("jxl", "image", "a JPEG XL image")),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", Kind("jxl", "image", "a JPEG XL image")),
    (b"\x1aE\xdf\xa3", Kind("matroska", "video", "a Matroska or WebM video")),
    (b"FLV\x01", Kind("flv", "video", "an FLV video")),
    (b"\x00\x00\x01\xba", Kind("mpegps", "video", "an MPEG video")),
    (b"\x00\x00\x01\xb3", Kind("mpegvideo", "video", "an MPEG video")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind("asf", "video", "a Windows Media video")),
    (b"OggS", Kind("ogg", "video", "an Ogg file")),
    (b"DHAV", Kind("dhav", "video", "a Dahua video")),
    (b"IMKH", Kind("mpegps", "video", "a Hikvision video")),  # 40 bytes, then an MPEG program stream
    (b"\x00\x00\x00\x01\x67", Kind("h264", "video", "a raw H.264 stream")),
    (b"\x00\x00\x00\x01\x40\x01", Kind("hevc", "video", "a raw H.265 stream")),
    (b"%PDF-", Kind("pdf", None, "a PDF document")),
    (b"%!PS", Kind("postscript", None, "a PostScript document")),
    (b"PK\x03\x04", Kind("zip", None, "a ZIP archive")),
    (b"PK\x05\x06", Kind("zip", None, "a ZIP archive")),
    (b"\x1f\x8b", Kind("gzip", None, "a gzip archive")),
    (b"BZh", Kind("bzip2", None, "a bzip2 archive")),
    (b"\xfd7zXZ\x00", Kind("xz", None, "an xz archive")),
    (b"7z\xbc\xaf\x27\x1c", Kind("7z", None, "a 7-Zip archive")),
    (b"Rar!\x1a\x07", Kind("rar", None, "a RAR archive")),
    (b"\x7fELF", Kind("elf", None, "a program")),
    (b"PAR1", Kind("parquet", None, "a Parquet file")),
    (b"#EXTM3U", Kind("m3u", None, "a playlist")),
)

_BOX_TYPES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"moof", b"styp")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_MP4 = Kind("mp4", "video", "an MP4 or QuickTime video")
_UNKNOWN = Kind("unknown", None, "data of no format that we know")


def sniff(head: bytes) -> Kind:
    """Name the format that `head`, the first bytes of a file (`SNIFF_BYTES` suffice), belongs to.

    Never raises; what is not recognised has the key ``unknown`` (or ``text``) and no media.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    riff = _riff(head)
    if riff is not None:
        return riff
    box = head[4:8]
    if box == b"ftyp":
        return _ftyp(head)
    if box in _BOX_TYPES:
        return _MP4
    if head[:2] == b"BM" and len(head) >= 18 and head[14:18] in _BMP_HEADER_SIZES:
        return Kind("bmp", "image", "a BMP image")
    if (
        len(head) >= 40
        and head[:4] in _DIB_HEADER_SIZES
        and head[12:14] == b"\1\0"
        and head[14] in _DIB_BITS
        and not head[15]
    ):
        return Kind("dib", "image", "a BMP image without its file header")
    if head[:4] == b"\x00\x00\x01\x00" and len(head) >= 6 and 0 < head[4] + 256 * head[5] < 256:
        return Kind("ico", "image", "an icon")
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b" ", b"\t", b"\n", b"\r", b"#"):
        return Kind("ppm", "image", "a PNM image")
    if len(head) > 2 * 188 and head[0] == head[188] == head[376] == 0x47:
        return Kind("mpegts", "video", "an MPEG transport stream")
    if len(head) > 4 + 2 * 192 and head[4] == head[196] == head[388] == 0x47:
        return Kind("mpegts", "video", "an MPEG transport stream")
    if _is_text(head):
        return Kind("text", None, "text")
    return _UNKNOWN


_BMP_HEADER_SIZES = tuple(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))
_DIB_HEADER_SIZES = _BMP_HEADER_SIZES[2:]
_DIB_BITS = (1, 4, 8, 16, 24, 32)


def _riff(head: bytes) -> Kind | None:
    if head[:4] != b"RIFF":
        return None
    if head[8:12] == b"WEBP":
        return Kind("webp", "image", "a WebP image")
    if head[8:12] == b"AVI ":
        return Kind("avi", "video", "an AVI video")
    return None


def _ftyp(head: bytes) -> Kind:
    """ISO base media files: the brands (ISO/IEC 14496-12, 4.3) tell still images from videos."""
    size = min(max(int.from_bytes(head[:4], "big"), 16), 256)
    major = head[8:12]
    brands = [major, *(head[at : at + 4] for at in range(16, size, 4))]
    # `msf1`/`avis` files are image sequences with a still image in front; a video proper has none of these as its major.
    if major in _AVIF_BRANDS or (major in _HEIF_BRANDS and any(brand in _AVIF_BRANDS for brand in brands)):
        return Kind("avif", "image", "an AVIF image")
    if major in _HEIF_BRANDS:
        return Kind("heif", "image", "a HEIC image")
    return _MP4


def _is_text(head: bytes) -> bool:
    sample = head[:512]
    if not sample:
        return False
    control = sum(byte < 9 or 13 < byte < 32 for byte in sample)
    return control == 0
