"""What monitoring asks for, in Prometheus' text format 0.0.4.

Each process tells what it counted itself; the spool's figures are those of its file, the same from every process.
A writer of our own: prometheus_client would be more to install, and keeps one registry for the whole process, which an
application around this one may use for itself.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from audit_pipeline.errors import SpoolError
from audit_pipeline.event import now_ms
from audit_pipeline.gaps import REASONS
from audit_pipeline.processor import AuditPipeline
from audit_pipeline.shipping import KINDS as STOPPED
from audit_pipeline.shipping import shipping_of
from audit_pipeline.troubles import KINDS, troubles

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
        """All of it, in Prometheus' text format; of a spool that cannot be read, that this is so."""
        with self._lock:
            answers, exports = dict(self._answers), dict(self._exports)
            durations = [
                sample
                for route in sorted(self._durations)
                for sample in _histogram(route, self._durations[route], self._seconds[route])
            ]
        families = [
            *_spool(pipeline),
            *_shipping(pipeline),
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


def _spool(pipeline: AuditPipeline) -> Iterator[str]:
    """The figures of the spool's file, and what is wrong with it."""
    wrong = {trouble.kind for trouble in troubles(pipeline.spool, pipeline.gaps)}
    yield _family(
        "trouble",
        "gauge",
        "1 while something is wrong with the spool or with shipping; audit-pipeline doctor says what to do.",
        {_labels(kind=kind): int(kind in wrong) for kind in KINDS},
    )
    yield _family(
        "spool_gap", "gauge", "Entries that were counted, not recorded, and not told yet.", pipeline.gaps.missing()
    )
    yield _family("spool_limit_bytes", "gauge", "What spool_used_bytes may be.", pipeline.limits.size)
    yield _family(
        "spool_refused_total",
        "counter",
        "Entries that could not be recorded, by reason.",
        {_labels(reason=reason): pipeline.refused[reason] for reason in REASONS},
    )
    try:
        spool = pipeline.status()
    except SpoolError:
        return
    yield _family("spool_pending", "gauge", "Entries in the spool that no store has yet.", spool.pending)
    yield _family("spool_oldest_seconds", "gauge", "Age of the oldest of them.", spool.oldest_ms / 1000)
    yield _family("spool_bytes", "gauge", "Size of the spool's files.", spool.bytes)
    yield _family("spool_used_bytes", "gauge", "How much of that holds entries.", spool.used)
    yield _family("spool_free_bytes", "gauge", "Bytes that are free on the spool's disk.", spool.free)
    yield _family("spool_quarantined", "gauge", "Entries that the store refused.", spool.quarantined)
    yield _family(
        "spool_damaged", "gauge", "Damaged spools that were set aside and not moved away.", len(spool.damaged)
    )
    yield _family("spool_accepted_total", "counter", "Entries that the spool ever took.", spool.accepted)
    shipped = spool.accepted - spool.pending
    yield _family("spool_shipped_total", "counter", "Of these, stored or in quarantine.", shipped)


def _shipping(pipeline: AuditPipeline) -> Iterator[str]:
    """How shipping goes, in whichever process."""
    shipping = shipping_of(pipeline.spool.path)
    stopped = shipping.stopped
    retries = pipeline.shipper.retries if pipeline.shipper is not None else 0
    yield _family(
        "shipper_running", "gauge", "1 where some process ships the spool.", int(shipping.process is not None)
    )
    yield _family(
        "shipper_stopped",
        "gauge",
        "1 while the store takes nothing, by the kind of error.",
        {_labels(kind=kind): int(stopped is not None and stopped.kind == kind) for kind in STOPPED},
    )
    seconds = max(0, now_ms() - stopped.since) / 1000 if stopped is not None else 0
    yield _family("shipper_stopped_seconds", "gauge", "For how long it does not.", seconds)
    yield _family("shipper_retries_total", "counter", "Batches that the store did not take when asked.", retries)


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
