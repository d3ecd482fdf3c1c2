"""The page of a watch: last frames with boxes, people now, today's counts, alarms, health. Pushed by server-sent events.

Served on this machine to whoever has the token (`maskbatch.web.server`). ``/healthz`` and ``/metrics`` need none: they hold counts alone.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from maskbatch.errors import MissingExtraError
from maskbatch.live.state import View, metrics
from maskbatch.web.look import hex_colour, label_css
from maskbatch.web.page import environment, static_text
from maskbatch.web.server import Guard, address, bind, make_server

if TYPE_CHECKING:
    from maskbatch.live.watch import Watch

HOST = "127.0.0.1"
OPEN_PATHS = ("/healthz", "/metrics")
STEP_S = 0.25
"""The page is told at most this often."""
KEEP_ALIVE_S = 15.0

_STATIC = files("maskbatch.live") / "static"

_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>maskbatch watch</title>
<link rel="stylesheet" href="/page.css">
<link rel="icon" href="data:,">
</head>
<body data-faces="{{ 'shown' if show_faces else 'blurred' }}">
<header class="top"><h1>maskbatch watch</h1><p class="soft" id="status" role="status" aria-live="polite">connecting …</p></header>
<main>
<section class="answer"><h2>Today</h2><p class="figure" id="figure">–</p><p class="soft" id="sentence"></p><p id="legend" class="legend"></p></section>
<p class="warn hidden" id="trouble" role="alert"></p>
<div class="cameras" id="cameras"></div>
<section><h2>Events</h2><p class="soft" id="quiet">None so far.</p><ul class="events" id="events"></ul></section>
</main>
<footer><p>Faces are {{ 'shown' if show_faces else 'blurred; one that the detector misses is not' }}. No image is stored by this page.
<a href="/healthz">health</a> · <a href="/metrics">metrics</a></p></footer>
<script src="/page.js"></script>
</body>
</html>
"""


def make_app(watch: Watch, *, show_faces: bool = False) -> Any:
    """The ASGI application of the page, not guarded yet.

    Raises:
        MissingExtraError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
        from starlette.routing import Route
    except ImportError:
        raise MissingExtraError("the page needs the extra `live`: install it with `uv sync --extra live`") from None
    html = environment().from_string(_HTML).render(show_faces=show_faces)
    css = "\n".join([static_text("look.css"), label_css(watch.task), (_STATIC / "watch.css").read_text("utf-8")])
    script = (_STATIC / "watch.js").read_text("utf-8")
    looks = [
        {"label": label, "word": look.word, "letter": look.letter, "colour": hex_colour(look.colour)}
        for label, look in zip(watch.task.labels, watch.task.looks, strict=True)
    ]

    async def page(_request: Request) -> Response:
        return Response(html, media_type="text/html")

    async def style(_request: Request) -> Response:
        return Response(css, media_type="text/css")

    async def code(_request: Request) -> Response:
        return Response(script, media_type="text/javascript")

    async def state(request: Request) -> Response:
        async def told() -> AsyncIterator[str]:
            version, silent = -1, 0.0
            while not watch.has_ended and not await request.is_disconnected():
                newest = watch.wait_for_change(version, 0.0)
                if newest != version or silent >= KEEP_ALIVE_S:
                    version, silent = newest, 0.0
                    yield f"data: {json.dumps({**as_json(watch.view()), 'looks': looks})}\n\n"
                await asyncio.sleep(STEP_S)
                silent += STEP_S

        return StreamingResponse(told(), media_type="text/event-stream")

    async def frame(request: Request) -> Response:
        name = request.path_params["camera"]
        data = await asyncio.to_thread(watch.frame, name, show_faces=show_faces)
        return PlainTextResponse("no frame yet", 404) if data is None else Response(data, media_type="image/jpeg")

    async def health(_request: Request) -> Response:
        view = watch.view()
        content = {"healthy": view.healthy, "cameras": {camera.name: camera.state for camera in view.cameras}}
        return JSONResponse(content, 200 if view.healthy else 503)

    async def numbers(_request: Request) -> Response:
        return PlainTextResponse(metrics(watch.view()), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/", page),
            Route("/page.css", style),
            Route("/page.js", code),
            Route("/state", state),
            Route("/frame/{camera}", frame),
            Route("/healthz", health),
            Route("/metrics", numbers),
        ]
    )


def as_json(view: View) -> dict[str, Any]:
    """The view as the page reads it."""
    return {**asdict(view), "healthy": view.healthy}


def serve(watch: Watch, port: int = 0, *, show_faces: bool = False) -> str:
    """Serve the page from a thread of this process until the watch ends; the address to open, which works once.

    Raises:
        UsageError: the port is taken.
        MissingExtraError: starlette or uvicorn is not installed.
    """
    app = make_app(watch, show_faces=show_faces)
    listening = bind(HOST, port)
    taken = int(listening.getsockname()[1])
    guard = Guard(app, taken, open_paths=OPEN_PATHS)
    server = make_server(guard)
    watch.at_end(lambda: setattr(server, "should_exit", True))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="maskbatch-page", daemon=True).start()
    return address(HOST, taken, guard.token)
