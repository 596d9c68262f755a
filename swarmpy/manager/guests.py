"""Nodes ask for places of containers that are no tasks: `node.attach` and `node.detach`, on the leader.

What belongs here: turning a node's request into a command, names of networks into ids. What does not: whether
it is granted (plan/admission/attachment.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from swarmpy.model.commands import AnyCommand, AttachContainer, DetachContainer, Result
from swarmpy.model.errors import NotFound, Refusal
from swarmpy.model.objects import Attachment
from swarmpy.ports import Body, Peer, RefusedError
from swarmpy.state.snapshot import Snapshot

Submit = Callable[[AnyCommand], Awaitable[Result]]


class GuestService:
    """`submit` has the leader's writer carry out a command, `world` is the leader's."""

    def __init__(self, submit: Submit, world: Callable[[], Snapshot]) -> None:
        self._submit, self._world = submit, world

    async def attach(self, peer: Peer, body: Body) -> Body:
        """Places in networks, which may be named by id or name. Raises RefusedError."""
        try:
            asked = msgspec.convert(dict(body["command"]), AttachContainer)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise RefusedError("InvalidArgument", f"the request is malformed: {error}") from None
        try:
            networks = tuple(self._resolved(one) for one in asked.networks)
            # For itself, whatever it says.
            await self._submit(msgspec.structs.replace(asked, node=peer.node_id, networks=networks))
        except Refusal as refusal:
            raise RefusedError(type(refusal).__name__, refusal.message) from None
        guest = self._world().guests.get(asked.id)
        if guest is None:
            raise RefusedError("Unavailable", "the attachment was removed meanwhile; try again")
        return {"guest": msgspec.to_builtins(guest)}

    async def detach(self, peer: Peer, body: Body) -> Body:
        """Give places up; unknown ones are fine. Raises RefusedError."""
        try:
            asked = msgspec.convert(dict(body["command"]), DetachContainer)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise RefusedError("InvalidArgument", f"the request is malformed: {error}") from None
        try:
            await self._submit(msgspec.structs.replace(asked, node=peer.node_id))
        except Refusal as refusal:
            raise RefusedError(type(refusal).__name__, refusal.message) from None
        return {}

    def _resolved(self, wanted: Attachment) -> Attachment:
        world = self._world()
        network = world.networks.get(wanted.network_id) or world.network_named(wanted.network_id)
        if network is None:
            raise NotFound(f"network {wanted.network_id} not found")
        return msgspec.structs.replace(wanted, network_id=network.id)
