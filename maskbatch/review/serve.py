"""Opening a result for review or audit, and serving the page until it is closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskbatch.draw.originals import Originals
from maskbatch.errors import MissingExtraError, UsageError
from maskbatch.results.reader import ResultReader
from maskbatch.review.audit import Audit, write_audit
from maskbatch.review.faces import Decisions, FaceTable, read_faces
from maskbatch.review.images import Images
from maskbatch.review.recall import FRAMES_PER_FACE, FrameSample
from maskbatch.web.server import LOOPBACK, Guard, address, bind, make_server


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """How a page is served.

    Attributes:
        host: to listen on.
        port: 0 = a free one.
        redact: eyes are covered.
        by: who decides, for the log.
        sample: answers of an audit; None for a review.
        seed: of the sample; None = that of an earlier audit, else 0.
    """

    host: str = "127.0.0.1"
    port: int = 0
    redact: bool = False
    by: str = ""
    sample: int | None = None
    seed: int | None = None


def serve(results: str, options: ReviewOptions, opened: Callable[[str], None]) -> FaceTable:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        results: the result.
        options: how.
        opened: called with the address, once the page can be opened.

    Returns:
        The faces, with what was decided.

    Raises:
        MissingExtraError: the extra `review` is not installed.
        UsageError: there is no such result, or the port cannot be had.
    """
    try:
        from maskbatch.review.app import Review, make_app
    except ImportError:
        raise MissingExtraError("pages need the extra `review`: install it with `uv sync --extra review`") from None
    reader = ResultReader(results)
    faces = read_faces(reader)
    audit = open_audit(reader, faces, options.sample, options.seed) if options.sample is not None else None
    origin = "review" if audit is None else f"audit:{audit.seed}"
    decisions = Decisions(faces, reader.corrections_path, options.by, origin)
    originals = Originals(reader.run())
    images = Images(faces, originals, redact=options.redact)
    frames = _frames(reader, faces, originals, audit, options.sample) if audit is not None else None
    review = Review(faces, decisions, images, Path(results.rstrip("/")).name, audit, frames)
    listening = bind(options.host, options.port)
    port = listening.getsockname()[1]
    hosts = [] if options.host in LOOPBACK else [options.host]
    guard = Guard(make_app(review), port, hosts)
    server = make_server(guard)
    opened(address(options.host, port, guard.token))
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
        if audit is not None and options.sample is not None:
            write_audit(reader.audit_path, audit, faces, options.sample, frames, decisions)
    return faces


def _frames(
    reader: ResultReader, faces: FaceTable, originals: Originals, audit: Audit, sample: int | None
) -> FrameSample | None:
    """The frames to look at for missed faces; None where the table of the inputs is not there."""
    try:
        inputs = reader.inputs()
    except UsageError:
        return None
    return FrameSample(inputs, faces, originals, max(1, (sample or 0) // FRAMES_PER_FACE), audit.seed)


def open_audit(reader: ResultReader, faces: FaceTable, sample: int, seed: int | None) -> Audit:
    """The sample of a result; goes on with that of an earlier audit. Raises UsageError where the result changed since."""
    earlier = reader.audit()
    if earlier is not None:
        if earlier.get("faces") != len(faces):
            raise UsageError(
                f"{reader.audit_path} is of {earlier.get('faces')} faces, the result holds {len(faces)}: its sample does not stand for "
                "this result; remove the file to begin anew"
            )
        if seed is not None and seed != earlier["seed"]:
            raise UsageError(
                f"{reader.audit_path} was drawn with --seed {earlier['seed']}; remove the file to begin anew"
            )
        seed = int(earlier["seed"])
    return Audit(faces, sample, seed or 0)


def estimates(results: str, sample: int, seed: int | None = None) -> dict[str, Any]:
    """What the answers of an audit say so far, see `Audit.estimates`. Raises as `open_audit`."""
    reader = ResultReader(results)
    faces = read_faces(reader)
    audit = open_audit(reader, faces, sample, seed)
    decisions = Decisions(faces, reader.corrections_path, origin=f"audit:{audit.seed}")
    frames = _frames(reader, faces, Originals(reader.run()), audit, sample)
    return {**audit.estimates(faces), "recall": None if frames is None else frames.estimate(decisions)}
