"""The review page in a real browser, on a real server: what a guard with five hundred faces to check does, and what must not be lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from shared_data import REPOSITORY
from toy_scan import copy_result, toy_scan

import maskbatch
from maskbatch.results.correction_log import CorrectionLog

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import reports

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the group browser")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
READY = "html[data-ready-ms]"
BUSY = 4.0
"""Times may be so many times those that are promised (and printed) before a test fails: the machine may have other work."""


class Served:
    """`maskbatch review` or `audit` as a process."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-u", "-m", "maskbatch", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.search(r"http://\S+", line)
        assert match, line + self.process.stdout.read()
        self.url = match[0]

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=30)
        return str(rest)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(*arguments: str) -> Served:
        running.append(Served(*arguments))
        return running[-1]

    yield start
    for served in running:
        if served.process.poll() is None:
            served.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("needs Chromium (apt-get install chromium, or CHROMIUM=path)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_scan(tmp_path_factory.mktemp("scan"))


@pytest.fixture
def result(scanned: Path, tmp_path: Path) -> Path:
    return copy_result(scanned.parent, tmp_path)


def opened(chromium: Any, url: str, context: Any = None) -> tuple[Any, list[str]]:
    """A page that is ready, and what it complained of or asked others for."""
    page = (context or chromium.new_context(viewport={"width": 1280, "height": 860})).new_page()
    told: list[str] = []
    home = url.split("?", maxsplit=1)[0]
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith(home) else told.append(request.url))
    page.goto(url)
    page.wait_for_selector(READY, state="attached", timeout=30_000)
    return page, told


def log_of(result: Path) -> list[Any]:
    return CorrectionLog(result.with_name("results.corrections.csv")).read()


def wait_until(page: Any, selector: str, text: str) -> None:
    page.wait_for_function(
        "([s, t]) => document.querySelector(s).textContent.includes(t)", arg=[selector, text], timeout=10_000
    )


