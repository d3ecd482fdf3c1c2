"""The report in a real browser: filters, keyboard, dark mode, print, no network, and what a hostile name can do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from results_maker import face, write_result
from shared_data import REPOSITORY

from maskbatch.report.make import ReportOptions, make_report
from maskbatch.report.people import STEPS, read_people
from maskbatch.report.statistics.intervals import share_interval
from maskbatch.results.reader import ResultReader

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import reports

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the group browser")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
READY = "html[data-ready-ms]"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reports.write_synthetic(tmp_path_factory.mktemp("archive"), 20_000, cameras=5, days=14)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("needs Chromium (apt-get install chromium, or CHROMIUM=path)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(chromium: Any, html: str, folder: Path, **context: Any) -> tuple[Any, list[str]]:
    """A page that is ready, and what it complained of or asked for."""
    file = folder / "report.html"
    file.write_text(html)
    page = chromium.new_context(**context).new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: told.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    page.wait_for_selector(READY, state="attached")
    return page, told


def choose(page: Any, selector: str, value: str) -> None:
    page.evaluate("() => { delete document.documentElement.dataset.filterMs; }")
    page.eval_on_selector(
        selector, "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )
    page.wait_for_selector("html[data-filter-ms]", state="attached")


def test_filters_recompute_the_figures_without_a_network(chromium: Any, result: Path, tmp_path: Path) -> None:
    people = read_people(ResultReader(result))
    page, told = opened(chromium, make_report(result), tmp_path, offline=True, locale="en-GB")
    cells = people.cells
    chosen = (people.cell_camera[cells] == 1) & (people.confidence >= round(0.9 * STEPS))
    size = len(people.cell_count)
    correct = np.bincount(cells, chosen & (people.label == 0), size)
    expected = share_interval(correct, np.bincount(cells, chosen, size), people.cell_cluster)
    choose(page, "#f-camera", "1")
    choose(page, "#f-confidence", "90")
    sentence = page.inner_text("#sentence")
    numbers = [float(text) for text in re.findall(r"([\d.]+)%", sentence)]
    assert f"of {expected.people:,} people" in sentence
    assert numbers[0] == pytest.approx(100 * expected.share, abs=0.06)
    assert numbers[1:] == pytest.approx([100 * expected.low, 100 * expected.high], abs=1.5), (
        "14 camera-days: two bootstraps"
    )
    choose(page, "#f-camera", "-1")
    choose(page, "#f-confidence", "0")
    everything = share_interval(people.cell_correct, people.cell_count, people.cell_cluster)
    numbers = [float(text) for text in re.findall(r"([\d.]+)%", page.inner_text("#sentence"))]
    assert numbers == pytest.approx([100 * everything.share, 100 * everything.low, 100 * everything.high], abs=0.06)
    page.uncheck(".f-label[value='1']")
    page.click("button[type=reset]")
    page.wait_for_timeout(200)
    assert "20,000 of 20,000" in page.inner_text("#state")
    assert told == []


def test_numbers_follow_the_locale(chromium: Any, result: Path, tmp_path: Path) -> None:
    page, _ = opened(chromium, make_report(result), tmp_path, locale="de-DE")
    assert "20.000 people" in page.inner_text("#sentence")
    assert re.search(r"\d,\d", page.inner_text("#figure"))


def test_charts_speak_and_can_be_walked_by_keyboard(chromium: Any, result: Path, tmp_path: Path) -> None:
    page, _ = opened(chromium, make_report(result), tmp_path, locale="en-GB")
    page.hover("[data-by=camera] [data-tip] >> nth=2")
    assert "cam 03" in page.inner_text(".tip")
    page.focus("[data-by=hour] [data-tip] >> nth=0")
    before = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("ArrowRight")
    after = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert before != after
    assert "people" in after
    unlabelled = page.evaluate(
        "() => [...document.querySelectorAll('svg,input,select,button')].filter(e => !(e.ariaLabel || e.closest('label') || e.textContent)).length"
    )
    assert unlabelled == 0
    page.keyboard.press("Escape")
    assert not page.is_visible(".tip")


def test_dark_mode_changes_the_page_and_print_makes_a_pdf(chromium: Any, result: Path, tmp_path: Path) -> None:
    html = make_report(result)
    light, _ = opened(chromium, html, tmp_path, color_scheme="light")
    dark, _ = opened(chromium, html, tmp_path, color_scheme="dark")
    colour = "() => getComputedStyle(document.body).backgroundColor"
    assert light.evaluate(colour) != dark.evaluate(colour)
    light.pdf(path=str(tmp_path / "report.pdf"))
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    light.emulate_media(media="print")
    assert not light.is_visible("#filters")


def test_markup_in_names_does_nothing(chromium: Any, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>.mp4"
    rows = [face(source=evil, camera="<svg onload=alert(2)>", face=i) for i in range(3)]
    inputs = [{"source": evil, "status": "error", "error": "corrupt", "message": "<script>alert(3)</script>"}]
    page, told = opened(chromium, make_report(write_result(tmp_path, rows, inputs)), tmp_path)
    assert told == []
    assert page.query_selector("img") is None
    assert evil in page.inner_text("#failures")


@pytest.mark.parametrize("public", [False, True])
def test_an_empty_result_opens(chromium: Any, tmp_path: Path, public: bool) -> None:
    page, told = opened(
        chromium, make_report(write_result(tmp_path, [], []), options=ReportOptions(public=public)), tmp_path
    )
    assert "No face was found" in page.inner_text("#answer")
    assert told == []


def test_fifty_thousand_people_fit_in_two_megabytes(chromium: Any, tmp_path: Path) -> None:
    html = make_report(reports.write_synthetic(tmp_path, 50_000))
    assert len(html.encode()) < 2_000_000
    page, _ = opened(chromium, html, tmp_path)
    assert float(page.evaluate("() => document.documentElement.dataset.readyMs")) < 5_000, "2.5 s on a quiet machine"


def test_a_scan_of_files_named_like_markup_opens(chromium: Any, tmp_path: Path, face_photo: Any) -> None:
    folder = tmp_path / "in" / "<svg onload=alert(1)>"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), face_photo)
    (folder / "a.png").rename(folder / "<img src=x onerror=alert(2)>.png")
    (folder / "<!--<script>.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    out = tmp_path / "scanned.html"
    command = ["scan", str(tmp_path / "in"), "--out", str(tmp_path / "results.parquet"), "--report", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "maskbatch", *command, "--executor", "inline", "-q"], capture_output=True, check=False
    )
    assert done.returncode == 3, done.stderr
    page, told = opened(chromium, out.read_text(), tmp_path)
    assert told == []
    assert page.query_selector("img") is None
    assert "<svg onload=alert(1)>/<!--<script>.jpg" in page.inner_text("#failures")
    assert "of 1 sighting is judged" in page.inner_text("#sentence")
