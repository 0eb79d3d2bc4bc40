#!/usr/bin/env python
"""Take the pictures of reports that stand in the documents.

    python scripts/docs/pictures.py runs/report/report.html report

writes ``docs/pictures/<name>-*.png`` with Playwright and Debian's Chromium: findings, table, plots, the answers of one
run, and the top of the page on a narrow dark screen.
"""

import argparse
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"
WIDE, NARROW, TALLEST = 1200, 420, 700  # CSS pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="a report.html")
    parser.add_argument("name", help="first part of the names of the pictures")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.browser, args=["--no-sandbox"])
        take(browser, arguments.page.resolve().as_uri(), arguments.name)
        browser.close()


def take(browser: Browser, address: str, name: str) -> None:
    """All pictures of one page."""
    wide = opened(browser, address, WIDE, "light")
    shown = {"findings": wide.locator("#findings"), "table": wide.locator(".group .scroll").first}
    shown |= {str(plot.get_attribute("data-plot")): plot for plot in wide.locator("figure[data-plot]").all()}
    for kind, element in shown.items():
        if element.is_visible():
            element.scroll_into_view_if_needed()
            wide.wait_for_timeout(500)
            element.screenshot(path=FOLDER / f"{name}-{kind}.png")
    answers = wide.locator(".answers").first
    if answers.count():
        answers.scroll_into_view_if_needed()
        wide.wait_for_timeout(1000)
        x, y, width, height = answers.evaluate(
            "node => { const r = node.getBoundingClientRect(); return [r.x, r.y + scrollY, r.width, r.height] }"
        )
        clip = {"x": x, "y": y, "width": width, "height": min(height, TALLEST)}
        wide.screenshot(path=FOLDER / f"{name}-answers.png", clip=clip, full_page=True)
    narrow = opened(browser, address, NARROW, "dark")
    narrow.screenshot(path=FOLDER / f"{name}-narrow.png", clip={"x": 0, "y": 0, "width": NARROW, "height": 900})


def opened(browser: Browser, address: str, width: int, scheme: str) -> Page:
    """The page with its plots drawn."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(address)
    page.wait_for_timeout(3000)
    return page


if __name__ == "__main__":
    main()
