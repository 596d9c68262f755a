"""WINDOWS: the Protocols through which shells see the outside world.

What belongs here: the shape of every outside thing (time, entropy, disk, wire, log, engine) and the small
value types that cross it. What does not: any implementation; those are in adapters/ (real) and sim/
(simulated), and one contract suite per port holds both to the same behaviour.

Shells use asyncio freely: the simulator runs them on an event loop with virtual time, so `asyncio.sleep`,
timeouts and `loop.time()` are simulated there. What a shell must not do is read the wall clock, draw random
numbers, touch files, open sockets or start threads except through a port.
"""

from __future__ import annotations

from swarmpy.model.links import (
    Answer,
    Link,
    LinkSeen,
    MeshPort,
    MeshTable,
    Neighbour,
    Plug,
    Question,
    Return,
    SandboxTable,
    VirtualService,
)
from swarmpy.ports.basics import (
    Clock,
    Disk,
    Entropy,
    Instant,
)
from swarmpy.ports.cluster import (
    Control,
    InitRequest,
    JoinRequest,
    LocalNode,
    ManagersView,
    NodeView,
    TaskLogFrame,
)
from swarmpy.ports.engine import (
    ContainerSeen,
    Engine,
    EngineError,
    EngineEvent,
    EngineGoneError,
    LogFrame,
    LogQuery,
)
from swarmpy.ports.fabric import (
    Balancer,
    Driver,
    FabricError,
    FabricPorts,
    Joined,
    Mesh,
    Names,
    Overlay,
    Plugged,
    Plumber,
    Sandboxes,
)
from swarmpy.ports.log import (
    AmbiguousError,
    Log,
    LogError,
    LogRole,
    LogStatus,
    Machine,
    Member,
    NoQuorumError,
    NotLeaderError,
)
from swarmpy.ports.wire import (
    Body,
    CallHandler,
    Channel,
    ChannelHandler,
    Peer,
    RefusedError,
    Wire,
    WireError,
)

__all__ = [
    "AmbiguousError",
    "Answer",
    "Balancer",
    "Body",
    "CallHandler",
    "Channel",
    "ChannelHandler",
    "Clock",
    "ContainerSeen",
    "Control",
    "Disk",
    "Driver",
    "Engine",
    "EngineError",
    "EngineEvent",
    "EngineGoneError",
    "Entropy",
    "FabricError",
    "FabricPorts",
    "InitRequest",
    "Instant",
    "JoinRequest",
    "Joined",
    "Link",
    "LinkSeen",
    "LocalNode",
    "Log",
    "LogError",
    "LogFrame",
    "LogQuery",
    "LogRole",
    "LogStatus",
    "Machine",
    "ManagersView",
    "Member",
    "Mesh",
    "MeshPort",
    "MeshTable",
    "Names",
    "Neighbour",
    "NoQuorumError",
    "NodeView",
    "NotLeaderError",
    "Overlay",
    "Peer",
    "Plug",
    "Plugged",
    "Plumber",
    "Question",
    "RefusedError",
    "Return",
    "SandboxTable",
    "Sandboxes",
    "TaskLogFrame",
    "VirtualService",
    "Wire",
    "WireError",
]
