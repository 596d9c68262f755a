"""What a node's kernel is to hold for its networks: links, forwarding, balancers, and questions of names.

The values that cross ports/fabric; judgement (plan/fabric, plan/names) makes them of network tables.
Addresses are texts without a prefix length unless they are called CIDR. A *sandbox* is the path of a network
namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Link:
    """A network's links on this node: a namespace with a bridge that has `gateways` (CIDR), and a VXLAN
    device. `local` is this node's VXLAN endpoint; `mtu` is that of the overlay."""

    network_id: str
    vni: int
    mtu: int
    local: str
    port: int = 4789
    gateways: tuple[str, ...] = ()
    bridge_mac: str = ""
    """MAC of the bridge; "" where any will do (the ingress network tells nodes apart by it)."""


@dataclass(frozen=True, slots=True, order=True)
class Neighbour:
    """A station of the network on another node: frames for `mac` go to `vtep`, and requests for its
    addresses are answered with `mac`."""

    mac: str
    vtep: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plug:
    """One end of a pair of links: the other end is a port of the network's bridge. `endpoint_id` is the
    Engine's endpoint, `task_id` whose it is ("" if nobody's)."""

    endpoint_id: str
    network_id: str
    mac: str
    mtu: int
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A network's links as the kernel has them. `link` is None where they are not whole (made again then).
    `neighbours` by MAC; `plugs` are the endpoint ids with a port in the bridge."""

    network_id: str
    link: Link | None
    neighbours: Mapping[str, Neighbour] = field(default_factory=dict)
    plugs: Mapping[str, Plug] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class VirtualService:
    """A virtual address and the addresses that it stands for; all protocols and ports. IPv4 and IPv6 are
    separate ones."""

    vip: str
    backends: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class MeshPort:
    """A published port in the ingress namespace: new connections go to `backends` in turn, at `target`; those
    over IPv6 to the IPv6 ones. `snat`: they are made to come from the node's own ingress address."""

    protocol: str
    published: int
    target: int
    backends: tuple[str, ...]
    snat: bool = False


@dataclass(frozen=True, slots=True)
class Return:
    """Where a container on the ingress network sends replies: to the node (`mac` of its bridge, `address`
    in the ingress network) through which the connection came in. `number` is its mark and table, from 1.
    `address6` is for IPv6, "" where the node has none."""

    number: int
    mac: str
    address: str
    address6: str = ""


@dataclass(frozen=True, slots=True)
class SandboxTable:
    """All of ours in a container's namespace. `ingress_address` is its own address in the ingress network
    ("" if it is not on it): the link that has it carries the returns. `ingress_address6` is its IPv6 one
    there, "" where it has none."""

    services: tuple[VirtualService, ...] = ()
    ingress_address: str = ""
    returns: tuple[Return, ...] = ()
    ingress_address6: str = ""


@dataclass(frozen=True, slots=True)
class MeshTable:
    """All of ours for the routing mesh of this node, in its ingress namespace and in the host's.
    `addresses`: this node's own in the ingress network, IPv4 first; without an IPv6 one it publishes nothing
    over IPv6. `hosts`: (protocol, port, only address or "")."""

    network_id: str
    addresses: tuple[str, ...]
    ports: tuple[MeshPort, ...] = ()
    hosts: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Station:
    """Somebody in a network: a container, or a node's own end of the ingress network."""

    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class GuardTable:
    """Who may speak to this node's VXLAN ports: `peers`, the other nodes' addresses (sorted). `local` is its
    own. `sealed` is the port of encrypted networks, 0 where the node has none: only what came encrypted gets
    there."""

    local: str
    port: int = 4789
    sealed: int = 0
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Secret:
    """A key from which nodes make those of their pairs; the number tells which one it is."""

    number: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CipherTable:
    """What is encrypted between this node (`local`) and its `peers`: everything to the UDP port `port`. What
    is sent is encrypted with the secret that has the number `sending`, what is received may be with any of
    `secrets`. Without secrets nothing passes but what the kernel could pass already."""

    local: str
    port: int
    peers: tuple[str, ...] = ()
    sending: int = 0
    secrets: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A name asked for: lower case, without the final dot. `kind`: A, AAAA, PTR or another type's name.
    `client` is the address it was asked from."""

    network_id: str
    client: str
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What we know of a name: `addresses` (of the kind that was asked; () for a name that exists without
    such), or `name` for PTR. `upstream`: ask these servers instead (() for the node's own)."""

    addresses: tuple[str, ...] = ()
    name: str = ""
    forward: bool = False
    refused: bool = False
    """The name does not exist, and may not be asked of others."""
    upstream: tuple[str, ...] = ()
    ttl: int = 600
