"""Clients outside the cluster: they write, read and remember, whatever happens to it.

What belongs here: requests with a client's manners (a write is repeated with the same request id at another
manager until it is answered), and when they were answered. What does not: verdicts (registers.py), faults.

The clients are threads of this process. They reach the managers by their API sockets, which no fault of the
network touches: what they see is the cluster's own doing.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from swarmpy.lab import unixhttp
from tests.faults.registers import Book, Register

REGISTERS = 3
READERS = 3
KEPT = 10
"""Objects of the book that are there at any time."""
TIMEOUT = 3.0
"""Seconds after which a client gives an answer up and asks another manager."""
PAUSE = 0.01
IMAGE = "registry:5000/web:1"
API = "/v1.41"
NO_TASKS = {"Mode": {"Replicated": {"Replicas": 0}}, "TaskTemplate": {"ContainerSpec": {"Image": IMAGE}}}
NAMED = quote(json.dumps({"name": ["book-"]}))
FAILURES = (OSError, http.client.HTTPException)


class Unanswered(Exception):
    """No manager said how it came out."""


class Recorder:
    """All clients together. `sockets`: the managers' APIs."""

    def __init__(self, sockets: Sequence[Path], seed: int) -> None:
        self._sockets = list(sockets)
        self._chance = random.Random(seed)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.registers = [Register(f"register-{number}") for number in range(REGISTERS)]
        self.book = Book()
        self.acks: list[tuple[float, float]] = []
        """(began, was acknowledged) of each write."""
        self.refused: list[str] = []
        """Answers that no client should ever get."""
        self._threads = [
            threading.Thread(target=self._lives, args=(work, *args), name=f"client-{work.__name__}")
            for work, *args in self._clients()
        ]

    def _clients(self) -> list[tuple[Any, ...]]:
        writers: list[tuple[Any, ...]] = [(self._writes, register) for register in self.registers]
        return [*writers, *[(self._reads, number) for number in range(READERS)], (self._keeps_book,)]

    def begin(self) -> None:
        """Make the registers, and start all clients."""
        for register in self.registers:
            spec = {"Name": register.name, "Labels": {"value": "0"}, **NO_TASKS}
            self.insist("POST", "/services/create", spec, f"make-{register.name}", good=(201, 409))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop all clients."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    # -------------------------------------------------- what happened

    def next_ack(self, since: float) -> float | None:
        """Seconds from `since` until the first acknowledgement of a write that began after it."""
        with self._lock:
            return next((ended - since for began, ended in self.acks if began >= since), None)

    def acked(self) -> int:
        """Writes acknowledged since `forget`."""
        with self._lock:
            return len(self.acks)

    def forget(self) -> None:
        """When writes were acknowledged matters no more."""
        with self._lock:
            self.acks.clear()

    def reads(self) -> int:
        """Reads answered so far."""
        return sum(register.reads for register in self.registers)

    def problems(self) -> list[str]:
        """All that went wrong since this was last asked; asks each manager for everything once more."""
        for place, socket in enumerate(self._sockets):
            for register in self.registers:
                self._read(register, socket, f"m{place + 1} at the end")
            before = self.book.look()
            try:
                status, body = self.ask(socket, "GET", f"/services?filters={NAMED}", timeout=20)
            except FAILURES as error:
                status, body = 0, error
            if status != 200:
                self.refused.append(f"m{place + 1} cannot list services: {body!r}")
                continue
            listed = {one["Spec"]["Name"] for one in body}
            self.refused += [f"at m{place + 1}, {text}" for text in self.book.contradictions(before, listed)]
        found, self.refused = self.refused, []
        for register in self.registers:
            with register.lock:
                found += register.problems
                register.problems = []
        return found

    # -------------------------------------------------- requests

    def ask(
        self,
        socket: Path,
        method: str,
        path: str,
        body: Any = None,
        *,
        request: str = "",
        timeout: float = TIMEOUT,
    ) -> tuple[int, Any]:
        """One request to one manager. Raises what is in FAILURES."""
        headers = {"Content-Type": "application/json"} | (
            {"X-Swarmpy-Request-Id": request} if request else {}
        )
        data = None if body is None else json.dumps(body).encode()
        status, answer = unixhttp.request(socket, method, API + path, data, headers=headers, timeout=timeout)
        try:
            return status, json.loads(answer) if answer.strip() else None
        except ValueError:
            return status, answer.decode(errors="replace")

    def anyone(self) -> Path:
        """Some manager."""
        return self._chance.choice(self._sockets)

    def insist(
        self, method: str, path: str, body: Any, request: str, *, good: Sequence[int], seconds: float = 120
    ) -> tuple[int, Any]:
        """A write, sent again with the same id to one manager after the other until one of them answers it.
        Raises Unanswered after `seconds` without an answer."""
        until = time.monotonic() + seconds
        said: Any = ""
        while time.monotonic() < until and not self._stopped.is_set():
            try:
                status, said = self.ask(self.anyone(), method, path, body, request=request)
            except FAILURES as error:
                said = error
            else:
                if status in good or status not in (503, 502):
                    return status, said
            time.sleep(PAUSE)
        raise Unanswered(f"{method} {path}: nobody answered for {seconds:g} s; at last: {said}")

    # -------------------------------------------------- the clients

    def _lives(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except Unanswered as error:
            if not self._stopped.is_set():
                self.refused.append(str(error))
        except Exception as error:  # the campaign must hear of it, and has no other ear
            self.refused.append(f"a client died: {type(error).__name__}: {error}")
            raise

    def _note(self, began: float) -> None:
        with self._lock:
            self.acks.append((began, time.monotonic()))

    def _writes(self, register: Register) -> None:
        value, tries = 1, 0
        while not self._stopped.wait(PAUSE):
            version, spec, held = self._look(register)
            if held == value and tries:  # the write before was carried out, and its version is over
                register.write_acked(value)
                value, tries = value + 1, 0
                continue
            register.write_begins(value)
            began, tries = time.monotonic(), tries + 1
            spec["Labels"] = {"value": str(value)}
            path = f"/services/{register.name}/update?version={version}"
            status, said = self.insist("POST", path, spec, f"{register.name}-{value}-{tries}", good=(200,))
            if status == 200:
                register.write_acked(value)
                self._note(began)
                value, tries = value + 1, 0
            elif "out of sequence" not in str(said):
                self.refused.append(f"{register.name}={value} was refused with {status}: {said}")

    def _look(self, register: Register) -> tuple[int, dict[str, Any], int]:
        """The register as it is: version, spec, value."""
        while not self._stopped.is_set():
            if (found := self._read(register, self.anyone(), "its writer")) is not None:
                return found
            time.sleep(PAUSE)
        raise Unanswered("the campaign is over")

    def _read(self, register: Register, socket: Path, who: str) -> tuple[int, dict[str, Any], int] | None:
        floor = register.read_begins()
        try:
            status, body = self.ask(socket, "GET", f"/services/{register.name}")
        except FAILURES:
            return None
        if status == 404:
            register.read_ends(floor, 0, who)
        if status != 200:
            return None
        value = int(body["Spec"]["Labels"]["value"])
        register.read_ends(floor, value, who)
        return body["Version"]["Index"], body["Spec"], value

    def _reads(self, number: int) -> None:
        chance = random.Random(number)
        while not self._stopped.wait(PAUSE):
            self._read(chance.choice(self.registers), chance.choice(self._sockets), f"reader {number}")

    def _keeps_book(self) -> None:
        number = 0
        while not self._stopped.wait(10 * PAUSE):
            number += 1
            name, old = f"book-{number}", f"book-{number - KEPT}"
            began = time.monotonic()
            status, said = self.insist(
                "POST", "/services/create", {"Name": name, **NO_TASKS}, name, good=(201,)
            )
            if status != 201:
                self.refused.append(f"making {name} was refused with {status}: {said}")
                continue
            self.book.create_acked(name)
            self._note(began)
            if number <= KEPT:
                continue
            self.book.removal_begins(old)
            began = time.monotonic()
            # A repeated removal may find that the first one was carried out: 404 says that it is gone.
            status, said = self.insist("DELETE", f"/services/{old}", None, f"rm-{old}", good=(200, 404))
            if status not in (200, 404):
                self.refused.append(f"removing {old} was refused with {status}: {said}")
                continue
            self.book.removal_acked(old)
            self._note(began)
