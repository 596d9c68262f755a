"""Docker's JSON of containers' endpoints, as users send it, as the Engine is to get it, and as users see it.

What belongs here: pure rewriting. What does not: asking the Engine or the cluster (containers.py), what our
network driver is told (plan/container).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmpy.api.errors import HttpError
from swarmpy.model.objects import Attachment, Guest
from swarmpy.plan.container import OPTION, Wire, place_of
from swarmpy.plan.visits import ALIASES, SERVERS

Json = dict[str, Any]

_LOCAL = frozenset({"", "default", "bridge", "host", "none", "nat"})


def wanted(body: Json) -> dict[str, Json]:
    """The networks that a create request names, with what it says of each, the container's mode first;
    without those that every Engine has by itself."""
    found: dict[str, Json] = {}
    mode = _part(body, "HostConfig").get("NetworkMode")
    if isinstance(mode, str) and mode not in _LOCAL and ":" not in mode:
        found[mode] = {}
    for name, config in _part(_part(body, "NetworkingConfig"), "EndpointsConfig").items():
        if name not in _LOCAL:
            found[name] = config if isinstance(config, dict) else {}
    return found


def _part(body: Json, key: str) -> Json:
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def place(reference: str, config: Json) -> Attachment:
    """What is asked of the leader for an endpoint. Raises HttpError for what only it can choose."""
    if config.get("MacAddress"):
        raise HttpError(
            400,
            f"a MAC address cannot be chosen on the overlay network {reference}: the cluster gives it; leave "
            "--mac-address away",
        )
    fixed = _part(config, "IPAMConfig")
    addresses = (fixed.get("IPv4Address"), fixed.get("IPv6Address"))
    options = _part(config, "DriverOpts")
    return Attachment(
        network_id=reference,
        addresses=tuple(one for one in addresses if isinstance(one, str) and one),
        aliases=_texts(config.get("Aliases")),
        driver_opts={key: str(value) for key, value in options.items() if not key.startswith(OPTION)},
    )


def find(guest: Guest, wires: Mapping[str, Wire], reference: str) -> Attachment | None:
    """The guest's place in the network that was called so."""
    lower = reference.lower()
    return next(
        (one for one in guest.networks if lower in (one.network_id, wires[one.network_id].name.lower())), None
    )


def config_of(
    config: Json, guest: Guest, one: Attachment, wire: Wire, *, isolated: bool, servers: tuple[str, ...] = ()
) -> Json:
    """The endpoint as the Engine is to get it: its address comes from our driver, which is told of it.
    `servers`: the name servers that the user asked for."""
    options = dict(place_of(guest.id, one, wire, isolated=isolated).options)
    if one.aliases:
        options[ALIASES] = ",".join(one.aliases)
    if servers:
        options[SERVERS] = ",".join(servers)
    kept = {key: value for key, value in config.items() if key not in ("IPAMConfig", "MacAddress")}
    return {**kept, "DriverOpts": options}


def rewritten(body: Json, guest: Guest, wires: Mapping[str, Wire], ours: Mapping[str, str]) -> Json:
    """The create request as the Engine is to get it. `ours`: what the cluster calls the networks (id or
    name), by how they are called in the request."""
    asked = wanted(body)
    host = dict(_part(body, "HostConfig"))
    mine = list(_texts(host.get("Dns")))
    isolated = len(ours) == len(asked) and all(wires[one.network_id].internal for one in guest.networks)
    endpoints: Json = {}
    servers: list[str] = []
    for reference, config in asked.items():
        found = find(guest, wires, ours[reference]) if reference in ours else None
        if found is None:
            endpoints[reference] = config
            continue
        wire = wires[found.network_id]
        if host.get("NetworkMode") == reference:
            host["NetworkMode"] = wire.name
        endpoints[wire.name] = config_of(config, guest, found, wire, isolated=isolated, servers=tuple(mine))
        servers = servers or list(wire.servers[:1])
    for name, config in _part(_part(body, "NetworkingConfig"), "EndpointsConfig").items():
        if name not in asked:
            endpoints[name] = config
    if servers:
        # Ours asks those that the user named for what it does not know.
        host["Dns"] = servers
    networking = {**_part(body, "NetworkingConfig"), "EndpointsConfig": endpoints}
    return {**body, "HostConfig": host, "NetworkingConfig": networking}


def owner(inspected: Json) -> str:
    """The guest (or task) that the container is in our networks, "" where it is on none."""
    for _, options in _driven(inspected):
        return str(options.get(OPTION + "task", ""))
    return ""


def _driven(inspected: Json) -> list[tuple[Json, Json]]:
    """Endpoints of ours with their driver's options."""
    found: list[tuple[Json, Json]] = []
    for one in _part(_part(inspected, "NetworkSettings"), "Networks").values():
        options = _part(one, "DriverOpts") if isinstance(one, dict) else {}
        if OPTION + "network" in options:
            found.append((one, options))
    return found


def shown(inspected: Json) -> bool:
    """Make what the Engine says of a container what users are to see: the cluster's ids of networks, and
    nothing that only our driver is told. Whether anything changed."""
    driven = _driven(inspected)
    for one, options in driven:
        one["NetworkID"] = options[OPTION + "network"]
        one["DriverOpts"] = {
            key: value for key, value in options.items() if not key.startswith(OPTION)
        } or None
    return bool(driven)
