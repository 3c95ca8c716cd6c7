"""The browser that prints the book, and in which its pages are tested and measured."""

import shutil
from contextlib import contextmanager
from pathlib import Path

NAMES = ["chromium", "chromium-browser", "google-chrome"]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium(*flags: str):
    """Yield Chromium without a window: the system's, or else Playwright's own.

    flags  given to it beside FLAGS

    Raises LookupError where there is no Playwright or no Chromium, and says how to get it.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise LookupError(
            "there is no Playwright: pip install -e '.[test,pdf]' installs it"
        ) from error
    program = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        if not program and not Path(playwright.chromium.executable_path).exists():
            raise LookupError(
                "there is no Chromium: install your system's package chromium, or run "
                ".venv/bin/playwright install chromium"
            )
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()
