"""What monitoring asks for, in Prometheus' text format 0.0.4.

Each process tells what it counted itself; the spool's figures are those of its file, the same from every process.
A writer of our own: prometheus_client would be more to install, and keeps one registry for the whole process, which an
application around this one may use for itself.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

from audit_pipeline.processor import AuditPipeline

__all__ = ["MEDIA_TYPE", "SECONDS", "Metrics"]

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.05, 0.25, 1.0, 5.0)
"""The upper bounds of the histogram of durations; above the last one is one bucket more."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """Counts what one process answers. Serves all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self._durations: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._exports = Counter(complete=0, failed=0, refused=0)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer; `seconds` until it began: a stream may last for days."""
        method = method if method in _METHODS else "other"
        with self._lock:
            self._answers[route, method, f"{status // 100}xx"] += 1
            self._durations.setdefault(route, [0] * (len(SECONDS) + 1))[bisect_left(SECONDS, seconds)] += 1
            self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def exported(self, outcome: str) -> None:
        """Count an export: `complete`, `failed` (also where the client left) or `refused` (too many at once)."""
        with self._lock:
            self._exports[outcome] += 1

    def text(self, pipeline: AuditPipeline, streams: int) -> str:
        """All of it, in Prometheus' text format. Raises SpoolError."""
        spool = pipeline.status()
        retries = pipeline.shipper.retries if pipeline.shipper is not None else 0
        with self._lock:
            answers, exports = dict(self._answers), dict(self._exports)
            durations = [
                sample
                for route in sorted(self._durations)
                for sample in _histogram(route, self._durations[route], self._seconds[route])
            ]
        shipped = spool.accepted - spool.pending
        families = [
            _family("spool_pending", "gauge", "Entries in the spool that no store has yet.", spool.pending),
            _family("spool_oldest_seconds", "gauge", "Age of the oldest of them.", spool.oldest_ms / 1000),
            _family("spool_bytes", "gauge", "Size of the spool's files.", spool.bytes),
            _family("spool_quarantined", "gauge", "Entries that the store refused.", spool.quarantined),
            _family("spool_accepted_total", "counter", "Entries that the spool ever took.", spool.accepted),
            _family("spool_shipped_total", "counter", "Of these, stored or in quarantine.", shipped),
            _family("shipper_retries_total", "counter", "Batches that the store did not take when asked.", retries),
            _family("open_streams", "gauge", "Live streams that are open.", streams),
            _family(
                "exports_total",
                "counter",
                "CSV exports, by how they ended.",
                {_labels(outcome=outcome): number for outcome, number in exports.items()},
            ),
            _family(
                "http_requests_total",
                "counter",
                "Answers, by route, method and class of status.",
                {
                    _labels(route=route, method=method, status=status): number
                    for (route, method, status), number in sorted(answers.items())
                },
            ),
            _head("http_request_duration_seconds", "histogram", "Seconds until an answer began."),
            *durations,
        ]
        return "".join(families)


def _family(name: str, kind: str, about: str, samples: float | Mapping[str, float]) -> str:
    given = samples if isinstance(samples, Mapping) else {"": samples}
    return _head(name, kind, about) + "".join(f"audit_{name}{labels} {value}\n" for labels, value in given.items())


def _head(name: str, kind: str, about: str) -> str:
    return f"# HELP audit_{name} {about}\n# TYPE audit_{name} {kind}\n"


def _histogram(route: str, counts: Iterable[int], seconds: float) -> Iterable[str]:
    name, total = "audit_http_request_duration_seconds", 0
    for bound, count in zip((*map(str, SECONDS), "+Inf"), counts, strict=True):
        total += count
        yield f"{name}_bucket{_labels(route=route, le=bound)} {total}\n"
    yield f"{name}_sum{_labels(route=route)} {seconds}\n{name}_count{_labels(route=route)} {total}\n"


def _labels(**labels: str) -> str:
    # Their values are names of ours: none has a quote, a backslash or a line break to escape.
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
