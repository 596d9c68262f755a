"""ports.Control on any manager: reads proved by the leader, writes carried to the leader, retried safely.

A caller sees no difference between leader and follower. Every command carries a request id, so a retry after
a lost answer or a change of leader applies once; only when time runs out after a write may have been accepted
is the outcome reported as unknown. What does not belong here: HTTP (api/), admission (plan/).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from swarmpy.manager.doctor import NetDoctor
from swarmpy.manager.logs import LogBroker
from swarmpy.manager.store import Store
from swarmpy.manager.writer import Writer
from swarmpy.model import codec
from swarmpy.model.commands import AnyCommand, Result, decode_command
from swarmpy.model.errors import Ambiguous, Refusal, Unavailable, refusal_from
from swarmpy.model.examination import Held
from swarmpy.model.ids import ENTROPY_BYTES, from_bytes, node_of
from swarmpy.plan.explain import explain
from swarmpy.ports import (
    Body,
    Entropy,
    Examination,
    Log,
    LogError,
    LogQuery,
    LogRole,
    ManagersView,
    NotLeaderError,
    Peer,
    RefusedError,
    TaskLogFrame,
    Wire,
    WireError,
)
from swarmpy.state.snapshot import Snapshot

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for which a call looks for a leader before it gives up."""
DEADLINE = 20.0
"""Seconds after which any call is answered, whatever machine has gone silent (Swarm: 20 s too)."""
PAUSE = 0.05
"""Seconds between two looks for a leader while nothing else wakes the caller."""

NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)


