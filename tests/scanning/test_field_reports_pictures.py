"""What went wrong in public reports on other tools, on pictures, lists and the command line: each kind with the right outcome."""

from __future__ import annotations

import errno
import io
import multiprocessing.heap
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx_maker
import pytest
import simplejpeg
from PIL import Image as PillowImage
from PIL import PngImagePlugin
from red_squares import write_archive

import maskbatch
from maskbatch.errors import InputError, ModelError, UsageError, WorkerError
from maskbatch.jobs.executors import warm_pool
from maskbatch.sources.discovery.discover import discover
from maskbatch.sources.images.decode import decode_image
from maskbatch.tasks.mask import LABELS
from maskbatch.types import Frame

LIMIT = 100_000_000


def decode(data: bytes) -> Frame:
    return decode_image(data, cover=0, max_pixels=LIMIT)


@pytest.fixture
def image() -> npt.NDArray[np.uint8]:
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    return np.stack(np.broadcast_arrays(ramp[None, :], ramp[:64, None], np.uint8(90)), axis=2).copy()


def open_exr(linear: npt.NDArray[np.float32]) -> bytes:
    """An uncompressed OpenEXR file of one part, written by its specification (openexr.com, "OpenEXR File Layout").

    Args:
        linear: H×W×3 float32, B, G, R.
    """
    height, width = linear.shape[:2]
    channels = b"".join(name + b"\0" + struct.pack("<iB3xii", 2, 0, 1, 1) for name in (b"B", b"G", b"R")) + b"\0"
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = [
        (b"channels", b"chlist", channels),
        (b"compression", b"compression", b"\0"),
        (b"dataWindow", b"box2i", window),
        (b"displayWindow", b"box2i", window),
        (b"lineOrder", b"lineOrder", b"\0"),
        (b"pixelAspectRatio", b"float", struct.pack("<f", 1)),
        (b"screenWindowCenter", b"v2f", bytes(8)),
        (b"screenWindowWidth", b"float", struct.pack("<f", 1)),
    ]
    head = b"v/1\x01" + struct.pack("<i", 2)
    head += b"".join(
        name + b"\0" + kind + b"\0" + struct.pack("<i", len(body)) + body for name, kind, body in attributes
    )
    head += b"\0"
    rows = [struct.pack("<ii", y, 12 * width) + linear[y].T.tobytes() for y in range(height)]
    at, offsets = len(head) + 8 * height, b""
    for row in rows:
        offsets += struct.pack("<Q", at)
        at += len(row)
    return head + offsets + b"".join(rows)


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def scan(paths: Any, out: Path, red_model: Path, **more: Any) -> tuple[maskbatch.ScanSummary, list[dict[str, Any]]]:
    options = {"detector": f"red:{red_model}", "device": "cpu", "executor": "inline", "det_size": 320, **more}
    summary = maskbatch.scan(paths, out, **options)
    rows: list[dict[str, Any]] = maskbatch.read_inputs(out).to_dict("records")
    return summary, rows


# A library's warning is not damage.


@pytest.mark.parametrize("junk", ["bad profile", "bytes before a table", "profile in part"])
def test_a_warning_about_the_header_is_a_remark(image: npt.NDArray[np.uint8], junk: str) -> None:
    jpeg = simplejpeg.encode_jpeg(image, 95, "BGR")
    if junk == "bad profile":
        odd = with_segment(jpeg, 0xE2, b"ICC_PROFILE\0\x00\x05" + b"x" * 40)
    elif junk == "profile in part":
        odd = with_segment(jpeg, 0xE2, b"ICC_PROFILE\0\x01\x03" + b"x" * 40)
    else:
        at = jpeg.index(b"\xff\xdb")
        odd = jpeg[:at] + b"\x01\x02\x03" + jpeg[at:]
    frame = decode(odd)
    assert np.array_equal(frame.image, decode(jpeg).image)
    assert frame.problem is None or frame.problem.status == "ok"


