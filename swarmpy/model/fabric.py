"""Network tables: what a node must know of a network to carry it.

The leader derives a table for each network from the world and sends it to the nodes that are on the network;
from it the agent programs links, forwarding, balancers and names. What does not belong here: how a table is
derived (plan/tables), how it is carried out (agent, adapters).

Addresses are texts without a prefix length unless they are called CIDR.
"""

from __future__ import annotations

import hashlib

import msgspec

from swarmpy.model import codec
from swarmpy.model.objects import NetworkKey


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task's (or attached container's) place in a network, on whatever node."""

    id: str
    """The task's id."""
    name: str
    """The container's name."""
    hostname: str = ""
    service_id: str = ""
    slot: str = ""
    """Slot number, or node id of a global service's task."""
    node_id: str
    vtep: str
    """Where frames for it are sent."""
    mac: str
    addresses: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    serving: bool = False
    """Whether it is to get traffic: it runs, is healthy and wanted, and its node is heard."""


class ServiceEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A service on a network. Its backends are its serving endpoints."""

    id: str
    name: str
    aliases: tuple[str, ...] = ()
    vips: tuple[str, ...] = ()
    """Virtual addresses; () with dnsrr."""


class PublishedPort(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A port of the routing mesh (only in the ingress network's table). `source`: preserve (the backend
    sees the client's address), snat (it sees the entry node's), local (only tasks of the entry node serve).
    `host` is the only address it is published on, "" for all."""

    service_id: str
    protocol: str
    published: int
    target: int
    source: str = "preserve"
    host: str = ""


class IngressNode(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node of the routing mesh (only in the ingress network's table). `number` is unique among them, from
    1: the mark of connections that came in through it."""

    id: str
    number: int
    vtep: str
    mac: str
    addresses: tuple[str, ...]


def sealed_port(port: int) -> int:
    """The UDP port of encrypted networks where `port` is that of the others. It is never seen between nodes,
    where everything to it is ESP; that it is another one lets the kernel tell by the port alone what has to
    be encrypted, and what may not come in the clear."""
    return port + 1


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one network, rows sorted by id. `mtu` is that of its links, in bytes."""

    id: str
    name: str
    vni: int
    mtu: int
    subnets: tuple[str, ...]
    """CIDRs."""
    gateways: tuple[str, ...]
    """CIDRs of the address that every node itself has in each subnet: DNS is served there."""
    port: int = 4789
    internal: bool = False
    ingress: bool = False
    encrypted: bool = False
    attachable: bool = False
    peers: tuple[str, ...] = ()
    """Underlay addresses of all nodes on the network, sorted."""
    endpoints: tuple[Endpoint, ...] = ()
    services: tuple[ServiceEntry, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    nodes: tuple[IngressNode, ...] = ()
    keys: tuple[NetworkKey, ...] = ()
    """The secrets of an encrypted network; () where they are not known (they are not kept on disks)."""
    sending: int = 0
    """Number of the secret that is sent with."""


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """From one table to the next. `head` is the new table without its rows of endpoints and services."""

    head: Table
    endpoints: tuple[Endpoint, ...] = ()
    gone_endpoints: tuple[str, ...] = ()
    services: tuple[ServiceEntry, ...] = ()
    gone_services: tuple[str, ...] = ()


def difference(old: Table | None, new: Table) -> Delta:
    """What makes `new` of `old` (of nothing where there is none)."""
    head = msgspec.structs.replace(new, endpoints=(), services=())
    before = {one.id: one for one in old.endpoints} if old else {}
    known = {one.id: one for one in old.services} if old else {}
    after, names = {one.id for one in new.endpoints}, {one.id for one in new.services}
    return Delta(
        head=head,
        endpoints=tuple(one for one in new.endpoints if before.get(one.id) != one),
        gone_endpoints=tuple(key for key in before if key not in after),
        services=tuple(one for one in new.services if known.get(one.id) != one),
        gone_services=tuple(key for key in known if key not in names),
    )


def patched(old: Table | None, delta: Delta) -> Table:
    """The table after the delta."""
    endpoints = {one.id: one for one in old.endpoints} if old else {}
    services = {one.id: one for one in old.services} if old else {}
    endpoints.update({one.id: one for one in delta.endpoints})
    services.update({one.id: one for one in delta.services})
    for key in delta.gone_endpoints:
        endpoints.pop(key, None)
    for key in delta.gone_services:
        services.pop(key, None)
    return msgspec.structs.replace(
        delta.head,
        endpoints=tuple(endpoints[key] for key in sorted(endpoints)),
        services=tuple(services[key] for key in sorted(services)),
    )


def digest(table: Table) -> str:
    """A short fingerprint: equal tables, equal digests, on every node."""
    return hashlib.blake2b(codec.encode(table), digest_size=8).hexdigest()


def mac_of(*parts: str) -> str:
    """A locally administered unicast MAC address determined by the parts. Never made from an IP address:
    one that is given away again must not meet old neighbour entries."""
    raw = hashlib.blake2b("\x00".join(parts).encode(), digest_size=5).digest()
    return "02:" + ":".join(f"{byte:02x}" for byte in raw)
