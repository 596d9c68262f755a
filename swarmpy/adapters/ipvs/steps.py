"""From what IPVS has to what it should have. Pure.

What belongs here: marks of virtual addresses, and which services and servers are added, drained and removed
in which order. What does not: how the kernel is told (kernel.py), how packets get their mark (nftmarks.py,
iptmarks.py).

A virtual address is two services of IPVS, told apart by the mark of the packet: one for what has an end of
its own (TCP, SCTP), one for datagrams. A server that goes is drained in the first, by weight 0, until its
last connection has ended; in the second it is removed at once, and its flows move with their next packet.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from swarmpy.adapters.nftables.render import turned
from swarmpy.ports import FabricError, SandboxTable

MARK = 0x54000000
MASK = 0xFF000000
"""The marks of ours; those of the routing mesh's returns begin with another number."""
EMPTY = 0x200000
"""In numbers, and in marks of new connections: nobody serves this address. They are refused by rules: IPVS
says so with a message that a caller does not hear while he is still sending."""
_DATAGRAMS, _SIX, _NUMBERS = 0x800000, 0x400000, 0x1FFFFF


class Verb(IntEnum):
    """Commands of IPVS, as the kernel numbers them."""

    ADD_SERVICE = 1
    SET_SERVICE = 2
    REMOVE_SERVICE = 3
    ADD_SERVER = 5
    SET_SERVER = 6
    REMOVE_SERVER = 7


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `server` and `weight` only for those about a server."""

    verb: Verb
    mark: int
    server: str = ""
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """A server as IPVS has it; `busy` counts connections that are open or closing, `right` says whether its
    address is translated, as we ask for."""

    weight: int
    busy: int
    right: bool = True


@dataclass(frozen=True, slots=True)
class Service:
    """A service as IPVS has it; `right` says whether it takes its servers in turn and does nothing else."""

    servers: Mapping[str, Server]
    right: bool = True


def takes_new(service: Service) -> bool:
    """Whether new connections would get one of its servers."""
    return any(one.weight for one in service.servers.values())


def marks_of(vip: str, number: int) -> tuple[int, int]:
    """(mark of connections, mark of datagrams)."""
    mark = MARK | (_SIX if ":" in vip else 0) | number
    return mark, mark | _DATAGRAMS


def ours(mark: int) -> bool:
    """Whether a service is one of ours."""
    return mark & MASK == MARK


def number_of(mark: int) -> int:
    """The number of the virtual address in a mark."""
    return mark & _NUMBERS


def number_in(mark: int) -> int:
    """The same, as `flagged` says it."""
    return mark & (_NUMBERS | EMPTY)


def is_empty(number: int) -> bool:
    """Whether a number says that nobody serves the address."""
    return bool(number & EMPTY)


def flagged(numbers: Mapping[str, int], wanted: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Numbers that tell which addresses nobody serves."""
    return {vip: one if wanted[vip] else one | EMPTY for vip, one in numbers.items()}


def unflagged(numbers: Mapping[str, int]) -> dict[str, int]:
    """Numbers alone."""
    return {vip: one & _NUMBERS for vip, one in numbers.items()}


def six(mark: int) -> bool:
    """Whether it is for IPv6."""
    return bool(mark & _SIX)


