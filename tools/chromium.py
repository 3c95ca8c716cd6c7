"""The browser that prints the book and in which its pages are tested."""

import shutil
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

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
def chromium():
    """Yield Chromium without a window: the system's, or else Playwright's own."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        if not program and not Path(playwright.chromium.executable_path).exists():
            raise LookupError(
                "there is no Chromium: install your system's package chromium, or run "
                ".venv/bin/playwright install chromium"
            )
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()
