"""Admission of services: a user's command on the present world becomes changes, or is refused.

What belongs here: the rules that need the world (names in use, versions, previous specs), and the form in
which a spec is stored: the JSON that was sent, unknown fields included, plus the few fields that Docker adds.
What does not: rules that need the spec alone (validate.py), tasks, which the planners derive (plan/).
"""

from __future__ import annotations

import json
from typing import Any

from msgspec.structs import replace

from swarmpy.model.commands import CreateService, RemoveService, Result, UpdateService
from swarmpy.model.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    Unimplemented,
)
from swarmpy.model.limits import MAX_SPEC
from swarmpy.model.objects import Network, Service, UpdateStatus
from swarmpy.model.specs import Mode, ServiceSpec, compact, service_view
from swarmpy.plan import constraints, places, published
from swarmpy.plan.admission import validate
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot

LABELS = (constraints.NODE_LABELS, constraints.ENGINE_LABELS)
"""What tasks can be spread over."""
_MODES = {"Replicated", "Global", "ReplicatedJob", "GlobalJob"}

Admitted = tuple[list[Change], Result]


def create(now: int, world: Snapshot, command: CreateService) -> Admitted:
    """Admit POST /services/create. Raises Refusal. `now` is cluster time in ns."""
    text = attached(world, _sized(stored(command.spec, command.fallback_name)))
    spec = service_view(text)
    validate.check(spec)
    _check_mesh(world, spec)
    taken = world.service_named(spec.name)
    if taken is not None or command.id in world.services:
        raise AlreadyExists(f"name conflicts with an existing object: service {spec.name} already exists")
    service = Service(
        id=command.id,
        name=spec.name,
        spec=text,
        spec_version=world.version + 1,
        auth=command.auth,
        created_at=now,
        ports=published.resolve(world, command.id, spec.ports, ()),
    )
    return [Put(service, "service create")], Result(id=service.id, warnings=_warnings(spec))


def update(now: int, world: Snapshot, command: UpdateService) -> Admitted:
    """Admit POST /services/{id}/update. Raises Refusal. `now` is cluster time in ns.

    The tasks' version moves only when their template or the endpoint changed: scaling, labels and update
    settings restart nothing. A manual rollback swaps the present and the previous spec.
    """
    service = _service(world, command.service)
    text = attached(world, _sized(stored(command.spec, "")))
    spec = service_view(text)
    validate.check(spec)
    _check_mesh(world, spec)
    if _mode(spec.mode) != _mode(service.view.mode):
        raise Unimplemented("service mode change is not allowed")
    if spec.name != service.name:
        raise Unimplemented("renaming services is not supported")
    if command.version != service.version:
        raise OutOfSequence
    if command.rollback == "previous":
        back = _rolled_back(now, service)
        attached(world, back.spec)  # its networks may be gone by now
        _check_mesh(world, back.view)
        back = replace(back, ports=published.resolve(world, service.id, back.view.ports, service.ports))
        return [Put(back, "service rollback")], Result(id=service.id)
    if command.rollback not in {"", "none"}:
        raise InvalidArgument(f"unrecognized rollback option {command.rollback}")
    changed = _runs(text) != _runs(service.spec)
    after = replace(
        service,
        spec=text,
        spec_version=_fresh(world, service) if changed else service.spec_version,
        auth=command.auth or _kept_auth(service, command.auth_from),
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        previous_auth=service.auth,
        update=None,
        ports=published.resolve(world, service.id, spec.ports, service.ports),
    )
    return [Put(after, "service update")], Result(id=service.id, warnings=_warnings(spec))


def remove(now: int, world: Snapshot, command: RemoveService) -> Admitted:
    """Admit DELETE /services/{id}. Its tasks are the planners' business. Raises NotFound."""
    service = _service(world, command.service)
    return [Delete("service", service.id, "service remove")], Result(id=service.id)


def stored(sent: str, fallback_name: str) -> str:
    """The text under which a sent spec is kept. Raises InvalidArgument where it is not a spec.

    Docker adds what its clients expect to read back: labels, mode, runtime, force-update counter, isolation,
    DNS and resources. Nulls mean absent. All other defaults are applied where they are used.
    """
    service_view(sent)
    raw: dict[str, Any] = _without_nulls(json.loads(sent))
    named = {"Name": raw.get("Name") or fallback_name, "Labels": raw.get("Labels", {})}
    spec = {**named, **{key: value for key, value in raw.items() if key not in named}}
    task = spec.setdefault("TaskTemplate", {})
    container = task.get("ContainerSpec")
    if container is not None:
        container.setdefault("DNSConfig", {})
        container["Isolation"] = container.get("Isolation") or "default"
    resources = task.setdefault("Resources", {})
    resources.setdefault("Limits", {})
    resources.setdefault("Reservations", {})
    task.setdefault("ForceUpdate", 0)
    task["Runtime"] = task.get("Runtime") or "container"
    mode = spec.setdefault("Mode", {})
    if not mode.keys() & _MODES:
        mode["Replicated"] = {}
    if "Replicated" in mode:
        mode["Replicated"].setdefault("Replicas", 1)
    return compact(spec)


