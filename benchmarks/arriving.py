"""Records so many events a second, fifty at a time: `python -m benchmarks.arriving URL SPOOL RATE SECONDS NAME`.

Begins when it reads a line. Prints how many it recorded, and how many waited in the spool meanwhile.
"""

from __future__ import annotations

import json
import sys
import time

from audit_pipeline import AuditPipeline
from audit_pipeline.actions import catalogue

__all__ = ["main"]

AT_ONCE = 50


def main() -> None:
    """Do it."""
    url, spool, rate, seconds, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
    action = catalogue["auth.login_succeeded"]
    with AuditPipeline.open(url, spool=spool) as pipeline:
        pipeline.record("auth.logged_out", target="first", user="bench@example.com")  # makes what is missing
        pipeline.flush(30)
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()
        waiting: list[int] = []
        begin = time.monotonic()
        done = 0
        while (now := time.monotonic() - begin) < seconds:
            due = int(now * rate)
            if done + AT_ONCE > due:
                time.sleep(0.002)
                continue
            pipeline.accept(
                [
                    pipeline.prepare(
                        action,
                        {"target": f"host-{number % 977}.example.com", "detail": f"arriving {name} {number}",
                         "user": f"user{number % 400:03}@example.com", "ip": f"10.9.{number % 251}.{number % 256}"},
                    )
                    for number in range(done, done + AT_ONCE)
                ]
            )  # fmt: skip
            done += AT_ONCE
            if done % 1000 == 0:
                waiting.append(pipeline.unshipped())
        spent = time.monotonic() - begin
        left = pipeline.unshipped()
        begin = time.monotonic()
        drained = pipeline.flush(120)
        print(
            json.dumps(
                {"recorded": done, "seconds": spent, "most_waiting": max(waiting, default=0), "left": left,
                 "drained_s": time.monotonic() - begin, "drained": drained}
            ),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
