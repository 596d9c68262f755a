"""The agent under examination: it looks at all its networks at once, mends them, tries them out, and reports.

What belongs here: asking the network's worker, the probes, the trials and the Engine, and sending what they
say to the manager that asked (`net.report`). What does not: what it means (plan/doctor).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from swarmpy.agent.fabric import FabricWorker
from swarmpy.agent.probing import Probing
from swarmpy.model import codec
from swarmpy.model.examination import Crossing, NodeReport, Path, Wrong
from swarmpy.model.fabric import Table, digest
from swarmpy.model.messages import Examine
from swarmpy.plan import doctor, probing, share
from swarmpy.ports import Engine, EngineError, FabricError, RefusedError, Wire, WireError

logger = logging.getLogger(__name__)

LOOK = 5.0
"""Seconds within which the network must come to rest."""
TRY = 2.5
"""Seconds for which a trial is repeated: the other side may still be mending."""
SMALL = 84
"""Bytes of a small packet, as `ping` sends it."""
REPORT = 5.0
AT_ONCE = 4
"""Examinations at a time; what comes more is not answered."""
MOST = 200
"""Failures of one kind in a report: it says enough."""

T = TypeVar("T")


class Examined:
    """See the file's charter."""

    def __init__(
        self, node_id: str, wire: Wire, engine: Engine, fabric: FabricWorker, asker: Probing
    ) -> None:
        self._node_id, self._wire, self._engine = node_id, wire, engine
        self._fabric, self._probing = fabric, asker
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, wanted: Examine) -> None:
        """Look, and report to whoever asked."""
        if len(self._running) < AT_ONCE:
            task = asyncio.create_task(self._answer(wanted), name="examination")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """End all."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _answer(self, wanted: Examine) -> None:
        report = await self.examine(wanted.networks)
        body = {
            "node_id": self._node_id, "examination": wanted.examination, "report": codec.encode(report)
        }  # fmt: skip
        try:
            await self._wire.call(wanted.address, "net.report", body, timeout=REPORT)
        except (WireError, RefusedError) as error:
            logger.info("the report for %s cannot be delivered: %s", wanted.address, error)

    async def examine(self, networks: tuple[str, ...]) -> NodeReport:
        """Everything about these networks, about all where none is named."""
        wrong: list[Wrong] = []
        try:
            async with asyncio.timeout(LOOK):
                await self._fabric.looked()
        except TimeoutError:
            wrong.append(Wrong("", f"its network did not come to rest within {LOOK:g} s"))
        tables = {key: one for key, one in self._fabric.tables.items() if not networks or key in networks}
        paths, crossings, silent, missing = await asyncio.gather(
            self._paths(tables), self._crossings(tables), self._names(tables), self._local(tables)
        )
        wrong += [*self._problems(), *silent, *missing]
        failed = [one for one in crossings if not one.full]
        return NodeReport(
            node_id=self._node_id,
            digests={key: digest(table) for key, table in sorted(tables.items())},
            wrong=tuple(wrong[:MOST]),
            mended=self._fabric.drift.recent(),
            paths=tuple([one for one in paths if not one.full][:MOST]),
            crossings=tuple(failed[:MOST]),
            tried=len(paths) + len(crossings),
            lost=self._probing.lost,
        )

    def _problems(self) -> list[Wrong]:
        """What worker and probes could not do; paths are tried anew instead of quoted."""
        found: list[Wrong] = []
        for key, text in sorted(self._fabric.problems.items()):
            subject = key.partition(" ")[2]
            found.append(Wrong(subject if subject in self._fabric.tables else "", text))
        if "probes" in self._probing.problems:
            found.append(Wrong("", self._probing.problems["probes"]))
        return found

    async def _paths(self, tables: Mapping[str, Table]) -> list[Path]:
        sizes = probing.widths(tables)
        sizes.pop(self._fabric.local(), None)
        return await self._probing.try_paths(sizes, TRY) if self._probing.serving else []

    async def _crossings(self, tables: Mapping[str, Table]) -> list[Crossing]:
        found = await asyncio.gather(*(self._cross(table) for table in tables.values()))
        return [one for some in found for one in some]

    async def _cross(self, table: Table) -> list[Crossing]:
        """Through one network to each other node."""
        here, there = doctor.stations(table, self._node_id)
        if here is None or not there:
            return []
        trials, space = self._fabric.ports.trials, self._fabric.ports.overlay.namespace(table.id)
        ways = list(there.values())
        small, full = await asyncio.gather(
            _or_none(trials.across(space, here, ways, SMALL, TRY)),
            _or_none(trials.across(space, here, ways, table.mtu, TRY)),
        )
        wide, any_ = full or frozenset(), (small or frozenset()) | (full or frozenset())
        return [
            Crossing(table.id, node, one.address, one in any_, one in wide) for node, one in there.items()
        ]

    async def _names(self, tables: Mapping[str, Table]) -> list[Wrong]:
        found = await asyncio.gather(*(self._ask_names(table) for table in tables.values()))
        return [one for some in found for one in some]

    async def _ask_names(self, table: Table) -> list[Wrong]:
        addresses = share.served_at(table)
        name = next((one.name for one in table.endpoints), "")
        if not addresses or not name:
            return []
        space = self._fabric.ports.overlay.namespace(table.id)
        answered = await _or_none(self._fabric.ports.trials.answers(space, addresses, name, TRY))
        return [
            Wrong(table.id, f"its name server at {one} does not answer")
            for one in addresses
            if one not in (answered or ())
        ]

    async def _local(self, tables: Mapping[str, Table]) -> list[Wrong]:
        """The Engine's own networks, through which containers that run here are on ours."""
        try:
            known = await self._engine.networks()
        except EngineError as error:
            return [Wrong("", f"its Engine does not say which networks it has: {error}")]
        here = [
            table
            for table in tables.values()
            if any(one.node_id == self._node_id and one.serving for one in table.endpoints)
        ]
        return [
            Wrong(table.id, f"its Engine has no network {table.name} of this cluster, though tasks on it run")
            for table in here
            if known.get(table.name) != table.id
        ]


async def _or_none(work: Awaitable[T]) -> T | None:
    """The result, None where the kernel refused: that nothing answers is what is reported then."""
    try:
        return await work
    except FabricError as error:
        logger.info("a trial could not be made: %s", error)
        return None
