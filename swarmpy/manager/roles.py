"""The role service: while this manager leads, makes roles and raft seats what the specs ask for.

Promotion: the role changes at once, the node renews its certificate, starts a manager and asks for its
seat (`control.join_raft`). Demotion: the seat is given up first (the leader hands leadership over before),
then the role changes. What does not belong here: refusing demotions (plan/admission/node).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from swarmpy.manager.store import Store
from swarmpy.model.commands import AnyCommand, Result, SetRole
from swarmpy.model.errors import Refusal
from swarmpy.model.ids import node_of
from swarmpy.model.lifecycle import Role
from swarmpy.model.objects import Node
from swarmpy.plan.admission.node import effective_role
from swarmpy.ports import Body, Log, LogError, Member, Peer, RefusedError

logger = logging.getLogger(__name__)

Submit = Callable[[AnyCommand], Awaitable[Result]]

RETRY = 5.0
"""Seconds between attempts at a change that did not work (Swarm's interval)."""


class RoleService:
    """Runs while this manager leads."""

    def __init__(self, seat: str, log: Log, store: Store, submit: Submit) -> None:
        self._seat, self._log, self._store, self._submit = seat, log, store, submit
        self._seats = asyncio.Lock()

    async def run(self) -> None:
        """Reconcile on every change of the world until cancelled."""
        while True:
            world = self._store.world
            settled = True
            for node in world.nodes:
                settled = await self._settle(node) and settled
            await self._forget_removed()
            if settled:
                await self._store.changed(world.version, timeout=RETRY)
            else:
                await asyncio.sleep(RETRY)

    async def join_raft(self, peer: Peer, body: Body) -> Body:
        """`control.join_raft`: a manager asks for its seat. {node_id, seat, address} -> {}."""
        node = self._store.world.nodes.get(peer.node_id)
        seat, address = body.get("seat"), body.get("address")
        if node is None or node.role is not Role.MANAGER:
            raise RefusedError("PermissionDenied", "only a node whose role is manager may take a seat")
        if (
            not isinstance(seat, str)
            or node_of(seat) != node.id
            or not isinstance(address, str)
            or not address
        ):
            raise RefusedError("InvalidArgument", "a seat needs the node's own seat id and an address")
        try:
            async with self._seats:
                if not self._seated(seat, address):
                    await self._log.add_member(Member(seat, address))
            await self._submit(SetRole(node=node.id, role=Role.MANAGER, manager_address=address))
        except LogError as error:
            raise RefusedError(
                "Unavailable", f"manager {node.id} could not be added at {address}: {error}"
            ) from None
        except Refusal as refusal:
            raise RefusedError(type(refusal).__name__, refusal.message) from None
        return {}

    def _seated(self, seat: str, address: str) -> bool:
        return any(
            one.id == seat and one.address == address and one.voter for one in self._log.status().members
        )

    def _seats_of(self, node_id: str) -> list[Member]:
        return [one for one in self._log.status().members if node_of(one.id) == node_id]

    async def _settle(self, node: Node) -> bool:
        """Bring one node's role where it should be; False when that has to be tried again."""
        wanted = effective_role(node)
        try:
            if wanted is Role.MANAGER and node.role is Role.WORKER:
                await self._submit(SetRole(node=node.id, role=Role.MANAGER))
            elif wanted is Role.WORKER and node.role is Role.MANAGER:
                await self._demote(node)
            elif node.role is Role.MANAGER and not node.manager_address:
                await self._record_seat(node)
        except (LogError, Refusal) as error:
            logger.warning("role of node %s could not be changed yet: %s", node.id, error)
            return False
        return True

    async def _record_seat(self, node: Node) -> None:
        """A seat that was taken just before the last leader was lost is recorded now."""
        for member in self._seats_of(node.id):
            if member.voter:
                await self._submit(SetRole(node=node.id, role=Role.MANAGER, manager_address=member.address))

    async def _demote(self, node: Node) -> None:
        async with self._seats:
            for member in self._seats_of(node.id):
                if member.id == self._seat:
                    await self._log.transfer()  # the next leader demotes this node
                    return
                await self._log.remove_member(member.id)
        await self._submit(SetRole(node=node.id, role=Role.WORKER))

    async def _forget_removed(self) -> None:
        """Members of the log that are no nodes any more give up their seats."""
        world = self._store.world
        if world.cluster is None:
            return
        for member in self._log.status().members:
            if member.id != self._seat and node_of(member.id) not in world.nodes:
                try:
                    async with self._seats:
                        await self._log.remove_member(member.id)
                except LogError as error:
                    logger.warning("seat of removed node %s is still taken: %s", member.id, error)
