"""The Engine's networks of ours: making one, and finding what is connected to any of them.

What belongs here: requests about networks, for a connected client. What does not: the calls' shell
(engine.py).
"""

from __future__ import annotations

from contextlib import suppress

import docker
import docker.errors
import docker.types

from swarmpy.adapters.docker.seen import container_seen
from swarmpy.ports import ContainerSeen, EngineError

NETWORK_DRIVER = "swarmpy"
"""The network driver's name: that of its socket in the Engine's plugin folder."""
NETWORK_LABEL = "io.swarmpy.network"


def ensure(client: docker.APIClient, name: str, network_id: str) -> None:
    """Have the network; addresses are ours (null IPAM), and arrive with each endpoint.
    Not to be asked by two at once."""

    def known() -> list[str]:
        ours: list[tuple[str, str]] = []
        for one in client.networks(names=[name]):
            if one["Name"] != name:
                continue  # the filter matches parts of names
            label = (one.get("Labels") or {}).get(NETWORK_LABEL)
            if label == network_id:
                ours.append((str(one["Created"]), str(one["Id"])))
                continue
            if label is not None:
                _give_way(client, name, str(one["Id"]))
                continue
            raise EngineError(
                f"this node's Engine has a network {name} of its own: remove or rename that one, so that "
                "the cluster's network can be there",
                conflict=True,
            )
        return [key for _, key in sorted(ours)]

    there = known()
    if not there:
        client.create_network(
            name,
            driver=NETWORK_DRIVER,
            ipam=docker.types.IPAMConfig(driver="null"),
            labels={NETWORK_LABEL: network_id},
            check_duplicate=True,
        )
    surplus = len(there) - 1
    for one in reversed(there):
        if surplus > 0:
            with suppress(docker.errors.APIError):  # it is in use: another one must go
                client.remove_network(one)
                surplus -= 1


def _give_way(client: docker.APIClient, name: str, key: str) -> None:
    """Remove the counterpart of a network that was removed from the cluster, for its namesake."""
    try:
        client.remove_network(key)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        raise EngineError(
            f"this node's Engine still has containers of a network {name} that is gone: the cluster's new "
            f"one takes its place when they have ended ({error.explanation})",
            conflict=True,
        ) from None


def connected(client: docker.APIClient, without: str) -> list[ContainerSeen]:
    """Containers on networks of ours that carry no such label."""
    names = [str(one["Name"]) for one in client.networks(filters={"label": [NETWORK_LABEL]})]
    if not names:
        return []
    found: list[ContainerSeen] = []
    for entry in client.containers(all=True, filters={"network": names}):
        if without in (entry.get("Labels") or {}):
            continue
        try:
            seen = container_seen(client.inspect_container(str(entry["Id"])))
        except docker.errors.NotFound:
            continue
        # The filter matches beginnings of ids, too.
        if any(name in names for name, _ in seen.networks):
            found.append(seen)
    return found
