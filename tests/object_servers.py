"""A real S3 server on loopback (moto's, a WSGI application) whose answers can be made worse, as those of a busy store are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

BUSY = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
BUCKET = "archive"


class S3Server:
    """What the tests can do to the server.

    Attributes:
        requests: method, path and query of each request so far.
        refuse: so many of the next requests that `refused` picks are answered with 503.
        before: called with method and path before each request is answered.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._application = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.requests: list[tuple[str, str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Behave well again."""
        self.requests.clear()
        self.refuse = 0
        self.refused: Callable[[str, str], bool] = lambda _method, _path: True
        self.before: Callable[[str, str], None] = lambda _method, _path: None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self.requests.append((method, path, environ.get("QUERY_STRING", "")))
            busy = self.refuse > 0 and self.refused(method, path)
            self.refuse -= busy
        if busy:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(BUSY)))])
            return [] if method == "HEAD" else [BUSY]
        self.before(method, path)
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer

    def fill(self, prefix: str, count: int) -> None:
        """Put `count` small objects into the bucket without a request for each."""
        backend = self._backend()
        for number in range(count):
            backend.put_object(BUCKET, f"{prefix}/{number:06}.json", b"{}")

    def delete(self, key: str) -> None:
        """Remove an object behind everybody's back."""
        self._backend().delete_object(BUCKET, key)

    def clear(self) -> None:
        """Empty the bucket."""
        backend = self._backend()
        for key in list(backend.buckets[BUCKET].keys):
            backend.delete_object(BUCKET, key)

    @staticmethod
    def _backend() -> Any:
        from moto.s3.models import s3_backends

        return s3_backends["123456789012"]["aws"]


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """The server with an empty bucket, and the environment in which every S3 client finds it, in child processes too."""
    import s3fs
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_args: object) -> None:
            """Nothing on the test run's standard error."""

    application = S3Server()
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with suppress(FileExistsError):  # moto's buckets live as long as the process
            s3fs.S3FileSystem().mkdir(BUCKET)
        application.clear()
        yield application
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        server.shutdown()
        thread.join()
        server.server_close()
