from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import features

from maskbatch.errors import INPUT_ERROR_CODES, InputError
from maskbatch.sources.images.decode import decode_image, upright
from maskbatch.types import Frame

MAX_PIXELS = 250_000_000


def decode(data: bytes, cover: int = 0) -> Frame:
    return decode_image(data, cover=cover, max_pixels=MAX_PIXELS)


def jpeg_bytes(bgr: np.ndarray, quality: int = 95) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(bgr), quality=quality, colorspace="BGR")


def saved(bgr: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(bgr[:, :, ::-1])).save(buffer, kind, **options)
    return buffer.getvalue()


def exif_block(orientation: int) -> bytes:
    exif = Pillow.Exif()
    exif[274] = orientation
    return exif.tobytes()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.fixture(scope="module")
def photo(face_photo: np.ndarray) -> np.ndarray:
    """Not square, so that a wrong turn shows."""
    return np.ascontiguousarray(face_photo[:320])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
        ("JPEG2000", {"irreversible": False}),
        ("QOI", {}),
    ],
)
def test_lossless_formats_give_the_very_pixels(photo: np.ndarray, kind: str, options: dict[str, object]) -> None:
    frame = decode(saved(photo, kind, **options))
    assert np.array_equal(frame.image, photo)
    assert (frame.width, frame.height) == (512, 320)
    assert frame.load_full() is frame.image
    assert frame.problem is None
    assert frame.scale == 1.0


@pytest.mark.parametrize(("kind", "limit"), [("JPEG", 3.0), ("WEBP", 4.0), ("AVIF", 4.0)])
def test_lossy_formats_give_nearly_the_pixels(photo: np.ndarray, kind: str, limit: float) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this build of Pillow has no AVIF")
    frame = decode(saved(photo, kind, quality=90))
    assert difference(frame.image, photo) < limit


def test_heic_is_read_where_pi_heif_is_installed_and_named_where_not(photo: np.ndarray) -> None:
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    with pytest.raises(InputError) as caught:
        decode(head + bytes(100))
    assert caught.value.code in ("corrupt", "truncated", "unsupported")
    assert "HEIC" in caught.value.message


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(photo: np.ndarray, kind: str, orientation: int) -> None:
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    # How the camera would have stored the picture that is to be seen upright.
    stored = {
        1: photo,
        2: photo[:, ::-1],
        3: photo[::-1, ::-1],
        4: photo[::-1],
        5: photo.transpose(1, 0, 2),
        6: np.rot90(photo, 1),
        7: np.rot90(photo, 1)[:, ::-1].transpose(1, 0, 2)[::-1].transpose(1, 0, 2),
        8: np.rot90(photo, -1),
    }[orientation]
    if orientation == 7:
        stored = photo[::-1, ::-1].transpose(1, 0, 2)
    frame = decode(saved(stored, kind, exif=exif_block(orientation), **options))
    assert (frame.width, frame.height) == (512, 320)
    assert difference(frame.image, photo) < 3


def test_all_turns_are_those_of_pillow(photo: np.ndarray) -> None:
    from PIL import ImageOps

    for orientation in range(1, 9):
        still = Pillow.fromarray(photo)
        still.getexif()[274] = orientation
        expected = np.asarray(ImageOps.exif_transpose(still))
        assert np.array_equal(upright(photo, orientation), expected), orientation


def test_orientation_corpus_shows_every_variant_alike(shared_dir: object) -> None:
    folder = shared_dir / "data/media_corpus/exif-orientation"  # type: ignore[operator]
    for name in ("Landscape", "Portrait"):
        small = [
            cv2.resize(decode((folder / f"{name}_{index}.jpg").read_bytes()).image, (90, 90)) for index in range(1, 9)
        ]
        # The pictures carry their number, so they differ a little.
        assert max(difference(small[0], other) for other in small[1:]) < 12


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_png_of_8_and_16_bits_with_and_without_alpha(photo: np.ndarray, bits: int, alpha: bool) -> None:
    stored = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]) if alpha else photo
    if bits == 16:
        stored = stored.astype(np.uint16) * 257
    data = cv2.imencode(".png", stored)[1].tobytes()
    assert np.array_equal(decode(data).image, photo)


def test_transparent_pixels_lie_on_white(photo: np.ndarray) -> None:
    alpha = np.full(photo.shape[:2], 255, np.uint8)
    alpha[:100] = 0
    alpha[100:200] = 128
    image = decode(cv2.imencode(".png", np.dstack([photo, alpha]))[1].tobytes()).image
    assert (image[:100] == 255).all()
    assert np.abs(image[100:200].astype(int) - (photo[100:200].astype(int) * 128 + 255 * 127) / 255).max() <= 1
    assert np.array_equal(image[200:], photo[200:])


