"""`swarmpy service update`: read a service's spec, change what the flags say, write it back.

Everything that no flag names goes back as it was read, fields unknown to this version included. What does
not belong here: the flags (`service_flags`), value grammars, waiting (`progress`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarmpy.cli.client import Client, segment
from swarmpy.cli.grammars import notes
from swarmpy.cli.output import out, warn
from swarmpy.cli.service import send_update
from swarmpy.cli.service_create import HEALTH, capability, resources
from swarmpy.cli.service_flags import update_flags
from swarmpy.cli.spec import Spec, apply_fields, put, section
from swarmpy.cli.tables import CommandError, Parsed
from swarmpy.cli.values import pairs

_CONTAINER = "TaskTemplate.ContainerSpec"
_RESERVED = "TaskTemplate.Resources.Reservations.GenericResources"
_ALONE = {"rollback", "detach", "quiet"}


def update(parsed: Parsed) -> int:
    """Update a service, print what the user called it, and wait until it has converged."""
    client = Client(parsed.host)
    reference = parsed.args[0]
    service = client.get(f"/services/{segment(reference)}")
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    if parsed.on("rollback"):
        if parsed.given - _ALONE:
            raise CommandError("other flags may not be combined with --rollback")
        query["rollback"] = "previous"
    change(service["Spec"], parsed)
    for note in notes(parsed.list("mount-add")):
        warn(note)
    if parsed.has("network-add", "network-rm"):
        from swarmpy.cli.service_networks import changed

        changed(client, service["Spec"], parsed.list("network-add"), parsed.list("network-rm"))
    auth = ""
    if parsed.on("with-registry-auth"):
        from swarmpy.cli.registry import auth_header

        auth = auth_header(str(section(service["Spec"], _CONTAINER).get("Image", "")))
        headers["X-Registry-Auth"] = auth
    else:
        query["registryAuthFrom"] = "spec"
    if parsed.has("image"):
        from swarmpy.cli.registry import resolve

        resolve(client, service["Spec"], auth, ask=not parsed.on("no-resolve-image"))
    send_update(client, service, query, headers)
    out(reference)
    if not parsed.on("detach"):
        from swarmpy.cli.progress import wait

        wait(client, reference, quiet=parsed.on("quiet"))
    return 0


def change(spec: Spec, parsed: Parsed) -> None:
    """Apply the flags to a spec that was read. Raises CommandError for what does not fit it."""
    apply_fields(spec, update_flags(), parsed)
    _replicas(spec, parsed)
    for step in (_labels, _lists, _environment, _mounts, _dns, _hosts, _placement, _generic_resources, _ports,
                 _ulimits, _healthcheck, _log_driver, _capabilities):  # fmt: skip
        step(spec, parsed)
    if parsed.on("force"):
        template = section(spec, "TaskTemplate")
        template["ForceUpdate"] = int(template.get("ForceUpdate") or 0) + 1


def _found(spec: Spec, path: str) -> Any:
    """What is at a dotted path, without making it."""
    value: Any = spec
    for name in path.split("."):
        value = (value or {}).get(name)
    return value


def _replicas(spec: Spec, parsed: Parsed) -> None:
    mode = spec.get("Mode") or {}
    if parsed.has("max-concurrent"):
        if mode.get("ReplicatedJob") is None:
            raise CommandError("max-concurrent can only be used with replicated-job mode")
        mode["ReplicatedJob"]["MaxConcurrent"] = parsed.values["max-concurrent"]
    if not parsed.has("replicas"):
        return
    if (
        mode.get("Global") is not None
        or mode.get("GlobalJob") is not None
        or mode.get("ReplicatedJob") is not None
    ):
        raise CommandError("replicas can only be used with replicated mode")
    section(spec, "Mode.Replicated")["Replicas"] = parsed.values["replicas"]


def _labels(spec: Spec, parsed: Parsed) -> None:
    for flag, path in (
        ("label", "Labels"),
        ("container-label", f"{_CONTAINER}.Labels"),
        ("sysctl", f"{_CONTAINER}.Sysctls"),
    ):
        if parsed.has(f"{flag}-add", f"{flag}-rm"):
            gone = {
                text.partition("=")[0] if flag == "sysctl" else text for text in parsed.list(f"{flag}-rm")
            }
            kept = {key: value for key, value in (_found(spec, path) or {}).items() if key not in gone}
            put(spec, path, {**kept, **pairs(parsed.list(f"{flag}-add"))})


def _lists(spec: Spec, parsed: Parsed) -> None:
    """Lists of words, kept sorted so that an update that changes nothing is seen as such."""
    for flag, path in (
        ("group", f"{_CONTAINER}.Groups"),
        ("constraint", "TaskTemplate.Placement.Constraints"),
    ):
        if parsed.has(f"{flag}-add", f"{flag}-rm"):
            every = [*(_found(spec, path) or []), *parsed.list(f"{flag}-add")]
            put(spec, path, sorted(one for one in every if one not in parsed.list(f"{flag}-rm")))


def _keyed(old: list[Any], new: list[Any], gone: set[str], key: Callable[[Any], str]) -> list[Any]:
    """`old` without what is gone, then `new`, one of a key: the last, at the place of the first."""
    result = {key(one): one for one in old if key(one) not in gone}
    result.update((key(one), one) for one in new)
    return list(result.values())


def _name(text: str) -> str:
    return text.partition("=")[0]


def _environment(spec: Spec, parsed: Parsed) -> None:
    if parsed.has("env-add", "env-rm"):
        path = f"{_CONTAINER}.Env"
        put(
            spec,
            path,
            _keyed(_found(spec, path) or [], parsed.list("env-add"), set(parsed.list("env-rm")), _name),
        )


def _mounts(spec: Spec, parsed: Parsed) -> None:
    if not parsed.has("mount-add", "mount-rm"):
        return
    path = f"{_CONTAINER}.Mounts"
    added = parsed.list("mount-add")
    targets = [one["Target"] for one in added]
    if len(set(targets)) < len(targets):
        raise CommandError("duplicate mount target")
    mounts = _keyed(_found(spec, path) or [], added, set(), lambda one: str(one["Target"]))
    mounts = [one for one in mounts if one["Target"] not in parsed.list("mount-rm")]
    put(spec, path, sorted(mounts, key=lambda one: (one.get("Source") or "", one["Target"])))


def _dns(spec: Spec, parsed: Parsed) -> None:
    for flag, name in (("dns", "Nameservers"), ("dns-search", "Search"), ("dns-option", "Options")):
        if parsed.has(f"{flag}-add", f"{flag}-rm"):
            path = f"{_CONTAINER}.DNSConfig.{name}"
            every = [*(_found(spec, path) or []), *parsed.list(f"{flag}-add")]
            put(spec, path, sorted({one for one in every if one not in parsed.list(f"{flag}-rm")}))


def _hosts(spec: Spec, parsed: Parsed) -> None:
    """Entries are `IP NAME [ALIAS...]`; `NAME` or `NAME:IP` removes the name; entries left empty go too."""
    if not parsed.has("host-add", "host-rm"):
        return
    gone = [(name, address) for name, _, address in (text.partition(":") for text in parsed.list("host-rm"))]
    result: dict[str, None] = {}
    for entry in _found(spec, f"{_CONTAINER}.Hosts") or []:
        address, *names = entry.split()
        names = [one for one in names if not any(name == one and ip in ("", address) for name, ip in gone)]
        if names:
            result[" ".join([address, *names])] = None
    result.update(dict.fromkeys(parsed.list("host-add")))
    put(spec, f"{_CONTAINER}.Hosts", list(result))


def _placement(spec: Spec, parsed: Parsed) -> None:
    if parsed.has("placement-pref-add", "placement-pref-rm"):
        path = "TaskTemplate.Placement.Preferences"
        gone = parsed.list("placement-pref-rm")
        kept = [one for one in _found(spec, path) or [] if one not in gone]
        put(spec, path, [*kept, *parsed.list("placement-pref-add")])


def _generic_resources(spec: Spec, parsed: Parsed) -> None:
    if not parsed.has("generic-resource-add", "generic-resource-rm"):
        return

    def kind(one: Any) -> str:
        return str((one.get("DiscreteResourceSpec") or one.get("NamedResourceSpec"))["Kind"])

    every = _keyed(_found(spec, _RESERVED) or [], resources(parsed.list("generic-resource-add")), set(), kind)
    for name in parsed.list("generic-resource-rm"):
        if name not in [kind(one) for one in every]:
            raise CommandError(f"could not find generic-resource `{name}` to remove it")
        every = [one for one in every if kind(one) != name]
    put(spec, _RESERVED, every)


def _full(port: dict[str, Any]) -> tuple[Any, ...]:
    return (port.get("PublishedPort") or 0, port.get("TargetPort"), port.get("Protocol") or "tcp",
            port.get("PublishMode") or "ingress")  # fmt: skip


def _reach(port: dict[str, Any]) -> tuple[Any, Any]:
    """What swarmpy offers beyond Docker: naming a published port again with another of these replaces it."""
    return (port.get("HostIP") or "", port.get("Source") or "")


def _ports(spec: Spec, parsed: Parsed) -> None:
    """Removing matches target port, protocol and mode."""
    if not parsed.has("publish-add", "publish-rm"):
        return
    gone = {_full(one)[1:] for one in parsed.list("publish-rm")}
    old = _found(spec, "EndpointSpec.Ports") or []
    ports = {_full(one): one for one in old if _full(one)[1:] not in gone}
    for one in parsed.list("publish-add"):
        if _reach(ports.get(_full(one), {})) != _reach(one) or _full(one) not in ports:
            ports[_full(one)] = one
    texts = {f"{key[0]}:{key[1]}/{key[2]}/{key[3]}": one for key, one in ports.items()}
    put(spec, "EndpointSpec.Ports", [texts[key] for key in sorted(texts)])


def _ulimits(spec: Spec, parsed: Parsed) -> None:
    if parsed.has("ulimit-add", "ulimit-rm"):
        path = f"{_CONTAINER}.Ulimits"
        gone = {_name(text) for text in parsed.list("ulimit-rm")}
        found = _keyed(
            _found(spec, path) or [], parsed.list("ulimit-add"), gone, lambda one: str(one["Name"])
        )
        put(spec, path, sorted(found, key=lambda one: str(one["Name"])))


def _healthcheck(spec: Spec, parsed: Parsed) -> None:
    if not parsed.has("no-healthcheck", *HEALTH):
        return
    container = section(spec, _CONTAINER)
    if parsed.on("no-healthcheck"):
        if parsed.has(*HEALTH):
            raise CommandError("--no-healthcheck conflicts with --health-* options")
        container["Healthcheck"] = {"Test": ["NONE"]}
        return
    check = section(container, "Healthcheck")
    if (check.get("Test") or [""])[0] == "NONE":
        del check["Test"]
    for flag, field in (("health-interval", "Interval"), ("health-timeout", "Timeout"),
                        ("health-start-period", "StartPeriod"), ("health-start-interval", "StartInterval"),
                        ("health-retries", "Retries")):  # fmt: skip
        if parsed.has(flag):
            put(check, field, parsed.values[flag])
    if parsed.has("health-cmd"):
        put(check, "Test", ["CMD-SHELL", parsed.text("health-cmd")] if parsed.text("health-cmd") else [])


def _log_driver(spec: Spec, parsed: Parsed) -> None:
    """A new driver replaces the old one with all its options."""
    if not parsed.text("log-driver"):
        if parsed.has("log-opt"):
            raise CommandError(
                "--log-opt needs --log-driver: a new driver replaces the old one with its options"
            )
        return
    options = pairs(parsed.list("log-opt"))
    name = parsed.text("log-driver")
    section(spec, "TaskTemplate")["LogDriver"] = (
        {"Name": name, "Options": options} if options else {"Name": name}
    )


def _capabilities(spec: Spec, parsed: Parsed) -> None:
    """Adding what was dropped (or dropping what was added) only takes that back; RESET forgets the list."""
    if not parsed.has("cap-add", "cap-drop"):
        return
    container = section(spec, _CONTAINER)
    add = {capability(word) for word in container.get("CapabilityAdd") or []}
    drop = {capability(word) for word in container.get("CapabilityDrop") or []}
    adding = {capability(word) for word in parsed.list("cap-add")}
    dropping = {capability(word) for word in parsed.list("cap-drop")}
    if "RESET" in adding:
        adding, add = adding - {"RESET"}, set()
    if "RESET" in dropping:
        dropping, drop = dropping - {"RESET"}, set()
    for word in dropping - adding:
        (add.discard if word in add else drop.add)(word)
    for word in adding:
        (drop.discard if word in drop else add.add)(word)
    put(container, "CapabilityAdd", ["ALL"] if "ALL" in add else sorted(add))
    put(container, "CapabilityDrop", ["ALL"] if "ALL" in drop else sorted(drop))
