"""The agent's answers to the Engine's network driver: addresses, links, and the namespace made ready.

An endpoint carries all that is needed in its own options (plan/container), so nothing is remembered between
calls but what one start needs. What does not belong here: the driver's protocol (adapters/driver).
"""

from __future__ import annotations

from swarmpy.agent.fabric import FabricWorker
from swarmpy.model.links import Plug
from swarmpy.plan.container import OPTION
from swarmpy.ports import FabricError, Joined, Plugged


class AgentPlumber:
    """ports.Plumber over the agent's network."""

    def __init__(self, fabric: FabricWorker) -> None:
        self._fabric = fabric
        self._networks: dict[str, str] = {}

    async def create(self, endpoint: Plugged) -> tuple[tuple[str, ...], str]:
        """Addresses and MAC, as the leader gave them."""
        addresses = tuple(one for one in self._option(endpoint, "addresses").split(",") if one)
        if not addresses:
            raise FabricError("the endpoint has no address: only tasks of the cluster can use this network")
        return addresses, self._option(endpoint, "mac")

    async def join(self, endpoint: Plugged) -> Joined:
        """Plug it in, and program its namespace before its process runs."""
        network_id = self._option(endpoint, "network")
        task_id = endpoint.options.get(OPTION + "task", "")
        table = await self._fabric.prepare(network_id)
        plug = Plug(
            endpoint.endpoint_id,
            network_id,
            mac=self._option(endpoint, "mac"),
            mtu=table.mtu,
            task_id=task_id,
        )
        async with self._fabric.lock(network_id):
            link = await self._fabric.ports.overlay.plug(plug)
        self._networks[endpoint.endpoint_id] = network_id
        self._fabric.joined(task_id, endpoint.endpoint_id, endpoint.sandbox)
        prefix = endpoint.options.get(OPTION + "prefix", "eth")
        return Joined(link, prefix, isolated=endpoint.options.get(OPTION + "isolated") == "1")

    async def leave(self, endpoint_id: str) -> None:
        """Unplug it, on whatever network it is."""
        network_id = self._networks.pop(endpoint_id, "")
        candidates = [network_id] if network_id else sorted(self._fabric.tables)
        for one in candidates:
            async with self._fabric.lock(one):
                await self._fabric.ports.overlay.unplug(one, endpoint_id)
        self._fabric.left(endpoint_id)

    @staticmethod
    def _option(endpoint: Plugged, name: str) -> str:
        value = endpoint.options.get(OPTION + name)
        if value is None:
            raise FabricError(
                f"the endpoint lacks the option {OPTION}{name}: only swarmpy connects containers to its "
                "networks; ask its socket instead of the Engine's "
                "(docker -H unix:///run/swarmpy/swarmpy.sock run ...)"
            )
        return value
