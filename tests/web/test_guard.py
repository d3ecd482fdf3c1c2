"""Only who opened the printed address sees a page; other names, pages and programs are refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from maskbatch.errors import UsageError
from maskbatch.web.server import Guard, address, bind

PORT = 8123


async def _page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"{scope['method']} {scope['path']}".encode()})


class Browser:
    """Requests to a guarded page, with a cookie jar."""

    def __init__(self, **options: Any) -> None:
        self.guard = Guard(_page, PORT, **options)
        self.cookies = httpx.Cookies()

    def __call__(
        self, path: str = "/", method: str = "GET", host: str = f"127.0.0.1:{PORT}", **headers: str
    ) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.guard)
            base = f"http://{host}"
            async with httpx.AsyncClient(transport=transport, base_url=base, cookies=self.cookies) as client:
                answer = await client.request(method, path, headers=headers)
                self.cookies.update(client.cookies)
                return answer

        return asyncio.run(ask())


@pytest.fixture
def browser() -> Browser:
    opened = Browser()
    assert opened(f"/?token={opened.guard.token}").status_code == 303
    return opened


def test_token_opens_the_page_once_and_the_cookie_keeps_it_open(browser: Browser) -> None:
    assert browser().text == "GET /"
    assert browser.guard.token is None


def test_without_token_or_with_a_used_one_nothing_is_shown() -> None:
    first, second = Browser(), Browser()
    second.guard = first.guard
    token = first.guard.token
    assert second().status_code == 403
    assert second("/?token=wrong").status_code == 403
    assert first(f"/?token={token}").status_code == 303
    assert second(f"/?token={token}").status_code == 403


def test_cookie_is_out_of_reach_of_scripts_and_other_sites() -> None:
    browser = Browser()
    cookie = browser(f"/?token={browser.guard.token}").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1:9", "127.0.0.1.evil.example"])
def test_other_names_are_refused_even_with_the_cookie(browser: Browser, host: str) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    assert browser(host=host, cookie=cookie).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"http://127.0.0.1:{PORT}", "sec-fetch-site": "cross-site"},
    ],
)
def test_changes_from_other_pages_are_refused(browser: Browser, headers: dict[str, str]) -> None:
    assert browser("/decide", "POST", **headers).status_code == 403
    assert browser("/decide", "POST", origin=f"http://127.0.0.1:{PORT}").text == "POST /decide"


def test_every_answer_forbids_what_is_not_ours(browser: Browser) -> None:
    for answer in (browser(), browser(host="evil.example")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


def test_open_paths_need_no_token_but_the_right_name() -> None:
    browser = Browser(open_paths=("/healthz",))
    assert browser("/healthz").status_code == 200
    assert browser("/healthz", host="evil.example").status_code == 421


def test_address_that_cannot_be_had_is_one_sentence() -> None:
    taken = bind("127.0.0.1", 0)
    try:
        with pytest.raises(UsageError, match="cannot be listened on"):
            bind("127.0.0.1", taken.getsockname()[1])
        assert address("0.0.0.0", 80, "x") == "http://127.0.0.1:80/?token=x"
    finally:
        taken.close()