def test_damage_in_the_pixels_is_still_damage(image: npt.NDArray[np.uint8]) -> None:
    jpeg = simplejpeg.encode_jpeg(image, 95, "BGR")
    frame = decode(with_segment(jpeg[: len(jpeg) * 2 // 3], 0xE2, b"ICC_PROFILE\0\x00\x05" + b"x" * 40))
    assert frame.problem is not None
    assert (frame.problem.status, frame.problem.error) == ("partial", "truncated")


def test_a_png_with_more_text_than_is_read_keeps_its_pixels(image: npt.NDArray[np.uint8]) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * 3_000_000, zip=True)
    file = io.BytesIO()
    PillowImage.fromarray(image[:, :, ::-1]).save(file, "PNG", pnginfo=text)
    frame = decode(file.getvalue())
    assert np.array_equal(frame.image, image)
    assert frame.problem is None or frame.problem.status == "ok"


def test_a_tiff_of_another_compression_is_unsupported_not_corrupt(image: npt.NDArray[np.uint8]) -> None:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "TIFF", compression="tiff_deflate")
    data = bytearray(file.getvalue())
    at = data.index((259).to_bytes(2, "little") + b"\3\0\1\0\0\0")
    data[at + 8 : at + 10] = (34712).to_bytes(2, "little")
    with pytest.raises(InputError, match="JPEG 2000") as caught:
        decode(bytes(data))
    assert caught.value.code == "unsupported"


def test_a_bitmap_without_its_file_header_is_read(image: npt.NDArray[np.uint8]) -> None:
    file = io.BytesIO()
    PillowImage.fromarray(image[:, :, ::-1]).save(file, "DIB")
    assert np.array_equal(decode(file.getvalue()).image, image)


@pytest.mark.parametrize("kind", ["hdr", "exr"])
def test_formats_of_the_second_reader_alone_are_read(image: npt.NDArray[np.uint8], kind: str) -> None:
    linear = (image / 255.0).astype(np.float32) ** 2.2
    data = cv2.imencode(".hdr", linear)[1].tobytes() if kind == "hdr" else open_exr(linear)
    frame = decode(data)
    assert frame.problem is not None
    assert (frame.problem.status, frame.problem.message) == ("ok", "decoded by FFmpeg")
    assert np.abs(frame.image.astype(int) - image).mean() < 3


def test_what_only_the_second_reader_decodes_is_partial(image: npt.NDArray[np.uint8]) -> None:
    data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 90])[1].tobytes()
    frame = decode(data[:-40] + bytes(20) + data[-20:])
    assert frame.image.shape == image.shape
    assert frame.problem is not None
    assert (frame.problem.status, frame.problem.error) == ("partial", "corrupt")
    assert "parts may be missing" in frame.problem.message
    with pytest.raises(InputError) as caught:
        decode_image(cv2.imencode(".hdr", image.astype(np.float32))[1].tobytes(), cover=0, max_pixels=100)
    assert caught.value.code == "too_large"


def test_no_library_writes_to_standard_error(image: npt.NDArray[np.uint8], capfd: pytest.CaptureFixture[str]) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    PillowImage.fromarray(noise).save(file, "TIFF", compression="tiff_lzw")
    data = file.getvalue()
    with pytest.raises(InputError):
        decode(data[:4000] + bytes(64) + data[4064:])
    assert capfd.readouterr().err == ""


# Known loss is told.


@pytest.mark.parametrize("bits", [10, 12])
def test_bits_that_lie_low_are_not_black(image: npt.NDArray[np.uint8], bits: int) -> None:
    grey = image[:, :, 0].astype(np.uint16) << (bits - 8)
    frame = decode(cv2.imencode(".png", grey)[1].tobytes())
    assert np.array_equal(frame.image[:, :, 0], image[:, :, 0])
    assert frame.problem is not None
    assert f"{bits} are used" in frame.problem.message


def test_alpha_that_hides_all_is_ignored_and_said(image: npt.NDArray[np.uint8]) -> None:
    hidden = np.dstack([image, np.zeros(image.shape[:2], np.uint8)])
    frame = decode(cv2.imencode(".png", hidden)[1].tobytes())
    assert np.array_equal(frame.image, image)
    assert frame.problem is not None
    assert "alpha" in frame.problem.message


