"""A node's certificate: renewed in time, and at once when its role changes; and the way to the leader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from swarmpy.node.toolbox import Toolbox
from swarmpy.pki.errors import PkiError
from swarmpy.pki.identity import Identity, NodeIdentity, make_key_and_csr, renewal_time
from swarmpy.pki.seal import Sealing
from swarmpy.ports import Body, RefusedError, Wire, WireError

logger = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 0.5, 3600.0
"""Seconds: pauses between attempts double from the first to the last (SwarmKit's last is an hour)."""
CHECK = 3600.0
"""Seconds between looks at the wall clock, which may jump."""


class Renewal:
    """Keeps the identity fresh. `known` gives (node id, address) of managers."""

    def __init__(
        self,
        tools: Toolbox,
        identity: Identity,
        sealer: Sealing,
        wire: Wire,
        known: Callable[[], list[tuple[str, str]]],
    ) -> None:
        self._tools, self._identity, self._sealer = tools, identity, sealer
        self._wire, self._known = wire, known

    async def run(self) -> None:
        """Renew at 50 to 80 % of each certificate's life, for ever."""
        chance = self._tools.entropy.uniform(0.0, 1.0)
        while True:
            due = renewal_time(self._identity.certificate, chance)
            left = (due - self._tools.clock.now()) / 1e9
            if left > 0:
                await asyncio.sleep(min(left, CHECK))
            else:
                await self._until(None)

    async def renew_until_role(self, role: str) -> None:
        """Renew until the certificate carries the role."""
        await self._until(role)

    async def _until(self, role: str | None) -> None:
        pause = FIRST_RETRY
        while True:
            try:
                await self.renew()
            except (WireError, RefusedError, PkiError) as error:
                logger.warning("the certificate could not be renewed yet: %s", error)
            else:
                if role is None or self._identity.certificate.role == role:
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_RETRY if role is None else 5.0)

    async def renew(self) -> None:
        """Get a new certificate, keep it, use it. Raises WireError, RefusedError, PkiError."""
        key, csr = make_key_and_csr()
        body = {"node_id": self._identity.node_id, "csr": csr.decode()}
        reply = await self.call_leader("ca.renew", body)
        fresh = NodeIdentity(str(reply["certificate"]).encode(), key, str(reply["root"]).encode())
        fresh.check(self._tools.clock.now())
        fresh.save(self._tools.disk, self._sealer)
        self._identity.swap(fresh)

    async def call_leader(self, method: str, body: Body, *, timeout: float = 10.0) -> Body:
        """Call the leader, wherever it is. Raises WireError or RefusedError of the last one asked."""
        problem: Exception = WireError("this node knows no manager")
        tried: set[str] = set()
        queue = [address for _, address in self._known()]
        while queue:
            address = queue.pop(0)
            if address in tried or not address:
                continue
            tried.add(address)
            try:
                return await self._wire.call(address, method, body, timeout=timeout)
            except RefusedError as refused:
                if refused.code != "NotLeader":
                    raise
                problem = refused
                queue.insert(0, str(refused.data.get("leader") or ""))
            except WireError as error:
                problem = error
        raise problem
