"""A WSGI application that records: `gunicorn tests.faults.wsgi:application`, with AUDIT_STORE_URL and SAID."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from audit_pipeline import AuditPipeline

from .emitter import Notebook

audit = AuditPipeline.open()
notes = Notebook(Path(os.environ["SAID"]))


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Record that the path's domain was created."""
    notes.call(audit, environ["PATH_INFO"].removeprefix("/"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
