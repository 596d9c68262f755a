"""A load generator: sends requests to published ports until told to stop, and counts what failed.

Run as `python -m swarmpy.lab.load [OPTIONS] HOST:PORT...` on a node outside the cluster (lab node c1).
Bounded in rate, workers and requests. It says `sending` when it begins. On SIGTERM, SIGINT or after the last
request it prints one JSON object: how many were sent, how many failed and how, which hosts, versions and
client addresses the answers named. A kept connection that the server closed just as it was used again is no
failure: the request is sent once more on a new one, as every HTTP client does (RFC 9112, section 9.3.1), and
counted as `reopened`.
What belongs here: sending and counting. What does not: what is done to the cluster meanwhile.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

SHOWN = 20
"""Failures that are described one by one."""


@dataclass(slots=True)
class Tally:
    """What happened so far; filled by several threads."""

    sent: int = 0
    failed: int = 0
    reopened: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, Counter[str]] = field(default_factory=dict)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, body: str, seconds: float) -> None:
        """An answer: words of the form KEY=VALUE are counted."""
        with self.lock:
            self.sent += 1
            self.slowest = max(self.slowest, seconds)
            for word in body.split():
                key, equals, value = word.partition("=")
                if equals:
                    self.seen.setdefault(key, Counter())[value] += 1

    def closed_under_it(self) -> None:
        """A kept connection ended before the answer began."""
        with self.lock:
            self.reopened += 1

    def went_wrong(self, target: str, error: str, at: float, seconds: float) -> None:
        """A request without a good answer."""
        with self.lock:
            self.sent += 1
            self.failed += 1
            if len(self.failures) < SHOWN:
                entry = {"target": target, "error": error, "at": round(at, 3), "seconds": round(seconds, 3)}
                self.failures.append(entry)

    def summary(self, began: float) -> dict[str, Any]:
        """For people and for tests."""
        with self.lock:
            return {
                "sent": self.sent,
                "failed": self.failed,
                "reopened": self.reopened,
                "seconds": round(time.time() - began, 2),
                "slowest": round(self.slowest, 3),
                "failures": list(self.failures),
                "seen": {key: dict(counts) for key, counts in sorted(self.seen.items())},
            }


CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
"""What a connection that the server closed while it was idle answers the next request with."""


class Load:
    """Workers that take turns at the targets. `keep`: each worker keeps its connections open and opens one
    anew only when the server closed it."""

    def __init__(self, targets: list[str], *, timeout: float, rate: float, most: int, keep: bool) -> None:
        self._targets = itertools.cycle(targets)
        self._timeout, self._most, self._keep = timeout, most, keep
        self._pause = 1 / rate if rate else 0.0
        self._next = time.monotonic()
        self._begun = 0
        self._lock = threading.Lock()
        self.tally = Tally()
        self.stopped = threading.Event()

    def _turn(self) -> str | None:
        """The next target, at its time; None when there is nothing more to do."""
        with self._lock:
            if self.stopped.is_set() or (self._most and self._begun >= self._most):
                return None
            self._begun += 1
            now = time.monotonic()
            wait = self._next - now
            self._next = max(self._next + self._pause, now - 1.0)
            target = next(self._targets)
        if wait > 0 and self.stopped.wait(wait):
            return None
        return target

    def work(self) -> None:
        """Send until told to stop."""
        kept: dict[str, http.client.HTTPConnection] = {}
        while (target := self._turn()) is not None:
            self._request(target, kept)
        for connection in kept.values():
            connection.close()

    def _request(self, target: str, kept: dict[str, http.client.HTTPConnection]) -> None:
        at, began = time.time(), time.monotonic()
        connection = kept.pop(target, None)
        try:
            if connection is None:
                connection = self._new(target)
                reply, body = self._ask(connection)
            else:
                try:
                    reply, body = self._ask(connection)
                except CLOSED:
                    self.tally.closed_under_it()
                    connection.close()
                    connection = self._new(target)
                    reply, body = self._ask(connection)
        except (OSError, http.client.HTTPException) as error:
            seconds = time.monotonic() - began
            self.tally.went_wrong(target, f"{type(error).__name__}: {error}", at, seconds)
            if connection is not None:
                connection.close()
            return
        self.tally.answered(body, time.monotonic() - began)
        if self._keep and not reply.will_close:
            kept[target] = connection
        else:
            connection.close()

    def _new(self, target: str) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(target, timeout=self._timeout)

    def _ask(self, connection: http.client.HTTPConnection) -> tuple[http.client.HTTPResponse, str]:
        connection.request("GET", "/", headers={} if self._keep else {"Connection": "close"})
        reply = connection.getresponse()
        body = reply.read().decode(errors="replace")
        if reply.status != 200:
            raise http.client.HTTPException(f"status {reply.status}")
        return reply, body


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="python -m swarmpy.lab.load", description="Send requests, count failures."
    )
    made.add_argument("targets", nargs="+", metavar="HOST:PORT", help="asked in turn")
    made.add_argument("--workers", type=int, default=4, help="requests under way at once (%(default)s)")
    made.add_argument(
        "--rate", type=float, default=100.0, help="requests a second, 0 for no bound (%(default)s)"
    )
    made.add_argument("--requests", type=int, default=0, help="stop after so many, 0 for never (%(default)s)")
    made.add_argument("--timeout", type=float, default=5.0, help="seconds for an answer (%(default)s)")
    made.add_argument("--until-eof", action="store_true", help="stop at the end of the input")
    made.add_argument("--keep-alive", action="store_true", help="use connections more than once")
    return made


def main(argv: list[str] | None = None) -> int:
    """See the file's charter. Exits 0 whatever failed: the summary tells."""
    options = parser().parse_args(argv)
    load = Load(
        options.targets,
        timeout=options.timeout,
        rate=options.rate,
        most=options.requests,
        keep=options.keep_alive,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: load.stopped.set())
    began = time.time()
    workers = [threading.Thread(target=load.work, name=f"load-{n}") for n in range(options.workers)]
    for worker in workers:
        worker.start()
    print("sending", flush=True)
    if options.until_eof:
        # Signals do not pass through every program that runs this one in another namespace; its end does.
        sys.stdin.read()
        load.stopped.set()
    for worker in workers:
        worker.join()
    print(json.dumps(load.tally.summary(began)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
