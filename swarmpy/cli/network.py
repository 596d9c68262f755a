"""`swarmpy network`: create, list, inspect and remove networks, the cluster's and this node's own.

Which of the two a network is, the daemon decides: driver overlay or scope swarm makes it the cluster's, all
others are the Engine's. What does not belong here: the flags (`network_table`), what services attach to
(`service_networks`).
"""

from __future__ import annotations

import re
import sys
from typing import Any

from swarmpy.cli.client import ApiError, Client, filters, segment
from swarmpy.cli.human import moment, natural, short_id
from swarmpy.cli.output import inspect as print_inspect
from swarmpy.cli.output import listing, out, warn
from swarmpy.cli.tables import CommandError, Parsed
from swarmpy.cli.values import pairs

_HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}
_SHOWN = ("ID", "Name", "Driver", "Scope")
_CONFIRM = "Are you sure you want to continue? [y/N] "
_INGRESS_WARNING = (
    "WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run the same "
    "swarmpy version. Otherwise, removal may not be effective and functionality of newly create ingress "
    "networks will be impaired.\n"
)
_PRUNE_WARNING = "WARNING! This will remove all custom networks not used by at least one container.\n"
_OFFSET = re.compile(r"([+-]\d\d):(\d\d)\Z")


def _sure(question: str) -> bool:
    """Whether the user answers with y; no answer is no."""
    sys.stdout.write(question + _CONFIRM)
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() == "y"


def _created(text: str) -> str:
    """A time as Go prints it, in the zone that the daemon wrote it in."""
    offset = _OFFSET.search(text)
    zone = "{0}{1} {0}{1}".format(*offset.groups()) if offset else "+0000 UTC"
    return moment(text).replace("+0000 utc", zone)


def _row(network: dict[str, Any], trunc: bool) -> dict[str, Any]:
    labels = network.get("Labels") or {}
    return {
        "ID": short_id(network["Id"]) if trunc else network["Id"],
        "Name": network.get("Name", ""),
        "Driver": network.get("Driver", ""),
        "Scope": network.get("Scope", ""),
        **{
            word: "true" if network.get(field) else "false"
            for word, field in (("IPv4", "EnableIPv4"), ("IPv6", "EnableIPv6"), ("Internal", "Internal"))
        },
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "CreatedAt": _created(network.get("Created", "")),
    }


def ls(parsed: Parsed) -> int:
    """List networks, by name."""
    networks = Client(parsed.host).get("/networks", **filters(parsed.list("filter")))
    rows = [_row(one, trunc=not parsed.on("no-trunc")) for one in networks]
    rows.sort(key=lambda row: natural(row["Name"]))
    listing(rows, _HEADERS, _SHOWN, format_=parsed.text("format"), quiet=parsed.on("quiet"))
    return 0


def inspect(parsed: Parsed) -> int:
    """Print networks; verbosely with the services, virtual addresses and tasks on them."""
    client = Client(parsed.host)
    query = {"verbose": "true"} if parsed.on("verbose") else {}
    return print_inspect(
        parsed.args,
        lambda reference: client.get(f"/networks/{segment(reference)}", **query),
        parsed.text("format"),
    )


def create(parsed: Parsed) -> int:
    """Create a network and print its id."""
    body: dict[str, Any] = {
        "Name": parsed.args[0],
        "Driver": parsed.text("driver", "bridge"),
        "Scope": parsed.text("scope"),
        "IPAM": {
            "Driver": parsed.text("ipam-driver", "default"),
            "Options": pairs(parsed.list("ipam-opt")),
            "Config": subnets(parsed),
        },
        **{
            field: parsed.on(flag)
            for flag, field in (
                ("internal", "Internal"),
                ("attachable", "Attachable"),
                ("ingress", "Ingress"),
                ("config-only", "ConfigOnly"),
            )
        },
        "ConfigFrom": {"Network": parsed.text("config-from")} if parsed.text("config-from") else None,
        "Options": pairs(parsed.list("opt")),
        "Labels": pairs(parsed.list("label")),
    }
    for flag, field in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if parsed.has(flag):
            body[field] = parsed.on(flag)
    answer = Client(parsed.host).call("POST", "/networks/create", body)
    if answer.get("Warning"):
        warn(f"WARNING: {answer['Warning']}")
    out(answer["Id"])
    return 0


