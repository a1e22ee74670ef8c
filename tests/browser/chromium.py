"""The browser: found on this machine, and listened to, so that nothing goes wrong in silence."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, sync_playwright

__all__ = ["ChromiumMissing", "Heard", "launched"]

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first is Chromium without its window, menus and pages of its own, and takes two thirds of the time."""
TIMEOUT_MS = 30_000
"""For how long an action waits for its element. Two cores may be busy with a search engine too."""


class ChromiumMissing(Exception):
    """There is none; the text says what to install."""


@contextmanager
def launched() -> Iterator[Browser]:
    """A Chromium without a window, which ends with this block. Raises ChromiumMissing.

    Its driver keeps an event loop in this thread: until it ends, nothing else can run one here.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise ChromiumMissing(
            f"the browser tests need a Chromium on PATH, as {', '.join(NAMES)}: apt-get install chromium"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


class Heard:
    """What pages said that should have kept silent: console messages, errors, violations of their CSP."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._expected: list[str] = []

    def listen(self, context: BrowserContext) -> None:
        """Hear every page of this context, from its first line on."""
        context.on("console", lambda message: self._hear(f"{message.type}: {message.text} ({message.location['url']})"))
        context.on("weberror", lambda error: self._hear(f"uncaught: {error.error}"))
        context.expose_binding("auditTestViolation", lambda source, text: self._hear(f"CSP: {text}"))
        context.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => auditTestViolation("
            "`${event.effectiveDirective} refused ${event.blockedURI} ${event.sample} at ${event.sourceFile}`))"
        )

    def expect(self, pattern: str) -> None:
        """Say that this test makes the page say something that matches, once or more; what does not come is missed."""
        self._expected.append(pattern)

    def complaints(self) -> list[str]:
        """What was said and not expected, and what was expected and not said."""
        unexpected = [text for text in self._said if not any(re.search(one, text) for one in self._expected)]
        missed = [one for one in self._expected if not any(re.search(one, text) for text in self._said)]
        return [f"heard {text}" for text in unexpected] + [f"never heard {one}" for one in missed]

    def _hear(self, text: str) -> None:
        self._said.append(text)
