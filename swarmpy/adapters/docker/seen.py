"""Docker's JSON to the small types of the port: containers, log frames, errors.

What belongs here: pure translation, and what Docker's words really mean. What does not: any request.
"""

from __future__ import annotations

import calendar
import json
import re
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

import docker.errors
import requests.exceptions
import urllib3.exceptions

from swarmpy.ports import ContainerSeen, EngineError, EngineGoneError, LogFrame

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)\Z")
_STREAMS = {1: "stdout", 2: "stderr"}
_HEADER = struct.Struct(">BxxxL")
_AWAY = ("code = unavailable", "transport is closing", "client connection is closing", "shutting down")
"""In a 5xx: dockerd answers, but what runs its containers does not, or it is about to go."""
GONE = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""What the SDK and its libraries raise when the Engine cannot be talked to."""


def instant(text: str) -> int:
    """RFC 3339 with up to nanoseconds, as ns since the epoch; 0 for Go's zero time and for nonsense."""
    found = _STAMP.match(text)
    if found is None or text.startswith("0001-"):
        return 0
    seconds = calendar.timegm(time.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S"))
    zone = found.group(3)
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * 1_000_000_000 + int((found.group(2) or "").ljust(9, "0"))


def container_seen(inspected: Mapping[str, Any]) -> ContainerSeen:
    """A container from GET /containers/ID/json."""
    state = inspected.get("State") or {}
    health = state.get("Health") or {}
    log = health.get("Log") or []
    alive = bool(state.get("Running"))  # of an ended container, the Engine's word on its health is arbitrary
    return ContainerSeen(
        id=str(inspected["Id"]),
        name=str(inspected.get("Name", "")).lstrip("/"),
        labels=dict((inspected.get("Config") or {}).get("Labels") or {}),
        hostname=str((inspected.get("Config") or {}).get("Hostname") or ""),
        state=str(state.get("Status", "")),
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        error=str(state.get("Error") or ""),
        oom_killed=bool(state.get("OOMKilled")),
        health=_health(health) if alive else "",
        health_log=str(log[-1].get("Output") or "") if log and alive else "",
        started_at=instant(str(state.get("StartedAt") or "")),
        finished_at=instant(str(state.get("FinishedAt") or "")),
        ports=_ports((inspected.get("NetworkSettings") or {}).get("Ports") or {}),
        **_network(inspected.get("NetworkSettings") or {}),
    )


def _network(settings: Mapping[str, Any]) -> dict[str, Any]:
    connected = settings.get("Networks") or {}
    options = {name: (one or {}).get("DriverOpts") for name, one in connected.items()}
    return {
        "options": {name: dict(one) for name, one in sorted(options.items()) if one},
        "sandbox": str(settings.get("SandboxKey") or ""),
        "networks": tuple(
            (name, str((connected[name] or {}).get("EndpointID") or "")) for name in sorted(connected)
        ),
    }


def _health(health: Mapping[str, Any]) -> str:
    """The Engine also says "unhealthy" while nobody probes (a paused container, or one just unpaused):
    then no probe has failed, and the truth is that it is not known yet."""
    word = str(health.get("Status") or "")
    if word == "none":
        return ""
    if word == "unhealthy" and not health.get("FailingStreak"):
        return "starting"
    return word


def _ports(published: Mapping[str, Any]) -> tuple[tuple[str, int, int], ...]:
    found: set[tuple[str, int, int]] = set()
    for key, bindings in published.items():
        target, _, protocol = key.partition("/")
        for binding in bindings or ():
            if binding.get("HostPort"):
                found.add((protocol or "tcp", int(target), int(binding["HostPort"])))
    return tuple(sorted(found))


def engine_error(error: BaseException, url: str) -> EngineError:
    """What the SDK raised, as the port's error with the Engine's own sentence."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, docker.errors.APIError) and error.response is not None:
        sentence = str(error.explanation or error)
        status = int(error.response.status_code)
        if status >= 500 and any(word in sentence.lower() for word in _AWAY):
            return EngineGoneError(sentence)
        return EngineError(sentence, missing=status == 404, conflict=status == 409)
    return EngineGoneError(f"the container engine at {url} does not answer: {error}")


def demultiplexed(chunks: Iterator[bytes], stamped: bool) -> Iterator[LogFrame]:
    """Docker's framed output (8-byte header: stream, length): one LogFrame per frame."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        place = 0
        while len(held) - place >= _HEADER.size:
            kind, length = _HEADER.unpack_from(held, place)
            end = place + _HEADER.size + length
            if len(held) < end:
                break
            yield _frame(_STREAMS.get(kind, "stdout"), bytes(held[place + _HEADER.size : end]), stamped)
            place = end
        del held[:place]


def lines(chunks: Iterator[bytes], stamped: bool) -> Iterator[LogFrame]:
    """The raw output of a terminal: no frames; cut into lines so that stamps can be told from text."""
    for line in split_lines(chunks):
        yield _frame("stdout", line, stamped)


def split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines, with their ends; at last what remains."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def parsed(line: bytes) -> dict[str, Any]:
    """A line of a JSON stream. Raises ConnectionError where the Engine went in the middle of it."""
    try:
        value = json.loads(line)
    except ValueError:
        raise ConnectionError(f"its answer broke off after {line[-60:]!r}") from None
    return value if isinstance(value, dict) else {}


def _frame(stream: str, data: bytes, stamped: bool) -> LogFrame:
    if not stamped:
        return LogFrame(stream, data)
    stamp, _, text = data.partition(b" ")
    return LogFrame(stream, text, stamp.decode("ascii", "replace"))
