"""What the worker takes from the Engine's report.

What belongs here: the part of an observed container that planning looks at, and where containers' network
namespaces are. What does not: asking for it (worker.py), judging it (plan/engine).
"""

from __future__ import annotations

from collections.abc import Iterable

from swarmpy.agent.joining import Sandbox
from swarmpy.plan.container import TASK_LABEL
from swarmpy.plan.node import Container
from swarmpy.ports import ContainerSeen


def seen(container: ContainerSeen) -> Container:
    """The part of an observed container that planning looks at."""
    return Container(
        id=container.id,
        state=container.state,
        labels=container.labels,
        pid=container.pid,
        exit_code=container.exit_code,
        error=container.error,
        oom_killed=container.oom_killed,
        health=container.health,
        ports=container.ports,
        networks=tuple(name for name, _ in container.networks),
    )


def sandboxes(found: Iterable[ContainerSeen]) -> dict[str, Sandbox]:
    """Namespaces of running containers by task id."""
    return {
        one.labels.get(TASK_LABEL, ""): Sandbox(one.sandbox, tuple(end for _, end in one.networks if end))
        for one in found
        if one.sandbox and one.pid
    }
