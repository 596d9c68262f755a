"""ports.Balancer with IPVS. See steps.py for what a virtual address is there.

What belongs here: the order in which marks, services and tracked flows are changed. What does not: how.

IPVS works where a client's packets leave its namespace; nothing is masqueraded, and the virtual address is on
no link. What drains is not part of the fingerprint; it is removed when it is found idle.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeVar
from weakref import WeakValueDictionary

from swarmpy.adapters.ipvs import kernel, steps
from swarmpy.adapters.ipvs.iptmarks import IptMarks
from swarmpy.adapters.ipvs.marks import Marks
from swarmpy.adapters.ipvs.nftmarks import NftMarks
from swarmpy.adapters.netns import apart, inside
from swarmpy.adapters.nftables import conntrack
from swarmpy.ports import FabricError, SandboxTable

T = TypeVar("T")
logger = logging.getLogger(__name__)


class IpvsBalancer:
    """Virtual addresses by IPVS, in the namespaces of those who use them."""

    name = "ipvs"

    def __init__(self, ways: tuple[type[Marks], ...] = (NftMarks, IptMarks)) -> None:
        self._ways = ways
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def probe(self) -> bool:
        """Whether the kernel can do it, tried in a namespace made for that. What is missing is in the log."""
        try:
            await asyncio.to_thread(apart, self._try)
        except FabricError as error:
            logger.warning("connections to services cannot be balanced with IPVS here: %s", error)
            return False
        return True

    def _try(self) -> None:
        kernel.load()
        kernel.set_up()
        self._way()
        numbers = {"192.0.2.1": 1, "2001:db8::1": 2}
        wanted = {"192.0.2.1": ("192.0.2.2",), "2001:db8::1": ("2001:db8::2",)}
        kernel.carry_out(steps.changes({}, wanted, numbers, ""))

    def _way(self) -> Marks:
        return _first_that_works(self._ways)

    async def observe(self, sandbox: str) -> str:
        """Fingerprint of what the kernel has."""
        return await self._in_turn(sandbox, self._seen, sandbox)

    async def apply(self, sandbox: str, table: SandboxTable, before: SandboxTable | None) -> str:
        """Make the sandbox as the table says. `before` is not needed: the kernel is read."""
        return await self._in_turn(sandbox, self._apply, sandbox, table)

    async def clear(self, sandbox: str) -> None:
        """Remove everything of ours from the sandbox."""
        if await asyncio.to_thread(os.path.exists, sandbox):
            await self._in_turn(sandbox, self._clear, sandbox)

    async def _in_turn(self, sandbox: str, work: Callable[..., T], *arguments: object) -> T:
        async with self._turns.setdefault(sandbox, asyncio.Lock()):
            return await asyncio.to_thread(inside, sandbox, work, *arguments)

    def _apply(self, sandbox: str, table: SandboxTable) -> str:
        way, wanted = self._way(), steps.backends_of(table)
        kernel.set_up()
        held = way.read(sandbox)
        known = steps.unflagged(held.numbers)
        services = _swept(known)
        numbers = steps.numbered(wanted, known, services)
        moved = _moved(services, known, wanted)
        staying: list[steps.Step] = []
        going: list[steps.Step] = []
        for one in steps.changes(services, wanted, numbers, sandbox):
            (staying if steps.number_of(one.mark) in numbers.values() else going).append(one)
        # Servers are there before packets arrive, and stay until none arrives any more.
        kernel.carry_out(staying)
        try:
            way.write(sandbox, table, steps.flagged(numbers, wanted), held)
        finally:
            kernel.carry_out(going)
            if moved:
                conntrack.cut(lambda flow: flow.target in moved and flow.backend not in moved[flow.target])
        return steps.digest(way.label(table), wanted)

    def _seen(self, sandbox: str) -> str:
        held = self._way().read(sandbox)
        numbers = steps.unflagged(held.numbers)
        serving = steps.serving(_swept(numbers), numbers)
        if not held.label or serving is None or not kernel.is_set_up():
            return ""
        return steps.digest(held.label, serving)

    def _clear(self, sandbox: str) -> None:
        self._way().clear(sandbox)
        kernel.clear_ways()
        kernel.carry_out(steps.Step(steps.Verb.REMOVE_SERVICE, mark) for mark in kernel.services())


@cache
def _first_that_works(ways: tuple[type[Marks], ...]) -> Marks:
    """The first way of marking that works here; refusals are not remembered."""
    refusals = []
    for make in ways:
        way = make()
        try:
            apart(way.probe)
        except FabricError as error:
            refusals.append(str(error).splitlines()[0])
            logger.warning("packets cannot be marked for IPVS by %s: %s", make.__name__, refusals[-1])
        else:
            return way
    raise FabricError("packets cannot be marked for IPVS: " + "; ".join(refusals))


def _swept(numbers: Mapping[str, int]) -> Mapping[int, steps.Service]:
    """Services, after those were removed that have drained."""
    services = kernel.services()
    live = [mark for vip, number in numbers.items() for mark in steps.marks_of(vip, number)]
    return kernel.services() if kernel.carry_out(steps.drained(services, live)) else services


def _moved(
    services: Mapping[int, steps.Service], numbers: Mapping[str, int], wanted: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Virtual addresses that are new, have lost backends or went, and where their flows may go."""
    found = {}
    for vip, backends in wanted.items():
        service = services.get(steps.marks_of(vip, numbers[vip])[1]) if vip in numbers else None
        if service is None or not service.servers.keys() <= set(backends):
            found[vip] = backends
    return found | {vip: () for vip in numbers if vip not in wanted}
