"""The doctor: has the nodes' networks examined, and says what is wrong with them.

The manager that was asked opens an examination and has the leader pass it to the agents over their sessions;
each agent looks, mends, and calls the asking manager with its report (`net.report`). It also tells what the
leader knows of how far each node follows a network (`net.told`).
What does not belong here: judging (plan/doctor), looking (agent/doctor).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from swarmpy.manager.sessions import Session
from swarmpy.model import codec
from swarmpy.model import messages as m
from swarmpy.model.errors import NotFound, Unavailable
from swarmpy.model.examination import Held, NodeReport
from swarmpy.model.fabric import digest
from swarmpy.model.ids import ENTROPY_BYTES, from_bytes
from swarmpy.plan import doctor
from swarmpy.ports import Body, Entropy, Examination, Peer, RefusedError, WireError
from swarmpy.state.snapshot import Snapshot

logger = logging.getLogger(__name__)

PASS_ON = 5.0
"""Seconds within which a leader must pass an examination on."""
AGAIN = 0.2
ANSWER = 14.0
"""Seconds within which agents must report: they look for 5 at most, try for 3 and deliver in 5."""

CallLeader = Callable[[str, Body], Awaitable[Body]]
Tell = Callable[[Mapping[str, m.Down]], Awaitable[list[str]]]


@dataclass(slots=True)
class _Case:
    """One examination under way."""

    waiting: set[str]
    reports: dict[str, NodeReport] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class NetDoctor:
    """Both halves: the asking manager's and the leader's. `tell` sends each node a message, and returns who
    was not reached; `sessions` are the leader's."""

    def __init__(self, entropy: Entropy, address: str, call_leader: CallLeader, tell: Tell) -> None:
        self._entropy, self._address = entropy, address
        self._call_leader, self._tell = call_leader, tell
        self._open: dict[str, _Case] = {}
        self.sessions: Callable[[], dict[str, Session]] = dict

    # ------------------------------------------------------------ the asking manager's half

    async def examine(
        self, read: Callable[[], Awaitable[Snapshot]], networks: tuple[str, ...]
    ) -> Examination:
        """Examine these networks on the nodes that carry them; all on all nodes where none is named. `read`
        gives the world. Raises Refusal."""
        before = await read()
        unknown = [one for one in networks if one not in before.networks]
        if unknown:
            raise NotFound(f"network {unknown[0]} not found")
        asked = networks or tuple(network.id for network in before.networks)
        nodes = doctor.patients(before, asked, all_nodes=not networks)
        key = from_bytes(self._entropy.token(ENTROPY_BYTES))
        case = self._open[key] = _Case(set(nodes))
        try:
            await self._gather(case, before, await self._ask(key, case, networks))
        finally:
            del self._open[key]
        after = await read()
        found = doctor.findings(doctor.Case(before, after, asked, case.reports, sorted(case.waiting)))
        tried = sum(one.tried for one in case.reports.values())
        return Examination(asked, tuple(sorted(case.reports)), tuple(sorted(case.waiting)), tried, found)

    async def _ask(self, key: str, case: _Case, networks: tuple[str, ...]) -> set[str]:
        """Have a leader ask the agents; returns the nodes that it did not reach."""
        body = {"examination": key, "address": self._address, "nodes": sorted(case.waiting),
                "networks": list(networks)}  # fmt: skip
        try:
            async with asyncio.timeout(PASS_ON):
                while True:
                    try:
                        reply = await self._call_leader("net.examine", body)
                        return {str(one) for one in reply.get("missing", ())}
                    except (WireError, RefusedError) as error:
                        logger.info("the examination is not passed on yet: %s", error)
                    await asyncio.sleep(AGAIN)
        except TimeoutError:
            raise Unavailable("there is no leader that could ask the nodes; try again") from None

    @staticmethod
    async def _gather(case: _Case, world: Snapshot, unreached: set[str]) -> None:
        """Wait for all reports, but not for machines that others do not hear either."""
        try:
            async with asyncio.timeout(ANSWER):
                while case.waiting - unreached - _unheard(case, world):
                    case.news.clear()
                    await case.news.wait()
        except TimeoutError:
            logger.info("no report from %s", ", ".join(sorted(case.waiting)))

    async def serve_report(self, peer: Peer, body: Body) -> Body:
        """`net.report`: an agent says what it found."""
        case = self._open.get(str(body.get("examination", "")))
        if case is None or peer.node_id not in case.waiting:
            raise RefusedError("NotFound", "nobody waits for that report")
        try:
            report = codec.decode(NodeReport, bytes(body["report"]))
        except (KeyError, TypeError, codec.CodecError) as error:
            raise RefusedError("InvalidArgument", f"the report is malformed: {error}") from None
        if report.node_id != peer.node_id:
            raise RefusedError("PermissionDenied", "a node may only report of itself")
        case.waiting.discard(peer.node_id)
        case.reports[peer.node_id] = report
        case.news.set()
        return {}

    async def told(self, network_id: str) -> Mapping[str, Held]:
        """How far each node follows the network, by node id. Raises Unavailable."""
        try:
            reply = await self._call_leader("net.told", {"network": network_id})
        except (WireError, RefusedError) as error:
            raise Unavailable(f"the leader does not say how far the nodes are: {error}") from None
        return msgspec.convert(reply["nodes"], dict[str, Held])

    # ------------------------------------------------------------ the leader's half

    async def serve_examine(self, _peer: Peer, body: Body) -> Body:
        """`net.examine`: pass it to the agents; answers who is missing."""
        message = m.Examine(
            examination=str(body["examination"]), address=str(body["address"]),
            networks=tuple(str(one) for one in body["networks"]),
        )  # fmt: skip
        return {"missing": await self._tell({str(node): message for node in body["nodes"]})}

    async def serve_told(self, _peer: Peer, body: Body) -> Body:
        """`net.told`: what sessions were told of a network."""
        key = str(body["network"])
        found = {
            node: {"digest": digest(session.networks.tables[key]), "version": session.networks.settled}
            for node, session in sorted(self.sessions().items())
            if key in session.networks.tables
        }
        return {"nodes": found}


def _unheard(case: _Case, world: Snapshot) -> set[str]:
    """The nodes that the probes of a node that reported do not hear."""
    lost = {address for report in case.reports.values() for address in report.lost}
    return {node.id for node in world.nodes if node.vtep in lost}