def subnets(parsed: Parsed) -> list[dict[str, Any]]:
    """The subnets of a new network, each with the range, gateway and reserved addresses that lie in it.
    Raises CommandError for what lies in none."""
    from ipaddress import ip_network

    asked = parsed.list("subnet")
    ranges, gateways = parsed.list("ip-range"), parsed.list("gateway")
    if len(asked) < len(ranges) or len(asked) < len(gateways):
        raise CommandError("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, dict[str, Any]] = {}
    for subnet in asked:
        if any(_holds(subnet, other) or _holds(other, subnet) for other in found):
            raise CommandError("multiple overlapping subnet configuration is not supported")
        found[subnet] = {"Subnet": subnet}
    for text in ranges:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise CommandError(f"invalid CIDR address: {text}") from None
        _home(found, text, "range", "ranges", "on", "IPRange")
    for text in gateways:
        _home(found, text, "gateway", "gateways", "for", "Gateway")
    for key, address in pairs(parsed.list("aux-address")).items():
        if not key or not address:
            raise CommandError(
                f'invalid aux-address "{key}{"=" if not key else ""}{address}": it is NAME=ADDRESS'
            )
        home = next((one for one in found if _holds(one, address)), None)
        if home is None:
            raise CommandError(f"no matching subnet for aux-address {address}")
        found[home].setdefault("AuxiliaryAddresses", {})[key] = address
    return list(found.values())


def _home(
    found: dict[str, dict[str, Any]], text: str, what: str, several: str, near: str, field: str
) -> None:
    """Put a range or a gateway to its subnet; the words are those of Docker's refusals."""
    home = next((one for one in found if _holds(one, text)), None)
    if home is None:
        raise CommandError(f"no matching subnet for {what} {text}")
    if field in found[home]:
        raise CommandError(f"cannot configure multiple {several} ({text}, {found[home][field]}) "
                           f"{near} the same subnet ({home})")  # fmt: skip
    found[home][field] = text


def _holds(subnet: str, other: str) -> bool:
    """Whether the address or network begins in the subnet; what cannot be read lies in none (the daemon
    judges it)."""
    from ipaddress import ip_interface, ip_network

    try:
        return ip_interface(other).ip in ip_network(subnet, strict=False)
    except ValueError:
        return False


def remove(parsed: Parsed) -> int:
    """Remove networks, going on past failures; asks before it removes the routing mesh's."""
    client = Client(parsed.host)
    failures = 0
    for reference in parsed.args:
        path = f"/networks/{segment(reference)}"
        try:
            ingress = bool(client.get(path).get("Ingress"))
        except ApiError:
            ingress = False  # the removal says what is wrong
        if ingress and not _sure(_INGRESS_WARNING):
            continue
        try:
            client.call("DELETE", path)
            out(reference)
        except ApiError as error:
            if not (parsed.on("force") and error.status == 404):
                warn(error.message)
                failures += 1
    return 1 if failures else 0


def prune(parsed: Parsed) -> int:
    """Remove what nothing uses."""
    if not parsed.on("force") and not _sure(_PRUNE_WARNING):
        return 0
    query = filters(parsed.list("filter"))
    answer = Client(parsed.host).call("POST", "/networks/prune", query=query)
    gone = answer.get("NetworksDeleted") or []
    if gone:
        out("Deleted Networks:")
        for name in gone:
            out(name)
        out("")
    return 0


def connect(parsed: Parsed) -> int:
    """Connect a container of this node to one of this node's networks."""
    options = parsed.list("driver-opt")
    if any("=" not in one for one in options):
        raise CommandError("invalid key/value pair format in driver options")
    addresses = {
        "IPv4Address": parsed.text("ip"),
        "IPv6Address": parsed.text("ip6"),
        "LinkLocalIPs": parsed.list("link-local-ip"),
    }
    endpoint = {
        "IPAMConfig": {key: value for key, value in addresses.items() if value},
        "Links": parsed.list("link") or None,
        "Aliases": parsed.list("alias"),
        "DriverOpts": pairs(options),
        "GwPriority": parsed.values.get("gw-priority", 0),
    }
    body = {"Container": parsed.args[1], "EndpointConfig": endpoint}
    Client(parsed.host).call("POST", f"/networks/{segment(parsed.args[0])}/connect", body)
    return 0


def disconnect(parsed: Parsed) -> int:
    """Disconnect a container of this node from a network."""
    body = {"Container": parsed.args[1], "Force": parsed.on("force")}
    Client(parsed.host).call("POST", f"/networks/{segment(parsed.args[0])}/disconnect", body)
    return 0
