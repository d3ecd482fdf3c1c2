"""Work sets made on the spot: images and videos of known size, from what is there.

The content comes from the data folder (`MASKBATCH_SHARED` or ``../shared``) where it exists, else from the sample photos of
scikit-image. Photos are enlarged to the wanted size and given sensor noise, so that their files are as large as a camera's. Few
different files are encoded; a set is filled up with hard links to them, which a scanner cannot tell from files of their own.
Videos are encoded for a minute and then repeated packet by packet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

Image = npt.NDArray[np.uint8]

FULL_HD = (1920, 1080)
TWELVE_MEGAPIXELS = (4000, 3000)
VIDEO_FPS = 25


@dataclass(frozen=True, slots=True)
class WorkSet:
    """A folder or file to scan.

    Attributes:
        name: as in the reports.
        path: what is scanned.
        media: ``image`` or ``video``.
        about: one line for the reports.
        seconds: of video.
    """

    name: str
    path: Path
    media: str
    about: str
    seconds: float = 0.0


def shared_folder() -> Path | None:
    """The data folder, or None where there is none."""
    place = Path(os.environ.get("MASKBATCH_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    return place if (place / "data").is_dir() else None


def make_worksets(folder: Path, names: list[str] | None = None, scale: float = 1.0) -> list[WorkSet]:
    """Make the sets that are not there yet.

    Args:
        folder: where they go; kept from run to run.
        names: which; None is all.
        scale: of the number of images and the length of the videos.

    Returns:
        The sets, less those that cannot be made from what is there.
    """
    made = (make(folder, scale) for name, make in MAKERS.items() if names is None or name in names)
    return [work_set for work_set in made if work_set is not None]


# --- images


def _mask_set(folder: Path, scale: float) -> WorkSet:
    shared = shared_folder()
    if shared is not None and scale == 1.0:
        path = shared / "data" / "face_mask_detection" / "images"
        return WorkSet("mask set", path, "image", f"{_count(path)} photos as they are, about 400×300, JPEG")
    path = folder / f"mask-set-{scale:g}"
    photos = _photos(48, faces=True)
    return _filled(path, "mask set", (400, 300), round(688 * scale), "photos", lambda i: next(photos))


def _full_hd(folder: Path, scale: float) -> WorkSet:
    photos = _photos(40, faces=True)
    return _filled(
        folder / f"1080p-{scale:g}",
        "1080p",
        FULL_HD,
        round(1000 * scale),
        "photos of few faces",
        lambda i: next(photos),
    )


def _twelve(folder: Path, scale: float) -> WorkSet:
    photos = _photos(24, faces=True)
    path = folder / f"12mp-{scale:g}"
    return _filled(path, "12 MP", TWELVE_MEGAPIXELS, round(480 * scale), "photos of few faces", lambda i: next(photos))


def _many(folder: Path, scale: float) -> WorkSet:
    photos = list(_photos(96, faces=True))

    def mosaic(index: int) -> Image:
        rows = []
        for row in range(3):
            tiles = [photos[(index * 12 + row * 4 + column) % len(photos)] for column in range(4)]
            rows.append(np.hstack([_covering(tile, 480, 360) for tile in tiles]))
        return np.vstack(rows)

    path = folder / f"many-{scale:g}"
    return _filled(path, "many faces", FULL_HD, round(480 * scale), "twelve photos in one", mosaic)


def _none(folder: Path, scale: float) -> WorkSet:
    photos = _photos(24, faces=False)
    path = folder / f"none-{scale:g}"
    return _filled(path, "no faces", FULL_HD, round(1500 * scale), "images of a road", lambda i: next(photos))


def _filled(
    path: Path, name: str, size: tuple[int, int], count: int, what: str, picture: Callable[[int], Image]
) -> WorkSet:
    """`count` files in `path`: as many different ones as `image` gives (at most 40), the rest hard links to them."""
    about = f"{count} {what}, {size[0]}×{size[1]}, JPEG"
    work_set = WorkSet(name, path, "image", about)
    if (path / ".made").exists() and _count(path) == count:
        return work_set
    path.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for index in range(min(count, 40)):
        try:
            image = picture(index)
        except StopIteration:
            break
        file = path / f"{index:05d}.jpg"
        file.write_bytes(simplejpeg.encode_jpeg(_noisy(_covering(image, *size), index), 95, "BGR", "420"))
        made.append(file)
    for index in range(len(made), count):
        target = path / f"{index:05d}.jpg"
        target.unlink(missing_ok=True)
        target.hardlink_to(made[index % len(made)])
    (path / ".made").touch()
    return work_set


def _photos(count: int, faces: bool) -> Iterator[Image]:
    """Different photos with or without faces; fewer where there are fewer."""
    shared = shared_folder()
    if shared is None:
        from skimage import data

        names = ("astronaut",) if faces else ("coffee", "chelsea", "rocket")
        for name in names:
            yield np.ascontiguousarray(getattr(data, name)()[:, :, ::-1])
    elif faces:
        files = sorted((shared / "data" / "face_mask_detection" / "images").glob("*.jpg"))
        for file in files[:: max(1, len(files) // count)][:count]:
            yield simplejpeg.decode_jpeg(file.read_bytes(), "BGR")
    else:
        yield from _frames(shared / "data" / "videos" / "car-detection.mp4", count, every=15)


def _covering(image: Image, width: int, height: int) -> Image:
    """Scaled to cover the size, the middle cut out."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(large[y : y + height, x : x + width])


def _noisy(image: Image, seed: int, deviation: float = 6.0) -> Image:
    noise = np.zeros(image.shape, np.int16)
    cv2.setRNGSeed(seed)
    cv2.randn(noise, 0, deviation)
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)


def _count(path: Path) -> int:
    return sum(1 for entry in path.iterdir() if entry.suffix == ".jpg")


