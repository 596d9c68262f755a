"""What this process programmed into balancers, routing mesh and name servers, and whether it is still there.

What belongs here: programming, remembering what the kernel surely holds, looking whether others changed it.
What does not: what should be there (plan/fabric), when it is looked at (fabric.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from swarmpy.agent.drift import Drift, holds
from swarmpy.model.links import MeshTable, SandboxTable
from swarmpy.ports import FabricError, FabricPorts


class Rules:
    """See the file's charter. Namespaces are named by their paths."""

    def __init__(self, ports: FabricPorts, drift: Drift) -> None:
        self._ports, self._drift = ports, drift
        self._programmed: dict[str, tuple[SandboxTable, str]] = {}
        self._early = set[str]()
        """Those that were programmed while the Engine still made them."""
        self._mesh: tuple[MeshTable, str] | None = None
        self.mesh_known = False
        """Whether the kernel surely has no other mesh: an earlier life may have left one."""
        self.served: dict[str, tuple[str, ...]] = {}
        """Where names are served, by network."""

    @property
    def mesh(self) -> MeshTable | None:
        """The routing mesh that the kernel surely holds."""
        return self._mesh[0] if self._mesh else None

    def tables(self) -> Mapping[str, SandboxTable]:
        """What the namespaces' balancers surely hold."""
        return {path: table for path, (table, _) in self._programmed.items()}

    def keep(self, paths: Collection[str]) -> None:
        """The other namespaces are gone."""
        self._programmed = {key: one for key, one in self._programmed.items() if key in paths}
        self._early &= self._programmed.keys()

    async def balance(
        self, path: str, table: SandboxTable, before: SandboxTable | None, *, early: bool = False
    ) -> None:
        """Program a namespace's balancer. `early`: the Engine still makes it, and may change what we set.
        Raises FabricError."""
        try:
            mark = await self._ports.balancer.apply(path, table, before)
        except FabricError:
            self._programmed.pop(path, None)
            raise
        self._programmed[path] = (table, mark)
        (self._early.add if early else self._early.discard)(path)
        self._drift.mended(path)

    async def set_mesh(self, table: MeshTable | None, before: MeshTable | None) -> None:
        """Program the routing mesh, None for no part in it. Raises FabricError."""
        self._mesh, self.mesh_known = None, False
        if table is None:
            await self._ports.mesh.clear()
        else:
            self._mesh = (table, await self._ports.mesh.apply(table, before))
        self.mesh_known = True

    async def serve(self, network_id: str, addresses: tuple[str, ...]) -> None:
        """Serve a network's names at these addresses only. Raises FabricError."""
        if addresses:
            namespace = self._ports.overlay.namespace(network_id)
            await self._ports.names.serve(network_id, namespace, addresses)
            self.served[network_id] = addresses
        else:
            await self._ports.names.withdraw(network_id)
            self.served.pop(network_id, None)

    async def verify(self, running: Collection[str], hurry: Callable[[], bool]) -> bool:
        """Forget what others changed in running containers' namespaces, so that it is programmed again. Ends
        early, with False, as soon as there is hurry."""
        for path, (_, mark) in list(self._programmed.items()):
            if hurry():
                return False
            held = await holds(partial(self._ports.balancer.observe, path), mark)
            known = self._programmed.get(path)
            if not held and path in running and known is not None and known[1] == mark:
                if path not in self._early:
                    self._drift.suspect(path, f"the balancer of {path} was changed by others")
                del self._programmed[path]
        if self._mesh is not None and not await holds(self._ports.mesh.observe, self._mesh[1]):
            self._drift.note("", "the routing mesh was changed by others")
            self._mesh, self.mesh_known = None, False
        return True
