"""A real browser, Debian's Chromium, for tests of the pages that we write; and a page that is watched in use."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Nothing that asks the network by itself, and what a container without a display and user namespaces wants."""


def chromium() -> str | None:
    """The browser's path; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> "Iterator[Browser]":
    """Chromium without a window, from now on."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(QUIET))
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, what it asked for and what it complained of."""

    page: "Page"
    requests: list[str] = field(default_factory=list)
    """Addresses, in their order; `data:` and `blob:` are among them."""
    complaints: list[str] = field(default_factory=list)
    """Errors on the console, exceptions that nobody caught, and requests that failed."""

    def left(self, *origins: str) -> list[str]:
        """Requests that went elsewhere than to `origins`, such as `http://127.0.0.1:8000` or `file://`."""
        inside = (*origins, "data:", "blob:")
        return [address for address in self.requests if not address.startswith(inside)]


@contextmanager
def watched(browser: "Browser", **settings: Any) -> Iterator[Watched]:
    """A new page in a profile of its own; `settings` are Playwright's: viewport, color_scheme, offline, ..."""
    context = browser.new_context(**settings)
    page = context.new_page()
    seen = Watched(page)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("requestfailed", lambda request: _note_failure(seen, request))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("console", lambda said: seen.complaints.append(said.text) if said.type == "error" else None)
    yield seen
    context.close()


def _note_failure(seen: Watched, request: Any) -> None:
    """A film that is played from memory is asked for in parts, and a part that is not wanted any more is no failure."""
    if not (request.url.startswith("blob:") and request.failure == "net::ERR_ABORTED"):
        seen.complaints.append(f"{request.url}: {request.failure}")
