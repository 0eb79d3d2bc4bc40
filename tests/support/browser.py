"""A page in headless Chromium, through Playwright."""

import atexit
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")


class OpenedPage:
    """A page with everything that it asked for and said.

    Conditions are polled from outside: the page's own policy refuses ``eval``, which Playwright's waiting uses.
    """

    def __init__(self, page: Any) -> None:
        self._page = page
        self.requests: list[str] = []
        self.messages: list[str] = []
        page.on("request", lambda request: self._asked(request.url))
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("dialog", lambda dialog: (self.messages.append(dialog.message), dialog.dismiss()))

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.requests.append(url)

    def value(self, expression: str) -> Any:
        """What the expression gives in the page."""
        return self._page.evaluate(expression)

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Until the condition holds; fails the test after so many seconds."""
        end = time.monotonic() + seconds
        while not self.value(condition):
            assert time.monotonic() < end, f"{condition} after {seconds} s: {self.messages}"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        self._page.click(selector)

    def hover(self, selector: str) -> None:
        self._page.hover(selector, force=True)

    def fill(self, selector: str, text: str) -> None:
        self._page.fill(selector, text)

    def select(self, selector: str, value: str) -> None:
        self._page.select_option(selector, value)

    def press(self, selector: str, key: str) -> None:
        self._page.press(selector, key)

    def picture(self, file: Path) -> None:
        self._page.screenshot(path=str(file))

    def text(self, selector: str) -> str:
        return str(self._page.text_content(selector))

    def count(self, selector: str) -> int:
        return int(self._page.locator(selector).count())

    def pdf(self, file: Path) -> None:
        self._page.pdf(path=str(file), prefer_css_page_size=True)


@contextmanager
def opened(file: Path, width: int = 1300, scheme: str = "light", wait: bool = True) -> Iterator[OpenedPage]:
    """The file in a browser that has no network."""
    context = _browser().new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    found = OpenedPage(page)
    page.goto(file.resolve().as_uri(), wait_until="load" if wait else "commit")
    try:
        yield found
    finally:
        context.close()


@contextmanager
def opened_url(url: str, width: int = 1300, scheme: str = "light") -> Iterator[OpenedPage]:
    """The page of a server of this machine."""
    context = _browser().new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    found = OpenedPage(page)
    page.goto(url)
    try:
        yield found
    finally:
        context.close()


@cache  # Playwright's synchronous form can be started once in a thread
def _browser() -> Any:
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
    atexit.register(playwright.stop)
    atexit.register(browser.close)
    return browser