def plain(address: str) -> str:
    """The one way in which an address is written here. Raises FabricError."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise FabricError(f"{address!r} is no address that can be balanced") from None


def backends_of(table: SandboxTable) -> dict[str, tuple[str, ...]]:
    """Backends by virtual address. Raises FabricError."""
    found = {plain(one.vip): tuple(map(plain, one.backends)) for one in table.services}
    for vip, backends in found.items():
        if any((":" in one) != (":" in vip) for one in backends):
            raise FabricError(f"{vip} cannot stand for addresses of the other IP version")
    return found


def numbered(
    vips: Iterable[str], known: Mapping[str, int], services: Mapping[int, Service]
) -> dict[str, int]:
    """Number of each virtual address: the one it has, else the lowest that nothing uses; what still drains
    uses one."""
    vips = list(vips)
    numbers = {vip: known[vip] for vip in vips if vip in known}
    used = {*numbers.values(), *map(number_of, services)}
    free = (one for one in range(1, _NUMBERS) if one not in used)
    for vip in sorted(vips):
        if vip not in numbers:
            numbers[vip] = next(free)
    return numbers


def changes(
    services: Mapping[int, Service],
    wanted: Mapping[str, tuple[str, ...]],
    numbers: Mapping[str, int],
    place: str,
) -> Iterator[Step]:
    """What makes the services as they should be; additions before removals, so that at no time fewer serve
    than before and after."""
    marks: set[int] = set()
    for vip, backends in wanted.items():
        order = turned(backends, f"{place} {vip}")
        for mark in marks_of(vip, numbers[vip]):
            marks.add(mark)
            yield from _service(mark, services.get(mark), order)
    for mark, service in services.items():
        if mark in marks:
            continue
        if mark & _DATAGRAMS:
            yield Step(Verb.REMOVE_SERVICE, mark)
        else:
            yield from _leave(mark, service, ())


def _service(mark: int, service: Service | None, backends: tuple[str, ...]) -> Iterator[Step]:
    if service is None:
        yield Step(Verb.ADD_SERVICE, mark)
    elif not service.right:
        yield Step(Verb.SET_SERVICE, mark)
    servers = service.servers if service else {}
    # the kernel begins with the one that was added last
    for backend in reversed(backends):
        if backend not in servers:
            yield Step(Verb.ADD_SERVER, mark, backend, 1)
        elif servers[backend].weight != 1 or not servers[backend].right:
            yield Step(Verb.SET_SERVER, mark, backend, 1)
    if service:
        yield from _leave(mark, service, backends)


def _leave(mark: int, service: Service, staying: tuple[str, ...]) -> Iterator[Step]:
    for name, server in service.servers.items():
        if name in staying:
            continue
        if mark & _DATAGRAMS:
            yield Step(Verb.REMOVE_SERVER, mark, name)
        elif server.weight or not server.right:
            yield Step(Verb.SET_SERVER, mark, name, 0)


def drained(services: Mapping[int, Service], live: Iterable[int]) -> Iterator[Step]:
    """Removes what no longer serves anybody: servers of weight 0 without connections, services of no virtual
    address (`live` are the marks that packets get) without servers."""
    alive = set(live)
    for mark, service in services.items():
        idle = [name for name, server in service.servers.items() if not server.weight and not server.busy]
        if mark not in alive and len(idle) == len(service.servers):
            yield Step(Verb.REMOVE_SERVICE, mark)
            continue
        for name in idle:
            yield Step(Verb.REMOVE_SERVER, mark, name)


def serving(services: Mapping[int, Service], numbers: Mapping[str, int]) -> dict[str, frozenset[str]] | None:
    """Who serves each virtual address. None where something is not as we make it."""
    found = {}
    for vip, number in numbers.items():
        sets = []
        for mark in marks_of(vip, number):
            service = services.get(mark)
            if service is None or not service.right:
                return None
            active = {name: one for name, one in service.servers.items() if one.weight}
            if any(one.weight != 1 or not one.right for one in active.values()):
                return None
            sets.append(frozenset(active))
        if sets[0] != sets[1]:
            return None
        found[vip] = sets[0]
    marks = {mark for vip, number in numbers.items() for mark in marks_of(vip, number)}
    if any(one.weight for mark in services.keys() - marks for one in services[mark].servers.values()):
        return None
    return found


def digest(about: object, serving: Mapping[str, Iterable[str]]) -> str:
    """Fingerprint of a sandbox."""
    services = sorted((vip, sorted(set(backends))) for vip, backends in serving.items())
    return hashlib.blake2b(repr((about, services)).encode(), digest_size=8).hexdigest()
