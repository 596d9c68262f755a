"""`swarmpy service logs`: what tasks wrote, from all nodes, each line with its task.

The daemon sends frames of 8 bytes (stream, length) and a message; with details, a message begins with the ids
of its node, service and task. What does not belong here: the flags (`service_table`).
"""

from __future__ import annotations

import re
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from swarmpy.cli.client import ApiError, Client, segment
from swarmpy.cli.human import short_id
from swarmpy.cli.tables import CommandError, Parsed
from swarmpy.cli.tasks import Names
from swarmpy.model.durations import NANOSECONDS, duration

HEADER = struct.Struct(">BxxxI")
STDOUT, STDERR, FAILURE = 1, 2, 3
LONGEST = 64 * 1024 * 1024
"""Bytes in one frame; more means that the stream is not framed at all."""
_IDS = ("com.docker.swarm.node.id", "com.docker.swarm.service.id", "com.docker.swarm.task.id")


def since_seconds(text: str) -> str:
    """--since as whole seconds since the epoch: a number, a duration before now, or a time."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return text.partition(".")[0]
    try:
        return str(int(time.time()) - duration(text) // NANOSECONDS["s"])
    except ValueError:
        pass  # not a duration: a time, then
    try:
        return str(int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        raise CommandError(
            f'invalid value for "since": failed to parse value as time or duration: "{text}"'
        ) from None


def tail_lines(text: str) -> str:
    """--tail as the daemon takes it: a number of lines, or all of them, which a negative number means too.
    The daemon, as Docker's, would take anything else for all."""
    if text in ("", "all") or re.fullmatch(r"-[0-9]+", text):
        return "all"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise CommandError(
            f'invalid value for "tail": "{text}" is not a number of lines (at most 999999999), nor "all"'
        )
    return text


def frames(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The (stream, message) frames in pieces of a byte stream. Raises CommandError for what is none."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= HEADER.size:
            stream, length = HEADER.unpack_from(held)
            if stream > FAILURE or length > LONGEST:
                raise CommandError(f"Unrecognized input header: {stream}")
            end = HEADER.size + length
            if len(held) < end:
                break
            message = bytes(held[HEADER.size : end])
            del held[:end]
            yield stream, message
    if held:
        raise CommandError("the daemon ended the log stream in the middle of a line")


def logs(parsed: Parsed) -> int:
    """Print the logs of a service or a task."""
    query = _query(parsed)
    client = Client(parsed.host)
    reference = parsed.args[0]
    kind, found = _target(client, reference)
    spec = found["Spec"] if kind == "tasks" else found["Spec"]["TaskTemplate"]
    tty = bool((spec.get("ContainerSpec") or {}).get("TTY"))
    if tty and not parsed.on("raw"):
        raise CommandError("tty service logs only supported with --raw")
    pieces = client.stream(f"/{kind}/{found['ID']}/logs", query)
    if tty:
        for piece in pieces:
            _write(STDOUT, piece)
        return 0
    printer = _Printer(Client(parsed.host), parsed, _digits(kind, found))
    for stream, message in frames(pieces):
        if stream == FAILURE:
            raise CommandError(f"error from daemon in stream: {message.decode(errors='replace').strip()}")
        _write(stream, message if parsed.on("raw") else printer.line(message))
    return 0


def _target(client: Client, reference: str) -> tuple[str, dict[str, Any]]:
    """The service or, failing that, the task that the user means."""
    for kind in ("services", "tasks"):
        try:
            return kind, client.get(f"/{kind}/{segment(reference)}")
        except ApiError as error:
            if error.status != 404:
                raise
    raise CommandError(f"no such task or service: {reference}")


def _query(parsed: Parsed) -> dict[str, str]:
    query = {"stdout": "1", "stderr": "1", "tail": tail_lines(parsed.text("tail"))}
    if parsed.on("details") or not parsed.on("raw"):
        query["details"] = "1"
    if parsed.on("follow"):
        query["follow"] = "1"
    if parsed.on("timestamps"):
        query["timestamps"] = "1"
    if parsed.text("since"):
        query["since"] = since_seconds(parsed.text("since"))
    return query


def _digits(kind: str, found: dict[str, Any]) -> int:
    """Width of the largest slot number."""
    if kind == "tasks":
        return len(str(found.get("Slot") or 0))
    replicas = (((found["Spec"].get("Mode") or {}).get("Replicated")) or {}).get("Replicas")
    return 1 if replicas is None else len(str(replicas))


def _write(stream: int, data: bytes) -> None:
    """Pass bytes on at once: whoever follows a log waits for this line."""
    target = sys.stderr if stream == STDERR else sys.stdout
    target.flush()
    target.buffer.write(data)
    target.buffer.flush()


class _Printer:
    """Gives every line the name of its task. Has a connection of its own: the log's is busy."""

    def __init__(self, client: Client, parsed: Parsed, digits: int) -> None:
        self._client = client
        self._parsed = parsed
        self._digits = digits
        self._names = Names(client, not parsed.on("no-resolve"))
        self._prefixes: dict[tuple[str, ...], str] = {}

    def line(self, message: bytes) -> bytes:
        """A message `[TIME ]DETAILS TEXT` as it is shown."""
        stamped = self._parsed.on("timestamps")
        parts = message.split(b" ", 2 if stamped else 1)
        if len(parts) < (3 if stamped else 2):
            raise CommandError(f"invalid context in log message: {message.decode(errors='replace').rstrip()}")
        stamp = [parts.pop(0).decode()] if stamped else []
        details = _details(parts[0].decode(errors="replace"))
        ids = tuple(details.pop(key, "") for key in _IDS)
        if not all(ids):
            raise CommandError(f"invalid context in log message: {message.decode(errors='replace').rstrip()}")
        words = [*stamp, f"{self._prefix(ids)}    |"]
        if self._parsed.on("details"):
            words = [*words, ",".join(f"{key}={details[key]}" for key in sorted(details))]
        return " ".join([*words, ""]).encode() + parts[1]

    def _prefix(self, ids: tuple[str, ...]) -> str:
        known = self._prefixes.get(ids)
        if known is None:
            known = self._prefixes[ids] = self._named(*ids)
        return known

    def _named(self, node: str, service: str, task: str) -> str:
        try:
            slot = self._client.get(f"/tasks/{task}").get("Slot") or 0
        except ApiError as error:
            if error.status != 404:
                raise
            slot = 0  # the task was reaped while its log was read
        name = f"{self._names.service(service)}.{slot}"
        if not self._parsed.on("no-task-ids"):
            name += f".{task if self._parsed.on('no-trunc') else short_id(task)}"
        padding = " " * max(0, self._digits - len(str(slot)))
        return f"{name}@{self._names.node(node)}{padding}"


def _details(text: str) -> dict[str, str]:
    found = (pair.partition("=") for pair in text.split(",") if pair)
    return {unquote_plus(key): unquote_plus(value) for key, _, value in found}