def _warnings(spec: ServiceSpec) -> tuple[str, ...]:
    """What Swarm admits though it cannot be meant."""
    placement = spec.task_template.placement
    found = [
        f"no node will ever satisfy the constraint {text}: {wrong}"
        for text in placement.constraints
        if (wrong := constraints.correction(constraints.parse(text)))
    ]
    for preference in placement.preferences:
        descriptor = preference.spread.spread_descriptor if preference.spread is not None else ""
        if not descriptor.lower().startswith(LABELS):
            found.append(
                f"the placement preference spread={descriptor} has no effect: tasks are spread over "
                f"{' or '.join(f'{one}NAME' for one in LABELS)} only"
            )
    return tuple(found)


def _sized(text: str) -> str:
    size = len(text.encode())
    if size > MAX_SPEC:
        raise InvalidArgument(
            f"the spec has {size} bytes, and {MAX_SPEC} are the most that a service may have, as each of its "
            "tasks carries it: put what is large into the image or a volume"
        )
    return text


def attached(world: Snapshot, text: str) -> str:
    """The stored spec with its networks by id, all in the task's template. Raises NotFound, InvalidArgument
    or Unimplemented for a network that a service cannot be attached to."""
    raw: dict[str, Any] = json.loads(text)
    task = raw["TaskTemplate"]
    legacy = raw.pop("Networks", None)  # the place they had before API 1.44
    sent = task.pop("Networks", None) or legacy
    if not sent:
        return compact(raw)
    found: list[dict[str, Any]] = []
    for one in sent:
        reference = str(one.get("Target", ""))
        target = reference if reference in places.USABLE else _network(world, reference).id
        if any(target == other["Target"] for other in found):
            named = world.networks.get(target)
            name = named.name if named is not None else target
            raise InvalidArgument(f"service cannot be attached to network {name} more than once")
        found.append({**one, "Target": target})
    _check_predefined(found)
    task["Networks"] = found
    return compact(raw)


def _check_predefined(attachments: list[dict[str, Any]]) -> None:
    own = [one["Target"] for one in attachments if one["Target"] in places.USABLE]
    if own and len(attachments) > 1:
        raise InvalidArgument(
            f"a service on the node's {own[0]} network can be on no other: leave the other networks away"
        )


def _network(world: Snapshot, reference: str) -> Network:
    if reference in places.PREDEFINED:
        raise InvalidArgument(
            f"a service cannot be attached to the network {reference!r}: use an overlay network, host or "
            "bridge"
        )
    network = world.networks.get(reference) or world.network_named(reference)
    if network is None:
        fitting = [one for one in world.networks if reference and one.id.startswith(reference)]
        if len(fitting) > 1:
            raise InvalidArgument(f"network {reference} is ambiguous ({len(fitting)} matches found)")
        if not fitting:
            raise NotFound(f"network {reference} not found")
        network = fitting[0]
    if network.view.ingress:
        raise InvalidArgument(
            f'Service cannot be explicitly attached to the ingress network "{network.name}"'
        )
    return network


def _check_mesh(world: Snapshot, spec: ServiceSpec) -> None:
    meshed = spec.endpoint_spec is not None and places.meshed(spec.endpoint_spec)
    if meshed and any(one.target == "host" for one in spec.task_template.networks):
        raise InvalidArgument(
            "a service on the host network has the node's own ports: leave --publish away, or the host "
            "network"
        )
    if spec.endpoint_spec is None or not meshed:
        return
    ingress = world.ingress_network()
    if ingress is None:
        raise FailedPrecondition(
            "service needs ingress network, but no ingress network is present: create one with "
            "'docker network create -d overlay --ingress NAME', or publish with mode=host"
        )
    if any(":" in one.subnet for one in ingress.subnets):
        return
    for port in spec.endpoint_spec.ports:
        if ":" in port.host_ip and port.publish_mode != "host":
            raise FailedPrecondition(
                f"host_ip {port.host_ip}: the ingress network has no IPv6; once no service needs it, make it "
                "anew with 'swarmpy network create --ingress --ipv6', or publish with mode=host"
            )


def _without_nulls(value: Any) -> Any:
    """Go's clients send null where they mean absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def _service(world: Snapshot, key: str) -> Service:
    service = world.services.get(key)
    if service is None:
        raise NotFound(f"service {key} not found")
    return service


def _mode(mode: Mode) -> str:
    if mode.global_ is not None:
        return "global"
    if mode.replicated_job is not None:
        return "replicated-job"
    return "replicated" if mode.global_job is None else "global-job"


def _runs(text: str) -> tuple[Any, Any]:
    """The parts of a stored spec that its tasks were made from."""
    raw = json.loads(text)
    return raw.get("TaskTemplate"), raw.get("EndpointSpec") or {}


def _fresh(world: Snapshot, service: Service) -> int:
    """A spec version that neither this service nor its tasks ever had: the world's next, or a larger one
    where several commands of one batch change the same service."""
    return max(world.version, service.spec_version, service.previous_spec_version) + 1


def _kept_auth(service: Service, source: str) -> str:
    if source == "spec":
        return service.auth
    if source != "previous-spec":
        raise InvalidArgument(f"invalid registryAuthFrom '{source}'")
    if not service.previous_spec:
        raise FailedPrecondition("service does not have a previous spec")
    return service.previous_auth


def _rolled_back(now: int, service: Service) -> Service:
    if not service.previous_spec:
        raise FailedPrecondition(f"service {service.id} does not have a previous spec")
    return replace(
        service,
        spec=service.previous_spec,
        spec_version=service.previous_spec_version,
        auth=service.previous_auth,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        previous_auth=service.auth,
        update=UpdateStatus(state="rollback_started", started_at=now, message="manually requested rollback"),
    )