def test_16_bit_grey_keeps_the_upper_bits(photo: np.ndarray) -> None:
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    for extension in (".png", ".tiff"):
        image = decode(cv2.imencode(extension, grey.astype(np.uint16) * 257)[1].tobytes()).image
        assert np.array_equal(image, np.dstack([grey] * 3))


def test_grey_jpeg_and_palette_png(photo: np.ndarray) -> None:
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    data = simplejpeg.encode_jpeg(grey[:, :, None], quality=95, colorspace="GRAY")
    assert difference(decode(data).image, np.dstack([grey] * 3)) < 2
    palette = Pillow.fromarray(photo[:, :, ::-1]).quantize(64)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    expected = np.asarray(palette.convert("RGB"))[:, :, ::-1]
    assert np.array_equal(decode(buffer.getvalue()).image, expected)


def test_cmyk_jpeg_has_the_colours_of_the_photo(photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(photo[:, :, ::-1]).convert("CMYK").save(buffer, "JPEG", quality=95)
    frame = decode(buffer.getvalue())
    assert difference(frame.image, photo) < 4
    inverted = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\0"
    assert inverted[:9] in buffer.getvalue()


def test_large_jpeg_is_decoded_small_and_in_full_on_demand(face_photo: np.ndarray) -> None:
    large = cv2.resize(face_photo[:384], (4096, 3072), interpolation=cv2.INTER_CUBIC)
    data = jpeg_bytes(large, 85)
    frame = decode(data, cover=640)
    assert frame.image.shape == (768, 1024, 3)
    assert (frame.width, frame.height, frame.scale) == (4096, 3072, 0.25)
    assert difference(frame.image, cv2.resize(large, (1024, 768), interpolation=cv2.INTER_AREA)) < 2
    full = frame.load_full()
    assert full.shape == (3072, 4096, 3)
    assert frame.load_full() is full
    assert decode(data, cover=512).image.shape == (384, 512, 3)
    assert decode(data, cover=1025).image.shape == (3072, 4096, 3)


def test_reduced_jpeg_is_turned_too(face_photo: np.ndarray) -> None:
    large = cv2.resize(face_photo[:256], (4001, 2003))
    frame = decode(saved(large, "JPEG", exif=exif_block(6)), cover=640)
    assert (frame.width, frame.height) == (2003, 4001)
    assert frame.image.shape == (1001, 501, 3)
    assert frame.load_full().shape == (4001, 2003, 3)


def animation(photo: np.ndarray, kind: str) -> bytes:
    frames = [Pillow.fromarray(np.ascontiguousarray(np.roll(photo, 40 * i, axis=1)[:, :, ::-1])) for i in range(3)]
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame_and_say_so(photo: np.ndarray, kind: str) -> None:
    frame = decode(animation(photo, kind))
    assert difference(frame.image, photo) < 12
    assert frame.problem is not None
    assert (frame.problem.status, frame.problem.error, frame.problem.frames_left) == ("partial", "unsupported", 2)
    assert frame.problem.message == "the first of 3 frames of an animation; the others were not read"


def test_truncated_jpeg_is_partial_or_an_error_at_every_length(photo: np.ndarray) -> None:
    data = jpeg_bytes(photo)
    partial = 0
    codes = set()
    for length in [*range(1, 700, 23), *range(700, len(data) - 2, len(data) // 40)]:
        try:
            frame = decode(data[:length])
        except InputError as error:
            codes.add(error.code)
            continue
        partial += 1
        assert frame.problem is not None, length
        assert (frame.problem.status, frame.problem.error) == ("partial", "truncated")
    assert partial > 30
    assert codes == {"truncated", "not_media"}
    frame = decode(data[: len(data) // 2])
    assert difference(frame.image[:80], photo[:80]) < 4
    # Nothing of the lower part was stored: grey, and the same grey each time.
    assert frame.image[-40:].std() < 1
    assert np.array_equal(frame.image, decode(data[: len(data) // 2]).image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_truncated_pictures_of_other_formats_keep_what_was_decoded(photo: np.ndarray, kind: str) -> None:
    data = saved(photo, kind, **({"interlace": 0} if kind == "GIF" else {}))
    frame = decode(data[: len(data) * 2 // 3])
    assert frame.problem is not None
    assert frame.problem.status == "partial"
    bottom_first = kind == "BMP"
    image, expected = (frame.image[::-1], photo[::-1]) if bottom_first else (frame.image, photo)
    assert difference(image[:100], expected[:100]) < 15
    assert (image[-20:] == image[-1, -1]).all()


def test_jpeg_damaged_in_the_middle_is_partial(photo: np.ndarray) -> None:
    # JPEG has no checksum: damage is noticed where it makes an impossible code, as a stray marker does.
    data = bytearray(jpeg_bytes(photo))
    middle = len(data) // 2
    data[middle : middle + 300] = bytes([0xFF, 0xC4, 0x55]) * 100
    frame = decode(bytes(data))
    assert frame.problem is not None
    assert (frame.problem.status, frame.problem.error) == ("partial", "corrupt")


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def header_only(kind: str, width: int, height: int) -> bytes:
    if kind == "png":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + png_chunk(b"IHDR", header)
            + png_chunk(b"IDAT", zlib.compress(bytes(100)))
            + png_chunk(b"IEND", b"")
        )
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00\x00\x00\x2c" + bytes(20)
    if kind == "bmp":
        return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    if kind == "webp":
        canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    data = bytearray(jpeg_bytes(np.zeros((8, 8, 3), np.uint8)))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "gif", "bmp", "webp", "jpeg"])
def test_too_many_pixels_are_refused_by_the_header(kind: str) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        decode(header_only(kind, 60_000, 60_000))
    assert caught.value.code == "too_large"
    assert "60000×60000" in caught.value.message
    assert "--max-pixels" in caught.value.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_the_limit_is_the_callers_not_a_librarys(photo: np.ndarray) -> None:
    data = saved(photo, "PNG")
    assert decode_image(data, cover=0, max_pixels=512 * 320).width == 512
    with pytest.raises(InputError, match=r"more than the 163,839 of --max-pixels"):
        decode_image(data, cover=0, max_pixels=512 * 320 - 1)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "empty", "empty"),
        (b"hello, this is a text\n", "not_media", "text"),
        (b"PK\x03\x04" + bytes(60), "not_media", "ZIP"),
        (b"\0\0\0\x18ftypmp42" + bytes(60), "not_media", "MP4"),
        (b"%PDF-1.7\n", "not_media", "PDF"),
        (b"v/1\x01" + bytes(60), "unsupported", "OpenEXR"),
        (b"8BPS" + bytes(60), "unsupported", "Photoshop"),
        (b"\xff\xd8\xff", "truncated", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "corrupt", "PNG"),
        (bytes(2000), "not_media", "no format"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, code: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        decode(data)
    assert caught.value.code == code
    assert words in caught.value.message


def test_mislabelled_pictures_are_read_by_their_bytes(photo: np.ndarray) -> None:
    # No name is passed at all: a PNG called .jpg decodes like any other.
    assert decode(saved(photo, "PNG")).width == decode(jpeg_bytes(photo)).width


def test_corpus_gives_frames_or_reasons(shared_dir: object) -> None:
    files = sorted(path for path in (shared_dir / "data/media_corpus").rglob("*") if path.is_file())  # type: ignore[operator]
    assert len(files) > 450
    frames = 0
    refused: list[tuple[str, str]] = []
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                frame = decode(path.read_bytes(), cover=640)
            except InputError as error:
                refused.append((error.code, error.message))
                continue
        frames += 1
        assert frame.image.dtype == np.uint8, path
        assert frame.image.ndim == 3, path
        assert frame.image.shape[2] == 3, path
        assert frame.image.flags.c_contiguous, path
        assert frame.load_full().shape == (frame.height, frame.width, 3), path
    assert frames > 300
    assert {code for code, _ in refused} <= set(INPUT_ERROR_CODES) - {"internal"}
    assert all(len(message) > 10 for _, message in refused)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM", "JPEG2000"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=12),
    keep=st.floats(0.02, 1.0),
)
def test_flipped_bits_and_cuts_never_escape_as_other_errors(
    kind: str, flips: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(_SMALL[kind])
    for position, bit in flips:
        data[int(position * len(data))] ^= 1 << bit
    with contextlib.suppress(InputError):
        frame = decode_image(bytes(data[: max(1, int(keep * len(data)))]), cover=64, max_pixels=4_000_000)
        assert frame.load_full().shape == (frame.height, frame.width, 3)


def _small_pictures() -> dict[str, bytes]:
    rows, columns = np.mgrid[0:72, 0:96]
    picture = np.dstack([rows * 3, columns * 2, (rows * columns) % 256]).astype(np.uint8)
    kinds = ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"]
    pictures = {kind: saved(picture, kind) for kind in kinds}
    pictures["AVIF"] = saved(picture, "AVIF") if features.check("avif") else pictures["PNG"]
    return pictures


_SMALL = _small_pictures()
