"""Which cameras there are: ``NAME=ADDRESS`` on the command line, or a file.

::

    [gate]                                              # cameras.toml
    address = "rtsp://viewer:${GATE_PASSWORD}@10.0.0.5/stream1"
    timezone = "Europe/Berlin"
    ignore = [[[0, 0], [0.4, 0], [0.4, 1], [0, 1]]]     # polygons that are not looked at, in shares of width and height
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskbatch.config import Polygon, check_polygon
from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch.sources.capture_metadata import capture_zone
from maskbatch.sources.live.address import Address, parse_address

_NAMED = re.compile(r"([^=/:?&\s][^=/:?&]*)=(.+)", re.DOTALL)
_FIELDS = {"address", "timezone", "ignore"}


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera.

    Attributes:
        name: in the column ``camera``.
        address: where its frames come from; None for one that only files have, in a file of cameras for `scan`.
        timezone: IANA name of the zone in which "today" and names of recordings are read.
        ignore: polygons that are blacked out before anything looks at a frame, in shares of width and height.
    """

    name: str
    address: Address | None
    timezone: str = "UTC"
    ignore: tuple[Polygon, ...] = ()


def read_cameras(path: Path, *, addresses: bool = True) -> tuple[Camera, ...]:
    """The cameras of a file, in its order.

    Args:
        path: TOML, a table per camera.
        addresses: read them, and want one of every camera.

    Raises:
        InputNotFoundError, UsageError: no such file, or what is wrong in it and where.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputNotFoundError(f"the file of cameras {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}") from None
    cameras = []
    for name, fields in content.items():
        where = f"{path}, camera {name}"
        if not isinstance(fields, dict) or not _is_name(name):
            raise UsageError(f"{where}: each camera is a table of its own, [name], and its name has no / in it")
        if unknown := sorted(set(fields) - _FIELDS):
            raise UsageError(f"{where}: {unknown[0]} is not known; there are {', '.join(sorted(_FIELDS))}")
        address = None
        if addresses:
            if not isinstance(fields.get("address"), str):
                raise UsageError(f'{where}: it needs an address, as in address = "rtsp://host/path"')
            address = parse_address(fields["address"])
        zone = fields.get("timezone", "UTC")
        capture_zone(zone if isinstance(zone, str) else "")
        cameras.append(Camera(name, address, zone, _polygons(fields.get("ignore", []), where)))
    if not cameras:
        raise UsageError(f"{path} names no camera")
    return tuple(cameras)


def cameras_of(sources: Sequence[str], timezone: str = "UTC") -> tuple[Camera, ...]:
    """The cameras that a command line names: ``NAME=ADDRESS``, an address alone, or a file ending in ``.toml``.

    Raises:
        UsageError: an address that is not read, or two cameras of one name.
    """
    capture_zone(timezone)
    found: list[Camera] = []
    for text in sources:
        if text.lower().endswith(".toml") and "://" not in text:
            found += read_cameras(Path(text))
            continue
        match = _NAMED.fullmatch(text)
        address = parse_address(match[2] if match else text)
        name = match[1].strip() if match else _name_of(address, {camera.name for camera in found})
        if not _is_name(name):
            raise UsageError(f"{name!r} cannot be the name of a camera; letters, digits, spaces and .-_ can")
        found.append(Camera(name, address, timezone))
    seen: set[str] = set()
    for camera in found:
        if camera.name in seen:
            raise UsageError(f"two cameras are called {camera.name}; write NAME=ADDRESS to tell them apart")
        seen.add(camera.name)
    return tuple(found)


def _is_name(name: str) -> bool:
    return (
        bool(name.strip()) and name.isprintable() and "/" not in name and not name.startswith(".") and len(name) <= 64
    )


def _name_of(address: Address, taken: Iterable[str]) -> str:
    if address.kind in ("device", "folder"):
        base = Path(address.url).resolve().name or "folder"
    else:
        base = address.host.replace(":", "-")
    name, number = base, 1
    while name in set(taken):
        number += 1
        name = f"{base}-{number}"
    return name


def _polygons(value: Any, where: str) -> tuple[Polygon, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{where}: ignore is a list of polygons")
    return tuple(check_polygon(polygon, f"{where}: ignore") for polygon in value)
