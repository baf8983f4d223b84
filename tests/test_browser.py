"""The browser that tests of pages use sees what a page does: where it asks, and what goes wrong in it."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
PAGE = """<!doctype html><meta charset="utf-8"><title>page</title><p id="said">nothing</p>
<script>document.getElementById("said").textContent = "something"</script>"""
FAULTY = (
    PAGE + """<img src="https://example.org/elsewhere.png"><script>console.error("a complaint"); missing()</script>"""
)


def test_a_page_that_asks_for_nothing_and_complains_of_nothing(browser: "Browser", tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    with watched(browser, offline=True) as seen:
        seen.page.goto((tmp_path / "page.html").as_uri())
        assert seen.page.text_content("#said") == "something"
        assert seen.page.evaluate("navigator.userAgent").count("Chrome")
    assert (seen.complaints, seen.left("file://")) == ([], [])


def test_a_request_that_leaves_and_an_error_are_seen(browser: "Browser", tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(FAULTY)
    with watched(browser, offline=True) as seen:
        seen.page.goto((tmp_path / "page.html").as_uri())
    assert seen.left("file://") == ["https://example.org/elsewhere.png"]
    said = "\n".join(seen.complaints)
    assert "a complaint" in said
    assert "missing is not defined" in said
    assert "elsewhere.png: net::ERR" in said
