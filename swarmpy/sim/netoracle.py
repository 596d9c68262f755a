"""Requests in a simulated cluster: where the next connection of a container, or from outside, would go.

A service with a task that surely serves answers: the balancer of the client's namespace picks, and the frame
finds a running container over the simulated overlay. What does not belong here: when a balancer may know of
a backend (netwatch.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from swarmpy.adapters.overlay.identity import room_name
from swarmpy.model import addressing
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.links import Question
from swarmpy.model.objects import Network, Service, Task
from swarmpy.sim.containers import Container
from swarmpy.sim.invariants import Broken
from swarmpy.sim.netwatch import CALM, DEAD, NetWatch, addresses_of, of_container
from swarmpy.sim.stage import Box

EVERY = 0.5
"""Virtual seconds between two rounds of requests."""
SETTLED = 2.0
"""Seconds after which everybody who is well knows of a task in traffic."""


class Oracle:
    """See the file's charter."""

    def __init__(self, watch: NetWatch) -> None:
        self.watch = watch
        self.stage = watch.stage
        self.asked = 0
        """Requests that had to be answered."""
        self.asked_six = 0
        """Those among them that came to the routing mesh over IPv6."""

    def begin(self) -> None:
        """Ask every now and then, from now on."""
        self.stage.net.later(EVERY, self._round)

    def _round(self) -> None:
        for rule, sentence in self._requests():
            self.stage.violate(rule, sentence)
        self.stage.net.later(EVERY, self._round)

    def _requests(self) -> Iterator[Broken]:
        calm = [box for box in self.stage.up if self.watch.calm(box, CALM)]
        for network in self.watch.world.networks:
            sure = self._sure(network, six=False)
            if network.view.ingress:
                for six, targets in ((False, sure), (True, self._sure(network, six=True))):
                    for box in calm if targets else ():
                        yield from self._from_outside(box, network, targets, six=six)
            elif sure:
                for box in calm:
                    yield from self._from_inside(box, network, sure)

    # ------------------------------------------------------------ who surely serves

    def _sure(self, network: Network, *, six: bool) -> dict[str, dict[str, tuple[Box, Container]]]:
        """By service: (machine, container) by address of tasks that all who are well know to serve. `six`: by
        IPv6 address."""
        found: dict[str, dict[str, tuple[Box, Container]]] = {}
        for _, task in sorted((self.watch.world.bucket_in(network.id) or {}).items()):
            box = self.watch.box_of(task.node_id)
            container = self.watch.container_of(task.id, box)
            if box is None or container is None or container.state != "running" or not self.watch.calm(box):
                continue
            if container.sandbox in box.kernel.stack.severed:
                continue  # it is to be replaced; that it is, is seen at rest
            for key, address in addresses_of(container):
                if key == network.id and self._long(address) and (":" in address) == six:
                    found.setdefault(task.service_id, {})[address] = (box, container)
        return found

    def _long(self, address: str) -> bool:
        since = self.watch.began.get(address)
        return since is not None and self.stage.loop.instant - since >= SETTLED

    # ------------------------------------------------------------ requests

    def _from_inside(
        self, box: Box, network: Network, sure: dict[str, dict[str, tuple[Box, Container]]]
    ) -> Iterator[Broken]:
        for client in self._clients(box, network):
            for service in self.watch.world.services:
                targets = sure.get(service.id)
                vip = next(
                    (addressing.bare(one.address) for one in service.vips if one.network_id == network.id), ""
                )
                if not targets or not self._published(service):
                    continue
                yield from self._names(box, network, client, service, vip, targets)
                if vip:
                    self.asked += 1
                    picked = box.kernel.filter.pick(client.sandbox, vip)
                    yield from self._judge(box, client.name, network, service, picked, targets)
                for address, (there, target) in sorted(targets.items()):
                    if not self._reaches(box, network, address, there, target):
                        where = f"{address} ({target.name} on {there.name}) in {network.name}"
                        yield "request-arrives", f"{client.name} on {box.name} does not reach {where}"

    def _clients(self, box: Box, network: Network) -> Iterator[Container]:
        for container in box.dockerd.listed:
            task: Task | None = self.watch.world.tasks.get(of_container(container))
            if task is None or container.state != "running" or task.status.state is not TaskState.RUNNING:
                continue
            mine = [
                address
                for key, address in addresses_of(container)
                if key == network.id and ":" not in address
            ]
            if any(self._long(address) for address in mine):
                yield container

    def _from_outside(
        self, box: Box, network: Network, sure: dict[str, dict[str, tuple[Box, Container]]], *, six: bool
    ) -> Iterator[Broken]:
        own = self._own(box, six=six)
        if six and not own:
            return
        for service in self.watch.world.services:
            targets = sure.get(service.id)
            ports = [port for port in service.ports if port.publish_mode != "host"]
            if not targets or not ports or not self._published(service):
                continue
            for port in ports:
                self.asked += 1
                picked = box.kernel.filter.enter(port.protocol, port.published_port, six=six)
                client = f"a client of {box.name}:{port.published_port}{' (IPv6)' if six else ''}"
                yield from self._judge(box, client, network, service, picked, targets)
                yield from self._refused(client, service, picked)
                if six:
                    self.asked_six += 1
            for address, (there, target) in sorted(targets.items()):
                if not self._reaches(box, network, address, there, target):
                    yield "request-arrives", (f"the routing mesh of {box.name} does not reach {address} "
                                              f"({target.name} on {there.name})")  # fmt: skip
                if own and own not in there.kernel.filter.returned(target.sandbox):
                    yield (
                        "answer-returns",
                        f"{target.name} on {there.name} cannot answer clients of {box.name} over {own}",
                    )

    def _own(self, box: Box, *, six: bool) -> str:
        """The machine's address in the ingress network, "" where it has none."""
        for node in self.watch.world.nodes:
            if self.watch.box_of(node.id) is box:
                found = (addressing.bare(one) for one in node.ingress if (":" in one) == six)
                return next(found, "")
        return ""

    def _published(self, service: Service) -> bool:
        since = self.watch.published.get(service.id)
        return since is not None and self.stage.loop.instant - since >= SETTLED

    def _judge(
        self, box: Box, client: str, network: Network, service: Service, picked: str | None,
        targets: dict[str, tuple[Box, Container]],
    ) -> Iterator[Broken]:  # fmt: skip
        if not picked:
            how = "is refused" if picked == "" else "goes into the void"
            where = f"{service.name} in {network.name} on {box.name}"
            sentence = f"a request of {client} to {where} {how}, though {len(targets)} tasks serve"
            yield "request-answered", sentence

    def _refused(self, client: str, service: Service, picked: str | None) -> Iterator[Broken]:
        """Where a request goes, somebody listens."""
        for box in self.stage.boxes.values() if picked else ():
            for container in box.dockerd.listed:
                task = self.watch.world.tasks.get(of_container(container))
                if task is None or picked not in [address for _, address in addresses_of(container)]:
                    continue
                for port in self.watch.refusing(task, container):
                    where = f"{service.name}, at port {port} of {container.name} on {box.name}"
                    yield "request-refused", f"a request of {client} to {where}, finds nobody who listens"

    def _names(
        self, box: Box, network: Network, client: Container, service: Service, vip: str,
        targets: dict[str, tuple[Box, Container]],
    ) -> Iterator[Broken]:  # fmt: skip
        """What the name server of the client's network says of the service and of its tasks."""
        if box.kernel.resolve is None:
            return
        source = next(
            address for key, address in addresses_of(client) if key == network.id and ":" not in address
        )
        suffix = f"{service.name}.{network.name}".lower()
        tasks = box.kernel.resolve(Question(network.id, source, f"tasks.{suffix}", "A")).addresses
        missing = sorted(set(targets) - set(tasks))
        if missing:
            yield "name-answered", f"{box.name} does not name {missing[0]} among the tasks of {suffix}"
        for address in tasks:
            left = self.watch.ended.get(address)
            if address not in self.watch.began and (left is None or self.stage.loop.instant - left > DEAD):
                yield (
                    "dead-name",
                    f"{box.name} names {address} among the tasks of {suffix}: it gets no traffic",
                )
        answer = box.kernel.resolve(Question(network.id, source, suffix, "A")).addresses
        if vip and answer != (vip,):
            yield "name-answered", f"{box.name} names {answer} for {suffix}, whose address is {vip}"

    # ------------------------------------------------------------ frames

    def _reaches(self, box: Box, network: Network, address: str, there: Box, target: Container) -> bool:
        """Whether a frame from the network on one machine arrives at the target."""
        name = room_name(network.id)
        endpoints = {target.endpoint(place) for place in target.places}
        if there is box:
            room = box.kernel.stack.rooms.get(name)
            ports = room.ports.values() if room is not None and room.bridge is not None else ()
            return any(one.plug is not None and one.plug.endpoint_id in endpoints and one.up and one.enslaved
                       and one.place == target.sandbox for one in ports)  # fmt: skip
        if self.stage.net.blocked(box.host, there.host):
            return True  # the underlay is at fault
        way = box.kernel.stack.route(name, address)
        if way is None or way[1] != there.host:
            return False
        mac, _, vni, port = way
        return there.kernel.stack.arrives(vni, port, mac) in endpoints
