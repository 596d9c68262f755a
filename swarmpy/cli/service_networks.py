"""Networks of services: names become ids before a spec is sent, as Docker's client does it.

What does not belong here: the grammar of --network (`grammars`), networks themselves (`network`).
"""

from __future__ import annotations

from typing import Any

from swarmpy.cli.client import Client, segment
from swarmpy.cli.spec import Spec, put, section
from swarmpy.cli.tables import CommandError

Attachments = list[dict[str, Any]]


def network_id(client: Client, reference: str) -> str:
    """The id of one of the cluster's networks. Raises CommandError where there is none."""
    if not reference:
        raise CommandError("invalid network name or ID: value is empty")
    return str(client.get(f"/networks/{segment(reference)}", scope="swarm")["Id"])


def resolved(client: Client, asked: Attachments) -> Attachments:
    """The attachments with ids for names, in the order of these."""
    found = [{**one, "Target": network_id(client, one["Target"])} for one in asked]
    return sorted(found, key=lambda one: str(one["Target"]))


def changed(client: Client, spec: Spec, adding: Attachments, removing: list[str]) -> None:
    """Take networks out of a service's spec, and put others in."""
    template = section(spec, "TaskTemplate")
    present = template.get("Networks") or spec.get("Networks") or []
    spec.pop("Networks", None)
    gone = {network_id(client, reference) for reference in dict.fromkeys(removing)}
    networks = [one for one in present if one["Target"] not in gone]
    for one in adding:
        target = network_id(client, one["Target"])
        if any(other["Target"] == target for other in networks):
            raise CommandError(f"service is already attached to network {one['Target']}")
        networks.append({**one, "Target": target})
    put(spec, "TaskTemplate.Networks", sorted(networks, key=lambda one: str(one["Target"])))


def names(client: Client, service: dict[str, Any]) -> list[str]:
    """The names of a service's networks; the id of one that is gone."""
    shown = []
    for one in ((service.get("Spec") or {}).get("TaskTemplate") or {}).get("Networks") or []:
        target = str(one["Target"])
        try:
            shown.append(str(client.get(f"/networks/{segment(target)}", scope="swarm")["Name"]))
        except CommandError:
            shown.append(target)
    return shown
