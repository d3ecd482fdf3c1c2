"""Receipts as bytes. Whatever happens to them, they read as what was written or as none."""

from __future__ import annotations

import hashlib
import json
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskbatch.errors import InputErrorCode
from maskbatch.jobs import receipts
from maskbatch.types import PieceResult, Receipt, Status

floats = st.floats(0, 1e6)
counts = st.integers(0, 10**12)
results = st.builds(
    PieceResult,
    name=st.text(max_size=20),
    fingerprint=st.text("0123456789abcdef-", max_size=20),
    part=st.integers(0, 1000),
    parts=st.integers(1, 1001),
    status=st.sampled_from(get_args(Status)),
    error=st.none() | st.sampled_from(get_args(InputErrorCode)),
    message=st.text(max_size=40),
    width=st.none() | counts,
    frames_read=counts,
    faces=st.integers(0, 1000),
    duration_s=st.none() | floats,
    decode_s=floats,
    sha256=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
)
written = st.lists(results, max_size=4).map(
    lambda made: Receipt(
        "u" * 32, sum(r.faces for r in made), tuple(made), {"with_mask": 1}, 99, "0" * 64, {"decode": 0.5}
    )
)
SAMPLE = Receipt(
    "0" * 32, 3, (PieceResult("a\n\x1b.jpg", "1-2", faces=3),), {"with_mask": 3}, 10, "1" * 64, {"x": 1.0}, 2.0
)


@given(written)
@settings(deadline=None)
def test_what_is_written_is_what_is_read(receipt: Receipt) -> None:
    assert receipts.load(receipts.dump(receipt)) == receipt


def test_every_flipped_bit_is_noticed() -> None:
    data = receipts.dump(SAMPLE)
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        try:
            read = receipts.load(bytes(flipped))
        except receipts.DamagedReceiptError:
            continue
        assert read == SAMPLE  # the last byte, a line's end, says nothing
        assert position // 8 == len(data) - 1


def test_every_cut_is_noticed() -> None:
    data = receipts.dump(SAMPLE)
    for length in range(len(data) - 1):
        with pytest.raises(receipts.DamagedReceiptError):
            receipts.load(data[:length])


@given(st.binary(max_size=400))
@example(b"")
@example(b"\n")
def test_other_bytes_are_damaged_receipts(data: bytes) -> None:
    with pytest.raises(receipts.DamagedReceiptError):
        receipts.load(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["version", "unit", "rows", "results", "x"]), inner)
        ),
        max_leaves=12,
    )
)
@example({"version": 1})
@example({"version": 1, "unit": "u", "rows": 0, "results": [{"name": "a"}]})
@example({"version": 1, "unit": "u", "rows": 0, "results": [1]})
@example({"version": 1, "unit": "u", "rows": 1, "results": []})
@example({"version": 1, "unit": "u", "rows": 0, "results": None})
@example({"version": 2, "unit": "u", "rows": 0, "results": []})
def test_json_with_a_right_sum_but_of_another_shape_is_damaged(content: object) -> None:
    body = json.dumps(content).encode()
    with pytest.raises(receipts.DamagedReceiptError):
        receipts.load(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