class ManagerControl:
    """See the file's charter."""

    def __init__(
        self,
        log: Log,
        store: Store,
        writer: Writer,
        wire: Wire,
        entropy: Entropy,
        broker: LogBroker,
        doctor: NetDoctor,
    ) -> None:
        self._log, self._store, self._writer = log, store, writer
        self._wire, self._entropy, self._broker, self._doctor = wire, entropy, broker, doctor

    # ------------------------------------------------------------ ports.Control

    async def world(self) -> Snapshot:
        """A linearizable read."""
        return await self._persist(self._read)

    async def submit(self, command: AnyCommand) -> Result:
        """Have the leader commit the command; returns once this manager has applied it."""
        if not command.request_id:
            command = replace(command, request_id=from_bytes(self._entropy.token(ENTROPY_BYTES)))
        tried = False

        async def attempt() -> Result:
            nonlocal tried
            leader = self._leader()
            try:
                if leader is None:
                    return await self._submit_here(command)
                return await self._submit_there(leader, command)
            except (WireError, Ambiguous, asyncio.CancelledError):
                tried = True
                raise

        try:
            result = await self._persist(attempt)
        except Ambiguous:
            raise
        except Unavailable:
            if tried:
                raise Ambiguous(
                    "the outcome is unknown: the leader was lost while it carried the request out; "
                    "look at the object before trying again"
                ) from None
            raise
        # It is carried out: a manager that is cut off from now on must not report a failure. What it shows
        # next is proved anew by the leader in any case.
        with suppress(Unavailable):
            await self._applied(result.index)
        return result

    async def managers(self) -> ManagersView:
        """Leader and reachability, as the leader sees them."""

        async def attempt() -> ManagersView:
            leader = self._leader()
            if leader is None:
                return self._view()
            reply = await self._ask(leader, "control.status", {}, timeout=5.0)
            return msgspec.convert(reply, ManagersView)

        return await self._persist(attempt)

    async def world_and_managers(self) -> tuple[Snapshot, ManagersView]:
        """Both, asked at once."""
        world, view = await self._persist(self._read_both)
        return world, view or await self.managers()

    async def changed(self, since: int, *, timeout: float = 30.0) -> Snapshot:
        """This manager's world once its version is above `since`."""
        return await self._store.changed(since, timeout=timeout)

    def logs(self, tasks: tuple[str, ...], query: LogQuery) -> AsyncIterator[TaskLogFrame]:
        """Merged output of tasks."""
        return self._broker.read(tasks, query)

    def explain(self, world: Snapshot, reference: str) -> Mapping[str, Any]:
        """Why tasks run where they run or do not."""
        result: Mapping[str, Any] = msgspec.to_builtins(explain(world, reference))
        return result

    async def examine(self, networks: tuple[str, ...]) -> Examination:
        """Have the nodes look at their networks."""
        return await self._doctor.examine(self.world, networks)

    async def told(self, network_id: str) -> Mapping[str, Held]:
        """How far each node follows a network."""
        return await self._doctor.told(network_id)

    # ------------------------------------------------------------ served to other managers

    async def serve_submit(self, _peer: Peer, body: Body) -> Body:
        """`control.submit`: a follower passes a command on."""
        try:
            command = decode_command(bytes(body["command"]))
            result = await self._writer.submit(command)
        except (KeyError, TypeError, codec.CodecError) as error:
            raise RefusedError("InvalidArgument", f"the command is malformed: {error}") from None
        except Refusal as refusal:
            raise RefusedError(type(refusal).__name__, refusal.message) from None
        return {"result": codec.encode(result)}

    async def serve_read_index(self, _peer: Peer, _body: Body) -> Body:
        """`control.read_index`: how far a follower must have applied to read, and who is reachable."""
        try:
            index = await self._log.read_index()
        except LogError as error:
            raise RefusedError("Unavailable", str(error)) from None
        view = self._view()
        return {"index": index, "leader": view.leader, "reachable": sorted(view.reachable)}

    async def serve_status(self, _peer: Peer, _body: Body) -> Body:
        """`control.status`: who leads and who is reachable."""
        if self._log.status().role is not LogRole.LEADER:
            raise RefusedError("Unavailable", "this manager is not the leader")
        view = self._view()
        return {"leader": view.leader, "reachable": sorted(view.reachable)}

    # ------------------------------------------------------------ one attempt

    def _view(self) -> ManagersView:
        status = self._log.status()
        return ManagersView(
            leader=node_of(status.leader) if status.leader else None,
            reachable=frozenset(node_of(seat) for seat in status.reachable),
        )

    def _leader(self) -> str | None:
        """Address of the leader where that is another manager; None where it is this one.

        Raises Unavailable while there is none."""
        status = self._log.status()
        if status.role is LogRole.LEADER:
            return None
        address = next((one.address for one in status.members if one.id == status.leader), None)
        if address is None:
            raise Unavailable(self._log.failure or NO_LEADER)
        return address

    async def _read(self) -> Snapshot:
        return (await self._read_both())[0]

    async def _read_both(self) -> tuple[Snapshot, ManagersView | None]:
        """The world and, where another manager leads and told them, the managers."""
        view: ManagersView | None = None
        leader = self._leader()
        if leader is None:
            try:
                await self._log.read_index()
            except LogError:
                raise Unavailable(NO_LEADER) from None
        else:
            reply = await self._ask(leader, "control.read_index", {}, timeout=5.0)
            await self._applied(int(reply["index"]))
            if "reachable" in reply:
                view = msgspec.convert(reply, ManagersView)
        return self._store.world, view

    async def _submit_here(self, command: AnyCommand) -> Result:
        try:
            return await self._writer.submit(command)
        except NotLeaderError:
            raise Unavailable(NO_LEADER) from None

    async def _submit_there(self, leader: str, command: AnyCommand) -> Result:
        body = {"command": codec.encode(command)}
        reply = await self._ask(leader, "control.submit", body, timeout=PATIENCE)
        return codec.decode(Result, bytes(reply["result"]))

    async def _ask(self, leader: str, method: str, body: Body, *, timeout: float) -> Body:
        """Call the leader, but wait no longer for one that is the leader no more.

        A machine that lost its power answers nothing: without this every call would wait its time out
        although the others have long elected another.
        """
        call = asyncio.ensure_future(self._wire.call(leader, method, body, timeout=timeout))
        deposed = asyncio.ensure_future(self._until_deposed(leader))
        try:
            await asyncio.wait({call, deposed}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise WireError(f"the leader at {leader} was lost")
            return call.result()
        finally:
            call.cancel()
            deposed.cancel()
            await asyncio.gather(call, deposed, return_exceptions=True)

    async def _until_deposed(self, leader: str) -> None:
        """Return once another member leads, or the log stops."""
        status = self._log.status()
        with suppress(LogError):
            while True:
                known = {one.id: one.address for one in status.members}
                if status.leader is not None and known.get(status.leader) != leader:
                    return
                status = await self._log.wait_status(status)

    async def _applied(self, index: int) -> None:
        try:
            await self._log.wait_applied(index)
        except LogError:
            raise Unavailable("this manager lags behind the leader; try again or ask another one") from None

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it works, is refused for good, or patience ends; DEADLINE bounds it all."""
        try:
            async with asyncio.timeout(DEADLINE):
                return await self._try(attempt)
        except TimeoutError:
            raise Unavailable(f"{NO_LEADER} (no answer within {DEADLINE:g} s)") from None

    async def _try(self, attempt: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            try:
                return await attempt()
            except RefusedError as refused:
                refusal = _refusal(refused)
            except WireError as error:
                refusal = Unavailable(f"{NO_LEADER} ({error})")
            except Unavailable as error:
                refusal = error
            if not isinstance(refusal, Unavailable):
                raise refusal
            if self._log.failure is not None:  # who asks hears why at once: it needs hands, not patience
                raise Unavailable(self._log.failure)
            if loop.time() > deadline:
                raise refusal
            await self._look_again()

    async def _look_again(self) -> None:
        """Wait until the log's view changes, but not long."""
        try:
            async with asyncio.timeout(PAUSE):
                await self._log.wait_status(self._log.status())
        except TimeoutError:
            return
        except LogError:  # this manager's log stopped; it may run again soon
            await asyncio.sleep(PAUSE)


def _refusal(refused: RefusedError) -> Refusal:
    """What another manager's refusal means here: one that leads no more is only asked too late."""
    if refused.code == "NotLeader":
        return Unavailable(NO_LEADER)
    return refusal_from(refused.code, refused.message)
