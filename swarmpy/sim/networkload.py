"""What clients ask of a simulated cluster's networks: to be made, removed, used by services, left by them.

What belongs here: specs of networks, and what of a service's spec is about networks. What does not: asking
(workload.py), judging (netwatch.py).
"""

from __future__ import annotations

import json
import random
from typing import Any

from swarmpy.model.commands import AnyCommand, CreateNetwork, RemoveNetwork
from swarmpy.model.ids import derive
from swarmpy.plan import listening
from swarmpy.state.snapshot import Snapshot

NAMES = ("blue", "green", "red")
"""Few names, so that one is soon used again for another network."""
TINY = ("10.90.0.0/29", "10.90.0.8/29")
"""Subnets with room for five."""
PORTS = (8080, 8081)


def network_spec(name: str, chance: random.Random) -> str:
    """The spec of a network."""
    spec: dict[str, Any] = {"Name": name, "Driver": "overlay", "Scope": "swarm"}
    if chance.random() < 0.2:
        spec["Internal"] = True
    if chance.random() < 0.3:
        spec["IPAM"] = {"Config": [{"Subnet": chance.choice(TINY)}]}
    if chance.random() < 0.15:
        spec["EnableIPv6"] = True
    return json.dumps(spec)


def change_networks(world: Snapshot, mark: str, chance: random.Random) -> AnyCommand | None:
    """Make a network that is not there, or remove one."""
    known = {network.name: network for network in world.networks if not network.view.ingress}
    free = [name for name in NAMES if name not in known]
    used = {one.target for service in world.services for one in service.view.task_template.networks}
    idle = [known[name] for name in sorted(known) if known[name].id not in used]
    if free and (not idle or chance.random() < 0.6):
        name = chance.choice(free)
        return CreateNetwork(id=derive("sim network", name, mark), spec=network_spec(name, chance))
    pool = idle or [known[name] for name in sorted(known)]
    return RemoveNetwork(network=chance.choice(pool).id) if pool else None


def take_time(spec: dict[str, Any], dice: random.Random) -> None:
    """Of what serves, some listens only after a while, and some never. Dice of its own: everything else that
    is asked for stays as it was."""
    container = spec["TaskTemplate"]["ContainerSpec"]
    name, _, tag = container["Image"].partition(":")
    if name != "web":
        return
    kind = dice.choice(("web", "web", "slow", "slow", "deaf"))
    container["Image"] = f"{kind}:{tag}"
    if kind == "deaf":
        spec["Labels"][listening.LABEL] = "2s"


def dress(spec: dict[str, Any], world: Snapshot, chance: random.Random) -> None:
    """Put the service on some networks, and perhaps on the routing mesh."""
    known = sorted((network.name, network.id) for network in world.networks if not network.view.ingress)
    chosen = chance.sample(known, min(len(known), chance.choice((0, 1, 1, 2, 3))))
    spec["TaskTemplate"]["Networks"] = [{"Target": key, "Aliases": [f"{spec['Name']}-{name}"]}
                                        for name, key in chosen]  # fmt: skip
    if chosen and chance.random() < 0.2:
        spec["EndpointSpec"] = {"Mode": "dnsrr"}
        return
    ports = [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": chance.choice((0, *PORTS)),
              "PublishMode": "ingress"}] if chance.random() < 0.4 else []  # fmt: skip
    spec["EndpointSpec"] = {"Mode": "vip", "Ports": ports}
