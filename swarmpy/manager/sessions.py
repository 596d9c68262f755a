"""One agent's session as the leader holds it: what it was told, and what it should know.

What does not belong here: when it is told (dispatcher.py), what is in network tables (tables.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from swarmpy.manager.tables import Told
from swarmpy.model import messages as m
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Service, Task
from swarmpy.ports import Channel
from swarmpy.state.snapshot import Snapshot


def assigned(task: Task, service: Service | None) -> m.Assigned:
    """The task as its agent needs to know it; its service may be gone."""
    return m.Assigned(
        id=task.id,
        service_id=task.service_id,
        service_name=task.service_name,
        slot=task.slot,
        node_id=task.node_id,
        template=task.template,
        endpoint=task.endpoint,
        desired=task.desired,
        auth=task.auth,
        service_labels=service.view.labels if service else {},
        state=task.status.state,
        networks=task.networks,
    )


@dataclass(slots=True)
class Session:
    """A live session. `told` is what the agent was told of each task, as sent."""

    node_id: str
    channel: Channel
    heard: float
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    told: dict[str, m.Assigned] = field(default_factory=dict)
    made: dict[str, tuple[Task, Service | None, m.Assigned]] = field(default_factory=dict)
    """What was made of each task and its service, when they were looked at last."""
    seq: int = 0
    suspect: bool = False
    welcomed: bool = False
    """Whether the node was recorded as ready for this session."""
    cluster: m.Cluster | None = None
    networks: Told = field(default_factory=Told)
    lost: tuple[str, ...] = ()
    """Addresses of nodes that this one does not hear; nothing but told."""
    outbox: asyncio.Lock = field(default_factory=asyncio.Lock)

    def wanted(self, world: Snapshot) -> dict[str, m.Assigned]:
        """Everything that the node should know of, by task id."""
        made = {}
        for key, task in (world.bucket_on(self.node_id) or {}).items():
            if task.status.state >= TaskState.ASSIGNED:
                service, known = world.services.get(task.service_id), self.made.get(key)
                if known is None or known[0] is not task or known[1] is not service:
                    known = (task, service, assigned(task, service))
                made[key] = known
        self.made = made
        return {key: known[2] for key, known in made.items()}

    async def send(self, message: m.Down) -> None:
        """Send one message, whole, in order. Raises WireError."""
        async with self.outbox:
            await self.channel.send(m.to_body(message))


def differs(new: m.Assigned, old: m.Assigned | None) -> bool:
    """Whether the agent must hear of it: it knows the observed state better than the store does."""
    if old is None or new is old:
        return old is None
    return _told_of(new) != _told_of(old)


def _told_of(task: m.Assigned) -> tuple[object, ...]:
    return task.desired, task.template, task.auth, task.endpoint, task.networks, task.service_labels
