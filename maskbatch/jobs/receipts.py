"""Receipts as bytes: JSON with a checksum. A receipt that was damaged in any way reads as none, and its unit is redone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, get_args

from maskbatch.errors import INPUT_ERROR_CODES
from maskbatch.types import PieceResult, Receipt, Status

VERSION = 1


class DamagedReceiptError(ValueError):
    """The bytes are not a receipt that we wrote."""


def dump(receipt: Receipt) -> bytes:
    """The receipt as UTF-8 JSON: a line with the SHA-256 of the rest, then the rest."""
    body = json.dumps({"version": VERSION, **dataclasses.asdict(receipt)}, ensure_ascii=True, sort_keys=True).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"


def load(data: bytes) -> Receipt:
    """The receipt in these bytes; raises DamagedReceiptError for anything that `dump` did not write."""
    checksum, _, body = data.partition(b"\n")
    body = body[:-1] if body.endswith(b"\n") else body
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise DamagedReceiptError("wrong checksum")
    fields: dict[str, Any] = json.loads(body)
    if not isinstance(fields, dict) or fields.pop("version", None) != VERSION:
        raise DamagedReceiptError("another version of maskbatch wrote it")
    try:
        results = tuple(PieceResult(**result) for result in fields.pop("results"))
        receipt = Receipt(results=results, **fields)
        faces = sum(result.faces for result in results)
    except (TypeError, KeyError) as error:
        raise DamagedReceiptError(str(error)) from error
    for result in results:
        if result.status not in get_args(Status) or (
            result.error is not None and result.error not in INPUT_ERROR_CODES
        ):
            raise DamagedReceiptError(f"unknown status {result.status!r}")
    if receipt.rows != faces:
        raise DamagedReceiptError("rows and faces do not add up")
    return receipt