# --- videos


def _video_720(folder: Path, scale: float) -> WorkSet:
    """As cameras record: no B frames, a key frame every two seconds."""
    return _video(folder, "720p video", (1280, 720), scale, b_frames=0, key_every=50, bit_rate=2_000_000)


def _cctv(folder: Path, scale: float) -> WorkSet | None:
    """What a real camera wrote, again and again: a key frame every 1.3 s; none without the data folder."""
    shared = shared_folder()
    clip = None if shared is None else shared / "data" / "videos" / "cctv_office_short.mp4"
    if clip is None or not clip.is_file():
        return None
    seconds = max(20, round(600 * scale))
    path = folder / f"cctv-{seconds}s.mp4"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _repeat(clip, path, seconds)
    about = f"{seconds} s of an office camera, 1280×720 at 24/s, H.264, 0.9 Mbit/s: 1.3 s of it, repeated"
    return WorkSet("720p CCTV", path, "video", about, float(seconds))


def _video_1080(folder: Path, scale: float) -> WorkSet:
    """As encoders write by themselves: B frames, a key frame every ten seconds."""
    return _video(folder, "1080p video", FULL_HD, scale, b_frames=3, key_every=250, bit_rate=4_000_000)


def _video(
    folder: Path, name: str, size: tuple[int, int], scale: float, *, b_frames: int, key_every: int, bit_rate: int
) -> WorkSet:
    seconds = max(20, round(600 * scale))
    path = folder / f"{size[1]}p-{seconds}s.mp4"
    about = (
        f"{seconds} s of {size[0]}×{size[1]} at {VIDEO_FPS}/s, H.264, {bit_rate / 1e6:g} Mbit/s, "
        f"{b_frames} B frames, a key frame every {key_every / VIDEO_FPS:g} s"
    )
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        minute = folder / f".{size[1]}p-part.mp4"
        encode_clip(minute, size, min(seconds, 40), b_frames, key_every, bit_rate)
        _repeat(minute, path, seconds)
        minute.unlink()
    return WorkSet(name, path, "video", about, float(seconds))


def encode_clip(path: Path, size: tuple[int, int], seconds: int, b_frames: int, key_every: int, bit_rate: int) -> None:
    with av.open(str(path), "w") as container:
        options = {
            "preset": "veryfast",
            "bf": str(b_frames),
            "g": str(key_every),
            "sc_threshold": "0",
            "flags": "+cgop",
        }
        stream = container.add_stream("libx264", rate=VIDEO_FPS, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = bit_rate
        # A few planes of sensor noise, one after the other: making new noise for every frame costs more than encoding it.
        noise = [_noisy(np.full((size[1], size[0], 3), 8, np.uint8), seed, 1.5) for seed in range(7)]
        for index, image in enumerate(_scene(size, seconds * VIDEO_FPS)):
            frame = av.VideoFrame.from_ndarray(cv2.add(image, noise[index % len(noise)]), format="bgr24")
            frame.pts = index
            frame.time_base = Fraction(1, VIDEO_FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _scene(size: tuple[int, int], count: int) -> Iterator[Image]:
    """People in a corridor, and photos that pass through; a still photo panned slowly where there is no clip."""
    shared = shared_folder()
    if shared is None:
        photo = _covering(next(_photos(1, faces=True)), size[0] + 200, size[1])
        for index in range(count):
            x = abs(index % 400 - 200)
            yield np.ascontiguousarray(photo[:, x : x + size[0]])
        return
    clip = shared / "data" / "videos" / "one-by-one-person-detection.mp4"
    faces = [_covering(photo, size[1] // 3, size[1] // 4) for photo in _photos(3, faces=True)]
    shown = 0
    for number, frame in enumerate(_frames(clip, count, every=1)):
        image = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        while shown < min(count, (number + 1) * VIDEO_FPS // 10):  # the clip has ten frames a second
            yield _with_faces(image, faces, shown)
            shown += 1
        if shown >= count:
            return


def _with_faces(image: Image, faces: list[Image], index: int) -> Image:
    """Photos of people pass through the image, each at its own height and speed; often one of them is out of it."""
    result = image.copy()
    height, width = image.shape[:2]
    for number, face in enumerate(faces):
        x = (index * (number + 1) * width // 1000 + number * width // 3) % (2 * width)
        y = height // 8 + number * height // 4
        shown = min(face.shape[1], width - x)
        if shown > 0:
            result[y : y + face.shape[0], x : x + shown] = face[:, :shown]
    return result


def _frames(path: Path, count: int, every: int) -> Iterator[Image]:
    with av.open(str(path)) as container:
        given = 0
        for index, frame in enumerate(container.decode(video=0)):
            if index % every == 0 and given < count:
                given += 1
                yield frame.to_ndarray(format="bgr24")


def _repeat(source: Path, target: Path, seconds: int) -> None:
    """The packets of `source` again and again until the time is full."""
    with av.open(str(target), "w") as out:
        stream = None
        shift = 0
        while True:
            with av.open(str(source)) as container:
                template = container.streams.video[0]
                stream = stream or out.add_stream_from_template(template)
                span = 0
                for packet in container.demux(template):
                    if packet.dts is None or packet.pts is None:
                        continue
                    span = max(span, packet.pts + (packet.duration or 0))
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    out.mux(packet)
                shift += span
                if float(shift * template.time_base) >= seconds - 0.5:
                    return


MAKERS: dict[str, Callable[[Path, float], WorkSet | None]] = {
    "mask set": _mask_set,
    "1080p": _full_hd,
    "12 MP": _twelve,
    "many faces": _many,
    "no faces": _none,
    "720p video": _video_720,
    "720p CCTV": _cctv,
    "1080p video": _video_1080,
}
