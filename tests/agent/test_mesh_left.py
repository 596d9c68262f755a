"""The routing mesh on a simulated kernel: what nobody wants any more goes, whoever left it there; and what
others change is mended however busy the node is."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace as with_

from swarmpy.adapters.overlay.identity import room_name
from swarmpy.model.fabric import PublishedPort
from swarmpy.model.links import MeshTable
from swarmpy.sim.balancer import SimMesh
from tests.agent.place import MESHED, Place, table, until


def test_a_mesh_that_was_left_behind_is_taken_away() -> None:
    """An agent that died while a port was published, and came back when it was not, left it published."""

    async def scenario(place: Place) -> None:
        await SimMesh(place.kernel.filter).apply(MeshTable("ingress", ("10.0.0.2",)), None)
        await asyncio.sleep(1.0)
        assert place.kernel.filter.mesh is not None, "the leader has not said anything yet"
        place.take(1)
        await until(lambda: place.kernel.filter.mesh is None)

    Place().run(scenario)


def test_a_mesh_whose_last_change_was_refused_is_taken_away() -> None:
    async def scenario(place: Place) -> None:
        port = PublishedPort(service_id="s", protocol="tcp", published=8080, target=80)
        meshed = table("ingress", "10.0.0", ingress=True, nodes=MESHED, ports=(port,))
        place.take(1, meshed)
        await until(lambda: 1 in place.applied)
        place.kernel.filter.refuse = 1.0
        place.take(2, with_(meshed, endpoints=()))
        await asyncio.sleep(2.0)
        place.kernel.filter.refuse = 0.0
        place.take(3)
        await until(lambda: 3 in place.applied)
        assert 2 not in place.applied
        assert place.kernel.filter.mesh is None

    Place().run(scenario)


def test_a_node_that_becomes_a_manager_has_its_port_back() -> None:
    """It was published before: the mesh would keep the other managers from the new one."""

    async def scenario(place: Place) -> None:
        port = PublishedPort(service_id="s", protocol="tcp", published=2400, target=80)
        place.take(1, table("ingress", "10.0.0", ingress=True, nodes=MESHED, ports=(port,)))
        await until(
            lambda: place.kernel.filter.mesh is not None and bool(place.kernel.filter.mesh.table.ports)
        )
        place.worker.listening |= {2400}
        place.worker.changed()
        await until(lambda: place.kernel.filter.mesh is not None and not place.kernel.filter.mesh.table.ports)

    Place().run(scenario)


def test_what_others_change_is_mended_on_a_busy_node_too() -> None:
    """The looks at the kernel were made when nothing happened for a second: on a busy node, never."""

    async def scenario(place: Place) -> None:
        place.take(1, table("net", "10.0.1"), table("ingress", "10.0.0", ingress=True, nodes=MESHED))
        await until(lambda: 1 in place.applied)
        assert place.kernel.stack.drift(room_name("net"), "bridge down")
        place.kernel.filter.flush_mesh()
        bridge = place.kernel.stack.rooms[room_name("net")].bridge
        for _ in range(35):
            place.worker.look()
            await asyncio.sleep(0.2)
        assert place.kernel.filter.mesh is not None
        assert bridge is not None
        assert bridge.up

    Place().run(scenario)
