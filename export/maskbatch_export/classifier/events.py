"""TensorBoard logs without TensorFlow: an event file of scalars, written by hand.

The format is a TFRecord file of ``Event`` messages (tensorflow/core/util/event.proto): each record is its length, a
masked CRC-32C of the length, the message, a masked CRC-32C of the message.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path

_TABLE: list[int] = []
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = (_value >> 1) ^ (0x82F63B78 if _value & 1 else 0)
    _TABLE.append(_value)


def _masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return length + struct.pack("<I", _masked_crc(length)) + message + struct.pack("<I", _masked_crc(message))


class EventFile:
    """One TensorBoard event file; `scalars` appends and flushes, so that an interrupted run keeps its log."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.maskbatch"
        self._append(_field(3, b"brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append one value per tag."""
        summary = b"".join(
            _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items()
        )
        self._append(b"\x10" + _varint(step) + _field(5, summary))

    def _append(self, fields: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(_record(b"\x09" + struct.pack("<d", time.time()) + fields))