def draw_a_face(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a box in the image that is open, as a person with a mask; corners are parts of the image."""
    page.wait_for_function("() => document.querySelector('#detail .picture img').complete")
    page.keyboard.press("d")
    area = page.locator("#detail svg").bounding_box()
    page.mouse.move(area["x"] + area["width"] * start[0], area["y"] + area["height"] * start[1])
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * end[0], area["y"] + area["height"] * end[1], steps=4)
    page.mouse.up()
    page.keyboard.press("1")
    page.wait_for_selector("#detail svg rect.drawn")


def test_faces_are_filtered_corrected_by_key_and_taken_back(result: Path, chromium: Any, serve: Any) -> None:
    page, told = opened(chromium, serve("review", str(result)).url)
    assert page.inner_text("#count").startswith("13 faces")
    page.select_option("#f-label", "1")
    wait_until(page, "#count", "6 faces")
    page.locator("#scroller").focus()
    page.keyboard.press("1")
    page.keyboard.press("x")
    wait_until(page, "#done", "2 of 13 decided, 1 changed, 1 no face")
    assert [(record.action, record.label) for record in log_of(result)] == [("label", "with_mask"), ("not_a_face", "")]
    page.keyboard.press("u")
    wait_until(page, "#done", "1 of 13 decided")
    page.reload()
    page.wait_for_selector(READY, state="attached")
    wait_until(page, "#done", "1 of 13 decided")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("3")
    wait_until(page, "#saved", "saved 3")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail svg rect.own")
    assert told == []


def test_a_missed_face_is_drawn_in_its_frame(result: Path, chromium: Any, serve: Any) -> None:
    page, told = opened(chromium, serve("review", str(result)).url)
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail svg rect.own")
    draw_a_face(page, (0.6, 0.6), (0.8, 0.9))
    wait_until(page, "#saved", "saved")
    (drawn,) = log_of(result)
    assert drawn.action == "missed"
    assert drawn.box == pytest.approx((192, 115, 256, 173), abs=4)
    assert told == []


def test_two_tabs_both_count_and_the_last_decision_wins(result: Path, chromium: Any, serve: Any) -> None:
    context = chromium.new_context()
    served = serve("review", str(result))
    first, _ = opened(chromium, served.url, context)
    second, _ = opened(chromium, served.url.split("?")[0], context)
    first.keyboard.press("1")
    wait_until(first, "#saved", "saved")
    second.keyboard.press("2")
    wait_until(second, "#saved", "saved")
    assert [record.label for record in log_of(result)] == ["with_mask", "without_mask"]
    assert maskbatch.read_results(result, corrections=True)["label"].iloc[0] == "without_mask"


def test_without_the_address_nothing_is_shown(result: Path, chromium: Any, serve: Any) -> None:
    served = serve("review", str(result))
    opened(chromium, served.url)
    page = chromium.new_context().new_page()
    page.goto(served.url)
    assert "works once" in page.inner_text("body")


def test_killed_in_the_middle_no_decision_that_was_shown_as_saved_is_lost(
    result: Path, chromium: Any, serve: Any
) -> None:
    served = serve("review", str(result))
    page, _ = opened(chromium, served.url)
    for _ in range(6):
        page.keyboard.press("2")
    time.sleep(0.05)
    served.end(signal.SIGKILL)
    time.sleep(0.5)
    shown = int(page.inner_text("#done").split()[0])
    page.keyboard.press("1")
    wait_until(page, "#message", "is it still running")
    assert page.inner_text("#saved") == "NOT SAVED"
    again, _ = opened(chromium, serve("review", str(result)).url)
    assert int(again.inner_text("#done").split()[0]) >= shown


def test_audit_goes_from_hidden_answers_to_an_estimate(result: Path, chromium: Any, serve: Any) -> None:
    served = serve("audit", str(result), "--sample", "13")
    page, told = opened(chromium, served.url)
    assert "0.9" not in page.inner_text("#canvas")
    assert set(page.locator(".what span:nth-child(2)").all_inner_texts()) == {"?"}
    for _ in range(13):
        page.keyboard.press("1")
    page.wait_for_selector("#result h2")
    assert "95 % interval" in page.inner_text("#result")
    assert told == []
    said = served.end()
    assert "13 of 13 answers" in said
    assert result.with_name("results.audit.json").exists()


def test_frames_of_an_audit_tell_what_was_missed(result: Path, chromium: Any, serve: Any) -> None:
    served = serve("audit", str(result), "--sample", "15")
    page, told = opened(chromium, served.url)
    page.keyboard.press("f")
    page.wait_for_selector("#detail svg")
    draw_a_face(page, (0.05, 0.8), (0.2, 0.98))
    for number in range(3):  # a fifth of the sample
        page.wait_for_function(
            "n => document.querySelector('#detail h3').textContent.startsWith(`Frame ${n} of 3`)", arg=number + 1
        )
        page.keyboard.press("c")
    page.wait_for_selector("#result h2")
    assert "from 3 of 3 frames: 1 missed" in page.inner_text("#result")
    assert [record.action for record in log_of(result)] == ["missed", "checked", "checked", "checked"]
    assert told == []


def test_hostile_names_run_nothing(chromium: Any, serve: Any, tmp_path: Path) -> None:
    from test_review_faces import face, faces_of

    name = '"><img src=x onerror=alert(1)>\n</script><script>alert(2)</script>.mp4'
    faces_of(tmp_path, *(face(at, source=name, camera="<b>gate</b>") for at in range(5)))
    page, told = opened(chromium, serve("review", str(tmp_path / "results.parquet")).url)
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail:not(.hidden)")
    time.sleep(0.3)
    assert [line for line in told if "404" not in line] == []
    assert page.locator("b").count() == 0


def test_a_million_faces(chromium: Any, serve: Any, tmp_path: Path) -> None:
    served = serve("review", str(reports.write_synthetic(tmp_path, 1_000_000, tracked=False)))
    page, _ = opened(chromium, served.url)
    ready = float(page.evaluate("document.documentElement.dataset.readyMs"))
    times = []
    for selector, value in (("#f-camera", "3"), ("#f-queue", "uncertain"), ("#f-label", "1"), ("#f-sort", "-size")):
        page.evaluate("delete document.documentElement.dataset.selectMs")
        page.select_option(selector, value)
        page.wait_for_selector("html[data-select-ms]", state="attached", timeout=20_000)
        times.append(float(page.evaluate("document.documentElement.dataset.selectMs")))
    page.click("#reset-filters")
    wait_until(page, "#count", "1,000,000 faces")
    page.locator("#scroller").focus()
    before = time.monotonic()
    page.keyboard.press("End")
    page.wait_for_selector(".cell[data-at='999999']")
    jump = time.monotonic() - before
    memory = psutil.Process(served.process.pid).memory_info().rss / 1e6
    print(f"first grid {ready:.0f} ms, filters {times} ms, jump to the end {jump:.2f} s, server {memory:.0f} MB")
    assert ready <= 2000 * BUSY
    assert max(times) <= 300 * BUSY
    assert jump <= 1.0 * BUSY
    assert memory <= 1000
