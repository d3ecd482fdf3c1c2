"""The review page: an ASGI application over one result. Faces are addressed by their row; no path of a request reaches the file system."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from maskbatch.errors import InputError, MaskbatchError, UsageError
from maskbatch.results.corrections import Action, Correction
from maskbatch.review.audit import Audit
from maskbatch.review.faces import NO_DECISION, NO_TIME, NOT_A_FACE, Array, Decisions, FaceTable
from maskbatch.review.images import Images
from maskbatch.review.query import QUEUES, SORTS, Query, poster_group, progress, select
from maskbatch.review.recall import FrameSample
from maskbatch.web.page import static_text

_STATIC = files("maskbatch.review") / "static"
_KEPT_SELECTIONS = 8
LARGEST_WINDOW = 2000
LARGEST_DECISION = 100_000
"""Faces that one decision may settle."""

Handler = Callable[[Request], Awaitable[Response]]


class Review:
    """What the page shows and changes. Requests come from several threads; decisions take turns.

    Args:
        faces: the result.
        decisions: where they go.
        images: crops and frames.
        title: name of the result.
        audit: a sample to answer, with the model's answers hidden until then; None for a review.
        frames: with an audit, frames to look at for faces that were missed.
    """

    def __init__(
        self,
        faces: FaceTable,
        decisions: Decisions,
        images: Images,
        title: str,
        audit: Audit | None = None,
        frames: FrameSample | None = None,
    ) -> None:
        self.frames = frames
        self.faces = faces
        self.decisions = decisions
        self.images = images
        self.title = title
        self.audit = audit
        self._lock = threading.Lock()
        self._selections: OrderedDict[str, Array] = OrderedDict()
        self._number = 0

    def about(self) -> dict[str, Any]:
        """What the page needs to know once."""
        task = self.faces.task
        labels = []
        for label in task.labels:
            look = task.look(label)
            blue, green, red = look.colour
            labels.append({"name": label, "word": look.word, "colour": f"#{red:02x}{green:02x}{blue:02x}"})
        return {
            "title": self.title,
            "labels": labels,
            "cameras": [name or "unknown" for name in self.faces.cameras],
            "queues": [] if self.audit else [[name, shown] for name, (shown, _) in QUEUES.items()],
            "sorts": list(SORTS),
            "audit": None if self.audit is None else {**self.audit.about(), "frames": len(self.frames or ())},
            "tracked": bool((self.faces.track >= 0).any()),
            "progress": self.progress(),
        }

    def progress(self) -> dict[str, int]:
        """Counts for the bar."""
        if self.audit is None:
            return progress(self.faces)
        rows = self.audit.rows
        return {"faces": len(rows), "decided": int((self.faces.decided[rows] != NO_DECISION).sum())}

    def select(self, query: Query) -> dict[str, Any]:
        """Keep the rows of a query under a name."""
        with self._lock:
            rows = self.audit.rows if self.audit is not None else select(self.faces, query)
            self._number += 1
            name = str(self._number)
            self._selections[name] = rows
            while len(self._selections) > _KEPT_SELECTIONS:
                self._selections.popitem(last=False)
        return {"id": name, "total": len(rows)}

    def window(self, name: str, start: int, count: int) -> list[dict[str, Any]]:
        """Part of a selection. Raises UsageError where it was forgotten."""
        rows = self._selections.get(name)
        if rows is None:
            raise UsageError("this selection is gone; reload the page")
        return [self.row(int(row)) for row in rows[max(0, start) : max(0, start) + min(count, LARGEST_WINDOW)]]

    def row(self, row: int) -> dict[str, Any]:
        """A face, as the grid shows it. In an audit the model's answer stays hidden until a person has answered."""
        faces = self.faces
        decided = int(faces.decided[row])
        hidden = self.audit is not None and decided == NO_DECISION
        captured = int(faces.captured[row])
        time_s = float(faces.time_s[row])
        return {
            "row": row,
            "label": None if hidden else int(faces.label[row]),
            "confidence": None if hidden else round(float(faces.confidence[row]), 3),
            "decided": None if decided == NO_DECISION else -1 if decided == NOT_A_FACE else decided - 1,
            "camera": int(faces.camera[row]),
            "captured": None if captured == NO_TIME else _iso(captured),
            "time_s": None if math.isnan(time_s) else round(time_s, 3),
            "track": None if faces.track[row] < 0 else int(faces.track[row]),
        }

    def face(self, row: int) -> dict[str, Any]:
        """A face with its image: all boxes in it, the track, what lies before and after."""
        faces = self.faces
        width, height = self.images.size(row)
        same = faces.same_image(row)
        track = faces.same_track(row)
        name = faces.sources[faces.source[row]]
        time_s = float(faces.time_s[row])
        drawn = [
            {"box": list(item.box), "label": faces.task.labels.index(item.label)}
            for item in self.decisions.drawn
            if item.source == name and (item.time_s is None or abs(item.time_s - time_s) < 0.0006)
        ]
        return {
            **self.row(row),
            "source": name,
            "width": width,
            "height": height,
            "score": round(float(faces.score[row]), 3),
            "size": round(float(faces.side[row]), 1),
            "sharpness": round(float(faces.sharpness[row]), 1),
            "boxes": [{**self.row(int(other)), "box": faces.boxes[other].round(1).tolist()} for other in same],
            "drawn": drawn,
            "members": [self.row(int(other)) for other in track[:200]] if len(track) > 1 else [],
            "neighbours": [self.row(int(other)) for other in self._around(row)],
        }

    def _around(self, row: int, reach: int = 4) -> Array:
        """The best faces of the frames before and after, of the same video."""
        faces = self.faces
        if not faces.video[row]:
            return np.empty(0, np.int64)
        low, high = max(0, row - 50), min(len(faces), row + 51)
        rows = np.arange(low, high)[(faces.source[low:high] == faces.source[row])]
        frames, first = np.unique(faces.frame[rows], return_index=True)
        at = int(np.searchsorted(frames, faces.frame[row]))
        near = [k for k in range(max(0, at - reach), min(len(frames), at + reach + 1)) if k != at]
        found: Array = rows[first[near]] if near else np.empty(0, np.int64)
        return found

    def audit_frame(self, number: int) -> dict[str, Any]:
        """A frame of an audit: the boxes that were found, without labels, and those that were drawn."""
        frames = self.frames_of_audit(number)
        height, width = frames.image(number).shape[:2]
        ordinal, time_s = frames.moment(number)
        return {
            "number": number,
            "frames": len(frames),
            "source": frames.frames[number].source,
            "frame": ordinal,
            "time_s": time_s,
            "width": width,
            "height": height,
            "boxes": [self.faces.boxes[row].round(1).tolist() for row in frames.rows(number)],
            "drawn": [list(item.box) for item in frames.drawn(number, self.decisions)],
            "checked": frames.is_checked(number, self.decisions),
        }

    def check(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Note that a frame of an audit is complete: ``frame``."""
        number = int(asked["frame"])
        shown = self.audit_frame(number)
        box = (0.0, 0.0, float(shown["width"]), float(shown["height"]))
        self._note(number, box, "checked", "")
        return self.audit_frame(number)

    def draw_in_frame(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Add a face that was missed in a frame of an audit: ``frame``, ``box`` in pixels, ``label``."""
        number, at = int(asked["frame"]), int(asked["label"])
        labels = self.faces.task.labels
        if not 0 <= at < len(labels):
            raise UsageError("no such label")
        x1, y1, x2, y2 = (float(value) for value in asked["box"])
        self._note(number, (x1, y1, x2, y2), "missed", labels[at])
        return self.audit_frame(number)

    def _note(self, number: int, box: tuple[float, float, float, float], action: Action, label: str) -> None:
        frames = self.frames_of_audit(number)
        source = frames.frames[number].source
        ordinal, time_s = frames.moment(number)
        found = Correction(source, box, action, label, ordinal, time_s, self.faces.hashes.get(source, ""))
        with self._lock:
            signed = self.decisions.sign(found)
            (self.decisions.check if action == "checked" else self.decisions.draw)(signed)

    def frames_of_audit(self, number: int) -> FrameSample:
        """The frames of the audit, if it has this one. Raises UsageError."""
        if self.frames is None or not 0 <= number < len(self.frames):
            raise UsageError("no such frame")
        return self.frames

    def estimates(self) -> dict[str, Any]:
        """What the answers of an audit say so far."""
        if self.audit is None:
            raise UsageError("this is no audit")
        recall = None if self.frames is None else self.frames.estimate(self.decisions)
        return {**self.audit.estimates(self.faces), "recall": recall}

    def decide(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Take a decision: ``rows``, ``action`` (``label`` or ``not_a_face``), ``label`` (index), ``spread`` (``track``, ``poster``)."""
        rows = [int(row) for row in asked.get("rows", [])]
        if not rows or min(rows) < 0 or max(rows) >= len(self.faces):
            raise UsageError("no such face")
        action = asked.get("action")
        if action not in ("label", "not_a_face"):
            raise UsageError("a face is labelled, or is none")
        label = ""
        if action == "label":
            labels = self.faces.task.labels
            at = int(asked.get("label", -1))
            if not 0 <= at < len(labels):
                raise UsageError("no such label")
            label = labels[at]
        with self._lock:
            spread = asked.get("spread") if self.audit is None else None
            if spread == "track":
                rows = np.unique(np.concatenate([self.faces.same_track(row) for row in rows])).tolist()
            elif spread == "poster":
                rows = np.unique(np.concatenate([poster_group(self.faces, row) for row in rows])).tolist()
            if len(rows) > LARGEST_DECISION:
                raise UsageError(f"one decision settles at most {LARGEST_DECISION:,} faces")
            self.decisions.decide(rows, action, label)
        shown = rows if len(rows) <= LARGEST_WINDOW else rows[:LARGEST_WINDOW]
        return {"count": len(rows), "rows": [self.row(row) for row in shown], "progress": self.progress()}

    def undo(self) -> dict[str, Any]:
        """Take back the last decision."""
        with self._lock:
            count = self.decisions.undo()
        return {"count": count, "progress": self.progress()}

    def draw(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Add a face that was missed: ``row`` (a face of the same image), ``box`` in pixels, ``label``."""
        row, at = int(asked["row"]), int(asked["label"])
        x1, y1, x2, y2 = (float(value) for value in asked["box"])
        labels = self.faces.task.labels
        if not 0 <= row < len(self.faces) or not 0 <= at < len(labels):
            raise UsageError("no such face or label")
        base = self.faces.correction(row, "missed", labels[at])
        with self._lock:
            self.decisions.draw(dataclasses.replace(base, box=(x1, y1, x2, y2)))
        return {"progress": self.progress()}


def make_app(review: Review) -> Starlette:
    """The application; put a `maskbatch.web.server.Guard` before it."""

    async def home(_: Request) -> Response:
        return Response((_STATIC / "review.html").read_text("utf-8"), media_type="text/html")

    async def style(_: Request) -> Response:
        css = static_text("look.css") + (_STATIC / "review.css").read_text("utf-8")
        return Response(css, media_type="text/css")

    async def script(_: Request) -> Response:
        return Response((_STATIC / "review.js").read_text("utf-8"), media_type="text/javascript")

    async def about(_: Request) -> Response:
        return JSONResponse(review.about())

    async def selection(request: Request) -> Response:
        query = _query(dict(request.query_params))
        return JSONResponse(await run_in_threadpool(review.select, query))

    async def window(request: Request) -> Response:
        values = request.query_params
        rows = review.window(values.get("id", ""), _whole(values.get("from")), _whole(values.get("count")))
        return JSONResponse(rows)

    async def face(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.face, _row(request, review)))

    async def crop(request: Request) -> Response:
        return await _jpeg(review.images.crop, _row(request, review))

    async def frame(request: Request) -> Response:
        return await _jpeg(review.images.frame, _row(request, review))

    async def decide(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.decide, await _body(request)))

    async def undo(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.undo))

    async def draw(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.draw, await _body(request)))

    async def estimates(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.estimates))

    async def audit_frame(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.audit_frame, int(request.path_params["number"])))

    async def audit_picture(request: Request) -> Response:
        number = int(request.path_params["number"])
        frames = review.frames_of_audit(number)
        return await _jpeg(
            lambda at: review.images.shown(frames.image(at), review.faces.boxes[frames.rows(at)]), number
        )

    async def check(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.check, await _body(request)))

    async def draw_in_frame(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.draw_in_frame, await _body(request)))

    routes = [
        Route("/", _said(home)),
        Route("/review.css", _said(style)),
        Route("/review.js", _said(script)),
        Route("/api/about", _said(about)),
        Route("/api/select", _said(selection)),
        Route("/api/window", _said(window)),
        Route("/api/face/{row:int}", _said(face)),
        Route("/crop/{row:int}.jpg", _said(crop)),
        Route("/frame/{row:int}.jpg", _said(frame)),
        Route("/api/decide", _said(decide), methods=["POST"]),
        Route("/api/undo", _said(undo), methods=["POST"]),
        Route("/api/draw", _said(draw), methods=["POST"]),
        Route("/api/estimates", _said(estimates)),
        Route("/api/audit-frame/{number:int}", _said(audit_frame)),
        Route("/audit-frame/{number:int}.jpg", _said(audit_picture)),
        Route("/api/check", _said(check), methods=["POST"]),
        Route("/api/draw-in-frame", _said(draw_in_frame), methods=["POST"]),
    ]
    return Starlette(routes=routes)


