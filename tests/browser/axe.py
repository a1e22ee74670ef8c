"""axe-core, in a JavaScript world of its own: the page's CSP stays as strict as it is, and the page does not see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

__all__ = ["violations"]

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def violations(page: Page, packages: Path, rules: Sequence[str] = ()) -> list[str]:
    """What axe finds in the page as it is, shadow trees included: one line for each element, empty where all is well.

    `packages` is the folder `node_modules` with axe-core; `rules` are the only ones, else all of RULES' kinds.
    """
    devtools = page.context.new_cdp_session(page)
    try:
        frame = devtools.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        world = devtools.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})["executionContextId"]

        def run(code: str) -> Any:
            asked = {"expression": code, "contextId": world, "awaitPromise": True, "returnByValue": True}
            answer = devtools.send("Runtime.evaluate", asked)
            assert "exceptionDetails" not in answer, answer["exceptionDetails"]
            return answer["result"].get("value")

        run((packages / "axe-core" / "axe.min.js").read_text() + "\n;0")
        only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": RULES}
        options = {"runOnly": only, "resultTypes": ["violations"]}
        found = run(f"axe.run(document, {json.dumps(options)}).then((result) => JSON.stringify(result.violations))")
    finally:
        devtools.detach()
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['html'][:200]}: {node['failureSummary']}"
        for rule in json.loads(found)
        for node in rule["nodes"]
    ]
