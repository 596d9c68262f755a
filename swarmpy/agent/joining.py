"""Containers on their way into networks: endpoints that the Engine has plugged and does not list yet.

What belongs here: remembering them for as long as a start may take, so that nobody sweeps them away. What
does not: programming them (fabric.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.links import LinkSeen
from swarmpy.plan.node import LocalTask

PATIENCE = 60.0
"""Seconds that a start may take between its first endpoint and the Engine's listing."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running container's namespace, and the Engine's endpoints in it."""

    path: str
    endpoints: tuple[str, ...]


class Joining:
    """See the file's charter. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}

    def began(self, endpoint_id: str, path: str, now: float) -> None:
        """The endpoint is plugged; its namespace is, or will be, at the path."""
        self._known[endpoint_id] = (path, now + PATIENCE)

    def ended(self, endpoint_id: str) -> None:
        """The endpoint is gone."""
        self._known.pop(endpoint_id, None)

    def endpoints(self, now: float) -> frozenset[str]:
        """Those that must not be swept."""
        self._known = {key: one for key, one in self._known.items() if one[1] > now}
        return frozenset(self._known)

    def paths(self, now: float) -> set[str]:
        """Their namespaces."""
        return {self._known[key][0] for key in self.endpoints(now)}


def unfinished(
    links: Mapping[str, LinkSeen], tasks: Mapping[str, LocalTask], *, complete: bool
) -> frozenset[str]:
    """Endpoints that are plugged for nobody known, or for a task that has not come to run: its container may
    be in the middle of its start, begun in an earlier life of this process, which alone knew of it. Unless
    `complete`, the managers have not told of all tasks: one that is not known may be such a one."""
    starting = {"", *(key for key, one in tasks.items() if one.status.state < TaskState.RUNNING)}
    return frozenset(
        endpoint
        for link in links.values()
        for endpoint, plug in link.plugs.items()
        if plug.task_id in starting or not (complete or plug.task_id in tasks)
    )
