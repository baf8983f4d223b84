"""The page in a real browser: whole, quiet, readable on a phone and on paper."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.browser import watched
from tinyhd_pipe.stages.report import report
from tinyhd_pipe.stages.reports.places import Asked
from tinyhd_pipe.stages.settings.report import ReportOptions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
SECTIONS = ("trained", "curves", "evaluation", "gallery", "store", "costs", "settings")
BROKEN = "[...document.images].filter(image => !(image.complete && image.naturalWidth > 0)).length"
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def page(made: Path) -> Path:
    return report(Asked(made / "runs/student"), made / "page.html", ReportOptions(loop_frames=4)).path


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_it_is_whole_and_quiet_and_never_wider_than_the_screen(browser: "Browser", page: Path, width: int) -> None:
    with watched(browser, viewport={"width": width, "height": 800}) as seen:
        seen.page.goto(page.as_uri())
        assert seen.page.evaluate("document.images.length") > 30
        assert seen.page.evaluate(BROKEN) == 0
        assert seen.page.evaluate(SIDEWAYS) <= 0
        assert seen.left(page.as_uri()) == []
        assert seen.complaints == []
        assert [section for section in SECTIONS if not seen.page.locator(f"#{section}").is_visible()] == []


def test_a_picture_that_does_not_decode_and_a_line_that_is_too_long_would_be_seen(
    browser: "Browser", page: Path, tmp_path: Path
) -> None:
    html = page.read_text().replace("data:image/webp;base64,UklGR", "data:image/webp;base64,AAAAA", 1)
    (tmp_path / "bad.html").write_text(html.replace("<main>", '<main><img src="https://example.org/a.png">'))
    with watched(browser, viewport={"width": 360, "height": 800}) as seen:
        seen.page.goto((tmp_path / "bad.html").as_uri())
        seen.page.evaluate("document.querySelector('h1').style.width = '500px'")
        assert seen.page.evaluate(BROKEN) == 2
        assert seen.page.evaluate(SIDEWAYS) > 0
        assert seen.complaints, "the page's own policy lets nothing in from elsewhere"


def test_loops_move_and_stand_still_where_that_is_asked_for(browser: "Browser", page: Path) -> None:
    place = "getComputedStyle(document.querySelector('.loop img')).objectPosition"
    with watched(browser) as seen:
        seen.page.goto(page.as_uri())
        places = {seen.page.evaluate(place) for _ in _waits(seen.page)}
        assert len(places) == 4, "each frame is shown"
        seen.page.get_by_label("hold the loops still").check()
        assert len({seen.page.evaluate(place) for _ in _waits(seen.page)}) == 1
    with watched(browser, reduced_motion="reduce") as seen:
        seen.page.goto(page.as_uri())
        assert len({seen.page.evaluate(place) for _ in _waits(seen.page)}) == 1


def _waits(page: "Page") -> Iterator[int]:
    for wait in range(12):
        page.wait_for_timeout(45)
        yield wait


def test_dark_is_dark_and_paper_is_white(browser: "Browser", page: Path) -> None:
    with watched(browser, color_scheme="dark") as seen:
        seen.page.goto(page.as_uri())
        assert _brightness(seen.page) < 60
        seen.page.emulate_media(media="print")
        assert _brightness(seen.page) > 220
    with watched(browser, color_scheme="light") as seen:
        seen.page.goto(page.as_uri())
        assert _brightness(seen.page) > 220


def _brightness(page: "Page") -> float:
    """Of the page's edge, where nothing stands."""
    picture = Image.open(io.BytesIO(page.screenshot()))
    return float(np.median(np.asarray(picture.convert("L"))[:, :10]))


def test_it_prints_with_all_its_sections(browser: "Browser", page: Path) -> None:
    from pypdf import PdfReader

    with watched(browser) as seen:
        seen.page.goto(page.as_uri())
        printed = PdfReader(io.BytesIO(seen.page.pdf(format="A4")))
        headings = seen.page.locator("h2").all_inner_texts()
    text = " ".join(sheet.extract_text() for sheet in printed.pages)
    assert len(headings) == len(SECTIONS)
    assert [heading for heading in headings if heading not in " ".join(text.split())] == []
    assert sum(len(sheet.images) for sheet in printed.pages) > 30
