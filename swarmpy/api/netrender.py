"""Networks as Docker's JSON. See render.py, whose part this is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from swarmpy.api.render import Json, instant
from swarmpy.model.examination import Held
from swarmpy.model.fabric import digest
from swarmpy.model.objects import Attachment, Network, Subnet
from swarmpy.model.specs import VNI_OPTION, IPAMConfig
from swarmpy.plan import tables
from swarmpy.ports import Examination
from swarmpy.state.snapshot import Snapshot


def network(item: Network, containers: Mapping[str, Any], *, whole: bool = True) -> Json:
    """A network. `containers`: those of this node, as the Engine shows them."""
    spec = item.view
    shown: Json = {
        "Name": item.name,
        "Id": item.id,
        "Created": instant(item.created_at),
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": True,
        "EnableIPv6": spec.enable_ipv6,
        "IPAM": {
            "Driver": spec.ipam.driver or "default",
            "Options": spec.ipam.options or None,
            "Config": [_subnet(one, _given(item, one)) for one in item.subnets],
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": dict(containers) if whole else None,
        "Options": {VNI_OPTION: str(item.vni), **spec.options},
        "Labels": spec.labels or None,
    }
    return shown


def _given(item: Network, subnet: Subnet) -> IPAMConfig:
    return next((one for one in item.view.ipam.config if one.subnet == subnet.subnet), IPAMConfig())


def _subnet(subnet: Subnet, given: IPAMConfig) -> Json:
    shown: Json = {"Subnet": subnet.subnet, "Gateway": subnet.gateway}
    if subnet.ip_range:
        shown["IPRange"] = subnet.ip_range
    if given.auxiliary_addresses:
        shown["AuxiliaryAddresses"] = dict(given.auxiliary_addresses)
    return shown


def peers(world: Snapshot, item: Network) -> list[Json]:
    """The nodes that carry the network."""
    present = [task for _, task in sorted((world.bucket_in(item.id) or {}).items()) if tables.present(task)]
    return [{"Name": node.id, "IP": node.vtep} for node in tables.members(world, item, present) if node.vtep]


def services(world: Snapshot, item: Network) -> Json:
    """What `network inspect -v` shows: services with their tasks, by name."""
    table = tables.table(world, item)
    shown: Json = {}
    for number, entry in enumerate(table.services, 256):
        service = world.services[entry.id]
        ports = [
            f"Target: {port.target_port}, Publish: {port.published_port}"
            for port in service.ports
            if port.publish_mode != "host"
        ]
        shown[entry.name] = {
            "VIP": entry.vips[0] if entry.vips else "<nil>",
            "Ports": ports if table.ingress else [],
            "LocalLBIndex": number,
            "Tasks": [
                {
                    "Name": one.name,
                    "EndpointID": one.id,
                    "EndpointIP": one.addresses[0],
                    "Info": {"Host IP": one.vtep},
                }
                for one in table.endpoints
                if one.service_id == entry.id and one.serving
            ],
        }
    return shown


def followers(world: Snapshot, item: Network, told: Mapping[str, Held]) -> list[Json]:
    """How far each node that carries the network follows it (swarmpy's own key: Docker's client skips it):
    the digest of the table that it was told, whether that is the present one, and the cluster's version up to
    which its kernel is known to be as told. A node without a session has no digest."""
    present = digest(tables.table(world, item))
    shown: list[Json] = []
    for node in world.nodes:
        held = told.get(node.id)
        if held is not None or item.id in tables.of_node(world, node.id):
            shown.append(
                {
                    "ID": node.id,
                    "Name": node.description.hostname,
                    "Digest": held.digest if held is not None else "",
                    "Current": held is not None and held.digest == present,
                    "Version": held.version if held is not None else 0,
                }
            )
    return shown


def examination(world: Snapshot, found: Examination) -> Json:
    """What `net doctor` says."""

    def nodes(ids: tuple[str, ...]) -> list[Json]:
        known = [(one, world.nodes.get(one)) for one in ids]
        return [{"id": one, "name": node.description.hostname if node else ""} for one, node in known]

    return {
        "healthy": found.healthy,
        "networks": [
            {"id": one, "name": known.name if (known := world.networks.get(one)) else ""}
            for one in found.networks
        ],
        "reported": nodes(found.reported),
        "silent": nodes(found.silent),
        "tried": found.tried,
        "findings": [
            {"kind": one.kind, "node": one.node, "network": one.network, "what": one.what, "help": one.help}
            for one in found.findings
        ],
    }


def attachments(world: Snapshot, places: tuple[Attachment, ...]) -> list[Json]:
    """NetworksAttachments of a task; a network that is gone is left out."""
    shown: list[Json] = []
    for place in places:
        item = world.networks.get(place.network_id)
        if item is not None:
            shown.append({"Network": _brief(item), "Addresses": list(place.addresses)})
    return shown


def _brief(item: Network) -> Json:
    spec = item.view
    kept = {key: value for key, value in json.loads(item.spec).items() if key == "Labels"}
    ipam = {"Driver": {"Name": spec.ipam.driver or "default"},
            "Configs": [_subnet(one, _given(item, one)) for one in item.subnets]}  # fmt: skip
    options: Json = {"IPv6Enabled": True} if spec.enable_ipv6 else {}
    return {
        "ID": item.id,
        "Version": {"Index": item.version},
        "CreatedAt": instant(item.created_at),
        "UpdatedAt": instant(item.updated_at),
        "Spec": {
            "Name": item.name,
            **kept,
            **options,
            "DriverConfiguration": {"Name": "overlay", "Options": dict(spec.options)},
            **({"Internal": True} if spec.internal else {}),
            **({"Attachable": True} if spec.attachable else {}),
            **({"Ingress": True} if spec.ingress else {}),
            "IPAMOptions": {"Driver": {"Name": spec.ipam.driver or "default"}},
            "Scope": "swarm",
        },
        "DriverState": {"Name": "overlay", "Options": {VNI_OPTION: str(item.vni)}},
        "IPAMOptions": ipam,
    }