def _said(handler: Handler) -> Handler:
    """Errors as JSON with one sentence."""

    async def handled(request: Request) -> Response:
        try:
            return await handler(request)
        except InputError as error:
            return JSONResponse({"error": error.message}, 404)
        except UsageError as error:
            return JSONResponse({"error": str(error)}, 400)
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"error": f"not a request of this page ({error})"}, 400)
        except MaskbatchError as error:  # a full disk
            return JSONResponse({"error": str(error)}, 500)

    return handled


async def _jpeg(make: Callable[[int], bytes], row: int) -> Response:
    data = await run_in_threadpool(make, row)
    # Private to this browser for as long as the page is open; no store, no disk.
    return Response(data, media_type="image/jpeg")


async def _body(request: Request) -> dict[str, Any]:
    found = json.loads(await asyncio.wait_for(request.body(), 10))
    if not isinstance(found, dict):
        raise UsageError("not a request of this page")
    return found


def _row(request: Request, review: Review) -> int:
    row = int(request.path_params["row"])
    if not 0 <= row < len(review.faces):
        raise UsageError("no such face")
    return row


def _whole(text: str | None) -> int:
    return int(text or 0)


def _query(values: dict[str, str]) -> Query:
    def pair(name: str) -> tuple[float, float] | None:
        low, high = values.get(f"{name}_from", ""), values.get(f"{name}_to", "")
        if not low and not high:
            return None
        return (float(low) if low else -math.inf, float(high) if high else math.inf)

    def whole(name: str) -> int | None:
        return int(values[name]) if values.get(name) else None

    decided = {"yes": True, "no": False}.get(values.get("decided", ""))
    return Query(
        values.get("queue") or "all",
        values.get("sort", ""),
        whole("camera"),
        whole("label"),
        pair("confidence"),
        pair("size"),
        pair("sharpness"),
        values.get("source", ""),
        pair("time"),
        whole("row"),
        decided,
    )


def _iso(micros: int) -> str:
    moment = dt.datetime.fromtimestamp(micros / 1e6, dt.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