def test_pages_that_are_left_out_are_counted(image: npt.NDArray[np.uint8], red_model: Path, tmp_path: Path) -> None:
    pages = [PillowImage.fromarray(np.roll(image, shift, 0)) for shift in (0, 9, 20)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in/fax.tif", save_all=True, append_images=pages[1:])
    summary, rows = scan(tmp_path / "in", tmp_path / "r.parquet", red_model)
    assert (rows[0]["status"], rows[0]["frames_read"], rows[0]["frames_skipped"]) == ("partial", 1, 2)
    assert summary.exit_code == 3
    assert list(summary.messages.values()) == [1]


def test_a_picture_that_is_shrunk_far_says_which_faces_it_may_miss(red_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/wide.jpg"), np.full((200, 4000, 3), 128, np.uint8))
    cv2.imwrite(str(tmp_path / "in/plain.jpg"), np.full((200, 400, 3), 128, np.uint8))
    _, rows = scan(tmp_path / "in", tmp_path / "r.parquet", red_model)
    messages = {row["source"]: row["message"] for row in rows}
    assert "12.5 times smaller" in messages["wide.jpg"]
    assert not isinstance(messages["plain.jpg"], str)


def test_what_is_ignored_is_named_by_its_kind(image: npt.NDArray[np.uint8], red_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.jpg"), image)
    for name in ("noext", "b.jpg_large"):
        (folder / name).write_bytes((folder / "a.jpg").read_bytes())
    (folder / "notes.txt").write_text("x")
    summary, _ = scan(folder, tmp_path / "r.parquet", red_model)
    assert summary.inputs == 1
    assert sum(summary.ignored_by_extension.values()) == 3
    summary, _ = scan(folder, tmp_path / "s.parquet", red_model, sniff=True)
    assert summary.inputs == 3


def test_linked_folders_are_entered_on_request_and_once(image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    far, folder = tmp_path / "far", tmp_path / "in"
    far.mkdir()
    folder.mkdir()
    cv2.imwrite(str(far / "a.jpg"), image)
    (folder / "link").symlink_to(far)
    (far / "back").symlink_to(far)
    assert [source.name for source in discover([str(folder)]).sources] == []
    assert [source.name for source in discover([str(folder)], follow=True).sources] == ["link/a.jpg"]


# Lists and places.


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-le"])
def test_a_list_from_windows_is_read_or_refused(
    image: npt.NDArray[np.uint8], tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    cv2.imwrite("one/a.jpg", image)
    cv2.imwrite("one/b.jpg", image)
    (tmp_path / "list.txt").write_bytes("one/a.jpg\r\none/b.jpg\r\n".encode(encoding))
    if encoding == "utf-16-le":  # no mark says what it is
        with pytest.raises(UsageError, match="not text"):
            discover(["@list.txt"])
    else:
        assert [source.name for source in discover(["@list.txt"]).sources] == ["one/a.jpg", "one/b.jpg"]


def test_a_binary_list_and_the_root_are_refused(image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    with pytest.raises(UsageError, match="list"):
        discover([f"@{tmp_path / 'a.jpg'}"])
    with pytest.raises(UsageError, match="root of the file system"):
        discover(["/"])
    (tmp_path / "list").write_text("/\n")
    with pytest.raises(UsageError, match="root of the file system"):
        discover([f"@{tmp_path / 'list'}"])


def test_a_compressed_archive_says_so(image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.jpg", "a.jpg")
    (source,) = discover([str(tmp_path / "a.tar.gz")]).sources
    assert source.problem is not None
    assert "compressed with gzip" in source.problem.message


def command(*words: object, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    line = f'"$0" -m maskbatch "$@" {redirect}'
    words = ("bash", "-c", line, sys.executable, *words)
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_streams_that_are_closed_full_or_narrow() -> None:
    assert command("models", "list", redirect="2>&-").returncode == 0
    full = command("models", "list", redirect=">/dev/full")
    assert (full.returncode, full.stderr) == (1, "error: No space left on device\n")
    narrow = command("models", "list", PYTHONIOENCODING="ascii")
    assert (narrow.returncode, narrow.stderr) == (0, "")


def test_places_that_cannot_be_used_do_not_matter(image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    done = command(
        "scan", tmp_path / "a.jpg", "--out", tmp_path / "r.parquet", "-q", HOME="/proc/1/none", TMPDIR="/proc/1/none"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_shared_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/dev/shm/x")

    monkeypatch.setattr("multiprocessing.heap.Arena.__init__", refuse)
    monkeypatch.setattr("multiprocessing.heap.BufferWrapper._heap", multiprocessing.heap.Heap())
    with pytest.raises(WorkerError, match="need shared memory, and there is none"):
        warm_pool._spawn(64, "")


def test_pictures_of_cameras_and_phones_are_found_by_name(image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    for name in ("cam.MPO", "A.HIF", "scan.dib", "light.hdr", "light.exr"):
        cv2.imencode(".jpg", image)[1].tofile(str(tmp_path / name))
    assert len(list(discover([str(tmp_path)]).sources)) == 5
    assert np.abs(decode((tmp_path / "cam.MPO").read_bytes()).image.astype(int) - image).mean() < 5


# Names.


def test_two_inputs_never_share_a_drawing(image: npt.NDArray[np.uint8], red_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    PillowImage.fromarray(image).save(folder / "photo.webp")
    cv2.imwrite(str(folder / "photo.webp.jpg"), image)
    summary, _ = scan(folder, tmp_path / "r.parquet", red_model, annotate=tmp_path / "drawn")
    assert summary.inputs == len(list((tmp_path / "drawn").iterdir())) == 2
    assert any("drawn as" in note for note in summary.notes)


def test_the_same_file_is_one_input(image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    found = discover([str(tmp_path), str(tmp_path / "a.jpg"), f"file://{tmp_path}/a.jpg"])
    assert len(list(found.sources)) == 1


# Clocks of pictures.


@pytest.mark.parametrize(
    ("offset", "zone", "expected"),
    [
        ("+02:00", "UTC", "2024-07-12 12:00:00.250000+00:00"),
        ("", "UTC", "2024-07-12 14:00:00.250000+00:00"),
        ("", "Europe/Berlin", "2024-07-12 12:00:00.250000+00:00"),
    ],
)
def test_exif_says_when_a_picture_was_taken(
    face_photo: npt.NDArray[np.uint8], tmp_path: Path, offset: str, zone: str, expected: str
) -> None:
    exif = PillowImage.Exif()
    exif.get_ifd(34665).update({36867: "2024:07:12 14:00:00", 37521: "25"})
    if offset:
        exif.get_ifd(34665)[36881] = offset
    (tmp_path / "in/cam01").mkdir(parents=True)
    for name in ("DSC_0042.JPG", "photo.png"):
        kind = "PNG" if name.endswith("png") else "JPEG"
        PillowImage.fromarray(face_photo[:, :, ::-1]).save(tmp_path / "in/cam01" / name, kind, exif=exif.tobytes())
    maskbatch.scan(tmp_path / "in", tmp_path / "r.parquet", executor="inline", device="cpu", timezone=zone)
    faces = maskbatch.read_results(tmp_path / "r.parquet")
    assert len(faces) == 2
    assert [str(moment) for moment in faces["captured_at"]] == [expected] * 2
    assert set(faces["camera"]) == {"cam01"}


# Models of users.


def test_outputs_that_are_no_probabilities_are_refused(red_model: Path, tmp_path: Path) -> None:
    logits = tmp_path / "logits.onnx"
    logits.write_bytes(onnx_maker.share_classifier(LABELS, normalized=False))
    with pytest.raises(ModelError, match="not probabilities"):
        scan(write_archive(tmp_path / "in"), tmp_path / "r.parquet", red_model, classifier=str(logits))


def test_an_unknown_version_of_the_format_is_named_to_the_end(tmp_path: Path) -> None:
    model = bytearray(onnx_maker.share_classifier(("a", "b")))
    assert model[0] == 0x08  # field 1 of ModelProto: ir_version
    model[1] = 99
    path = tmp_path / ("a_long_folder_name" * 6) / "ir99.onnx"
    path.parent.mkdir()
    path.write_bytes(bytes(model))
    (tmp_path / "a.jpg").write_bytes(simplejpeg.encode_jpeg(np.zeros((64, 64, 3), np.uint8), 90, "BGR"))
    with pytest.raises(ModelError, match="IR version: 99"):
        maskbatch.scan(
            tmp_path / "a.jpg", tmp_path / "r.parquet", classifier=str(path), executor="inline", device="cpu"
        )
