"""Pictures of the viewer in all its states, for eyes: `make screenshots`.

    python -m tests.browser.screenshots [--states log,entry] [--out FOLDER] [--whole]

Each state at three widths, light and dark, as `build/screenshots/STATE-WIDTH-SCHEME.png`; and `docs/viewer.png`, which
the README shows. The store has what the demo's dashboard left in it. The states are those of `states.py`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser

from audit_pipeline.demo import fill
from audit_pipeline.settings import Settings

from .chromium import TIMEOUT_MS, launched
from .server import Live, Server
from .states import STATES, State

ROOT = Path(__file__).parent.parent.parent
EVENTS = 600
SIZES = ((1280, 800), (800, 900), (360, 740))
"""Widths and heights, in CSS pixels."""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
OF_README = "log"


def take(
    browser: Browser, live: Live, state: State, size: tuple[int, int], to: Callable[[str], Path], whole: bool
) -> None:
    """Two pictures, light and dark: of what the window shows, or (`whole`) of the page in its full height."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        reduced_motion="reduce",
        locale="en-US",
        timezone_id="Europe/Berlin",
    )
    context.set_default_timeout(TIMEOUT_MS)
    with context:
        page = context.new_page()
        state(page, live)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=to(scheme), animations="disabled", full_page=whole)


def _picture(folder: Path, state: str, size: tuple[int, int], scheme: str) -> Path:
    return folder / f"{state}-{size[0]}-{scheme}.png"


def main() -> None:
    """Fill a store, serve it, and take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=lambda text: text.split(","), default=list(STATES))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "screenshots")
    parser.add_argument("--whole", action="store_true", help="the page in its full height, not the window")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="audit-screenshots-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'audit.db'}"
        fill(Settings(store_url=url, spool=folder / "spool.db"), EVENTS)
        server = Server(url, folder)
        server.start()
        try:
            with Live.pipeline_of(url, folder) as pipeline, launched() as browser:
                live = Live(server, url, folder, pipeline)
                live.org = "default"  # the demo's
                for state_name in given.states:
                    state = STATES[state_name]
                    for size in SIZES:
                        take(browser, live, state, size, partial(_picture, given.out, state_name, size), given.whole)
                    if state_name == OF_README:
                        shutil.copy(_picture(given.out, OF_README, SIZES[0], SCHEMES[0]), ROOT / "docs" / "viewer.png")
                    print(f"{state_name}: {len(SIZES) * len(SCHEMES)} pictures", flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
