"""Messages between a node's agent and the leader's dispatcher, inside a `session` channel.

Each message is a tagged struct; `to_body`/`from_body` turn it into what a Channel carries and back, with
types checked. Assignments go down, statuses and beats go up.
What does not belong here: how they are sent (manager/dispatcher, agent/session).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from swarmpy.model.fabric import Delta
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Attachment, Description, TaskStatus


class Assigned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task as its agent needs to know it."""

    id: str
    service_id: str
    service_name: str
    slot: int
    node_id: str
    template: str
    endpoint: str
    desired: TaskState
    auth: str = ""
    service_labels: dict[str, str] = {}
    state: TaskState = TaskState.ASSIGNED
    """The stored observed state, so that an agent that lost its memory does not start a finished task."""
    networks: tuple[Attachment, ...] = ()
    """Its places in networks; their tables are sent before it."""

    @property
    def name(self) -> str:
        """The container's name."""
        return f"{self.service_name}.{self.slot or self.node_id}.{self.id}"


class Manager(msgspec.Struct, frozen=True):
    """A manager that an agent may talk to."""

    node_id: str
    address: str


# ---- up: agent to leader


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First message of a session (the channel's hello body)."""

    node_id: str
    description: Description
    address: str = ""
    """The node's own advertised address, "" to use the one seen on the connection."""


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """I live. `seq` is the last assignment sequence number applied; `lost`: underlay addresses of nodes that
    this one does not hear any more, for people to know."""

    seq: int
    lost: tuple[str, ...] = ()


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    """The node's kernel is as all tables up to this sequence number say."""

    seq: int


class Statuses(msgspec.Struct, frozen=True, kw_only=True, tag="statuses"):
    """Latest status of each task that changed; acknowledged by number once committed."""

    number: int
    items: tuple[tuple[str, TaskStatus], ...]


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag="describe"):
    """The node's description changed."""

    description: Description


# ---- down: leader to agent


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The session is accepted. `beat_seconds`: how often to beat."""

    beat_seconds: float
    node_role: str
    managers: tuple[Manager, ...]
    root_cert: str = ""
    probe_key: bytes = b""
    """With which nodes seal their questions to each other (pki/probes)."""


class Assignments(msgspec.Struct, frozen=True, kw_only=True, tag="assignments"):
    """Changes of what the node should run. `full`: forget everything else. Sequence numbers are
    consecutive within a session; a gap means: reconnect."""

    seq: int
    full: bool
    tasks: tuple[Assigned, ...]
    removed: tuple[str, ...] = ()


class Networks(msgspec.Struct, frozen=True, kw_only=True, tag="networks"):
    """Changes of the tables of the node's networks; `full`: forget all others. Numbered with Assignments."""

    seq: int
    full: bool
    deltas: tuple[Delta, ...]
    removed: tuple[str, ...] = ()


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True, tag="acknowledged"):
    """The Statuses message with this number is committed."""

    number: int


class Cluster(msgspec.Struct, frozen=True, kw_only=True, tag="cluster"):
    """The managers, this node's role (as it should be) or the CA changed."""

    node_role: str
    managers: tuple[Manager, ...]
    renew: bool = False
    """Whether the node should renew its certificate now (its role changed)."""


class LogsWanted(msgspec.Struct, frozen=True, kw_only=True, tag="logs-wanted"):
    """Send the output of these tasks to the manager at `address`, on a `logs.publish` channel."""

    subscription: str
    address: str
    tasks: tuple[str, ...]
    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    tail: int = -1
    since: int = 0
    timestamps: bool = False


class LogsDone(msgspec.Struct, frozen=True, kw_only=True, tag="logs-done"):
    """Nobody reads that subscription any more."""

    subscription: str


class Examine(msgspec.Struct, frozen=True, kw_only=True, tag="examine"):
    """Look at your networks now (all of them where none is named), and report to the manager at `address`
    with `net.report`."""

    examination: str
    address: str
    networks: tuple[str, ...] = ()


class Goodbye(msgspec.Struct, frozen=True, kw_only=True, tag="goodbye"):
    """The leader ends the session: `removed` means that the node is no longer a member."""

    reason: str
    removed: bool = False


Up = Beat | Applied | Statuses | Describe
Down = Welcome | Assignments | Networks | Acknowledged | Cluster | LogsWanted | LogsDone | Examine | Goodbye


def to_body(message: msgspec.Struct) -> dict[str, Any]:
    """The message as a mapping that a channel carries."""
    body: dict[str, Any] = msgspec.to_builtins(message)
    return body


def hello_from(body: Mapping[str, Any]) -> Hello:
    """Decode a Hello. Raises ValueError with the path of what is wrong."""
    return msgspec.convert(body, Hello)


def up_from(body: Mapping[str, Any]) -> Up:
    """Decode a message from an agent. Raises ValueError with the path of what is wrong."""
    message: Up = msgspec.convert(body, Up)
    return message


def down_from(body: Mapping[str, Any]) -> Down:
    """Decode a message from the leader. Raises ValueError with the path of what is wrong."""
    message: Down = msgspec.convert(body, Down)
    return message
