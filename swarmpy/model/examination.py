"""What a node says of its networks when it is examined (`net doctor`), and what is made of it.

What belongs here: the shapes that cross between nodes and out of the API. What does not: judging
(plan/doctor), looking (agent/doctor).
"""

from __future__ import annotations

import msgspec


class Path(msgspec.Struct, frozen=True):
    """The underlay's way to a peer: whether it passes small datagrams, and those of `size` bytes whole."""

    peer: str
    size: int
    small: bool
    full: bool


class Crossing(msgspec.Struct, frozen=True):
    """The way through a network to a task (or node, in the ingress network) on another node."""

    network_id: str
    node_id: str
    address: str
    small: bool
    full: bool


class Mended(msgspec.Struct, frozen=True):
    """Something that others had changed in the kernel and that the agent put right, `ago` seconds ago."""

    network_id: str
    what: str
    ago: float = 0.0


class Wrong(msgspec.Struct, frozen=True):
    """What is not as it should be and could not be mended."""

    network_id: str
    what: str


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that one node says. `digests`: of its tables, by network id; `paths` and `crossings`: those that
    failed, of so many that were `tried`."""

    node_id: str
    digests: dict[str, str] = {}
    wrong: tuple[Wrong, ...] = ()
    mended: tuple[Mended, ...] = ()
    paths: tuple[Path, ...] = ()
    crossings: tuple[Crossing, ...] = ()
    tried: int = 0
    lost: tuple[str, ...] = ()
    """Underlay addresses that its probes do not hear."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """One thing that a user reads. `kind`: problem, note or mended. Names, not ids."""

    kind: str
    node: str
    network: str
    what: str
    help: str = ""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """How far a node is known to have followed a network: digest of the table that it was told, and the
    cluster's version up to which its kernel is known to be as told."""

    digest: str
    version: int
