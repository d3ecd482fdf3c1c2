"""The live page in Chromium: it fills, follows what happens, fits a phone, and asks for nothing from elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live_kit
import pytest
from test_page_served import SECRET, watch  # noqa: F401

from maskbatch.live.page import serve
from maskbatch.live.watch import Watch

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the group browser")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("needs Chromium (apt-get install chromium, or CHROMIUM=path)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_the_page_shows_cameras_counts_and_events(
    chromium: Any,
    watch: Watch,  # noqa: F811
    size: tuple[int, int],
    tmp_path: Path,
) -> None:
    page = chromium.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    address = serve(watch)
    base = address.partition("/?")[0]
    page.on(
        "request", lambda request: told.append(request.url) if not request.url.startswith((base, "data:")) else None
    )
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.locator(".camera").count() == 2
    live_kit.wait_for(lambda: page.evaluate("document.querySelector('.camera img').naturalWidth") > 0)
    assert "1 of 2 cameras not seen" in page.inner_text("#status")
    assert "live" in page.inner_text(".camera:nth-child(1) .badge")
    assert page.inner_text(".camera:nth-child(2) .badge").startswith("lost")
    assert "yard lost" in page.inner_text("#events")
    facts = page.locator(".camera .facts p").first
    before = facts.inner_text()
    live_kit.wait_for(lambda: facts.inner_text() != before)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the window"
    assert SECRET not in page.content()
    assert told == []
    shot = os.environ.get("MASKBATCH_SHOTS")
    page.screenshot(path=str(Path(shot or tmp_path) / f"live-{size[0]}.png"), full_page=True)


def test_dark_mode_and_a_hostile_name(chromium: Any, watch: Watch) -> None:  # noqa: F811
    page = chromium.new_context(color_scheme="dark").new_page()
    told: list[str] = []
    page.on("dialog", lambda dialog: (told.append("dialog"), dialog.dismiss()))
    watched = watch._cameras["yard"]
    watched.lost_why = "x"
    event = watch.alarms.event(
        "camera_lost", 0.0, camera="<img src=x onerror=alert(1)>", reason="<script>alert(2)</script>"
    )
    with watch._lock:
        watch._tell(event)
    page.goto(serve(watch))
    page.wait_for_selector("html[data-ready]", state="attached")
    live_kit.wait_for(lambda: "<script>alert(2)" in page.inner_text("#events"))
    assert told == []
