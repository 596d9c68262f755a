"""Places: which networks a service and its tasks belong to, by their specs.

What belongs here: reading specs against the networks that exist. What does not: addresses (addresses.py).
"""

from __future__ import annotations

from functools import lru_cache

from swarmpy.model.objects import Network, Service, Task
from swarmpy.model.specs import EndpointSpec, NetworkAttachment, endpoint_view, template_view

PREDEFINED = frozenset({"bridge", "host", "none"})
"""Networks that every Engine has by itself: not the cluster's business."""
USABLE = frozenset({"bridge", "host"})
"""Those of them that a service can ask for."""


def meshed(endpoint: EndpointSpec) -> bool:
    """Whether a port is published through the routing mesh."""
    return any(port.publish_mode != "host" for port in endpoint.ports)


def named(attachments: tuple[NetworkAttachment, ...]) -> list[NetworkAttachment]:
    """The attachments that are the cluster's."""
    return [one for one in attachments if one.target not in PREDEFINED]


def of_service(service: Service, ingress: Network | None) -> list[str]:
    """Ids of the networks in which the service has a virtual address, the ingress network last; none with
    dnsrr."""
    view = service.view
    endpoint = view.endpoint_spec or EndpointSpec()
    if endpoint.mode == "dnsrr":
        return []
    targets = [one.target for one in named(view.task_template.networks)]
    if ingress is not None and meshed(endpoint):
        targets.append(ingress.id)
    return targets


def of_task(task: Task, ingress: Network | None) -> list[NetworkAttachment]:
    """The networks in which the task has a place, the ingress network last."""
    wanted = named(task.view.networks)
    if ingress is not None and meshed(endpoint_view(task.endpoint)):
        wanted.append(NetworkAttachment(target=ingress.id))
    return wanted


def settled(task: Task, ingress: Network | None) -> bool:
    """Whether the task has all its places, so that a node may take it."""
    wanted = _targets(task.template, task.endpoint, ingress.id if ingress is not None else "")
    return len(task.networks) == len(wanted) and all(
        place.network_id == target for place, target in zip(task.networks, wanted, strict=True)
    )


@lru_cache(maxsize=20_000)
def _targets(template: str, endpoint: str, ingress: str) -> tuple[str, ...]:
    """`of_task` by the texts that it depends on: it is asked for every task that waits."""
    targets = tuple(one.target for one in named(template_view(template).networks))
    return (*targets, ingress) if ingress and meshed(endpoint_view(endpoint)) else targets
