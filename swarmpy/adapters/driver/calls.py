"""Bodies of libnetwork's calls and of our answers.

What belongs here: their form, and the rules libnetwork has for them. What does not: sockets, waiting.
Bodies hold more fields than these; what we do not need is not looked at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from swarmpy.ports.fabric import FabricError, Joined

FIXED: Mapping[str, Mapping[str, Any]] = {
    "/Plugin.Activate": {"Implements": ["NetworkDriver"]},
    "/NetworkDriver.GetCapabilities": {"Scope": "local", "ConnectivityScope": "local"},
    # A network of the Engine is only a name for us: links and addresses are the Plumber's, per endpoint.
    "/NetworkDriver.CreateNetwork": {},
    "/NetworkDriver.DeleteNetwork": {},
    "/NetworkDriver.EndpointOperInfo": {"Value": {}},
    "/NetworkDriver.DiscoverNew": {},
    "/NetworkDriver.DiscoverDelete": {},
    # Ports of a container are published on the link that the Engine adds itself.
    "/NetworkDriver.ProgramExternalConnectivity": {},
    "/NetworkDriver.RevokeExternalConnectivity": {},
}
"""Calls that are always answered the same."""


class Interface(msgspec.Struct, frozen=True, rename="pascal"):
    """What the Engine decided already: empty with the null address management."""

    address: str = ""
    address_i_pv6: str = msgspec.field(default="", name="AddressIPv6")
    mac_address: str = ""


class CreateEndpoint(msgspec.Struct, frozen=True):
    """NetworkDriver.CreateEndpoint."""

    id: str = msgspec.field(name="EndpointID")
    interface: Interface | None = msgspec.field(default=None, name="Interface")
    options: dict[str, Any] | None = msgspec.field(default=None, name="Options")


class Join(msgspec.Struct, frozen=True):
    """NetworkDriver.Join. Its Options are the sandbox's, not the endpoint's."""

    id: str = msgspec.field(name="EndpointID")
    sandbox: str = msgspec.field(name="SandboxKey")


class Endpoint(msgspec.Struct, frozen=True):
    """NetworkDriver.Leave and DeleteEndpoint."""

    id: str = msgspec.field(name="EndpointID")


def flat(options: Mapping[str, Any] | None) -> dict[str, str]:
    """The endpoint's DriverOpts among its options: those that are texts."""
    return {key: value for key, value in (options or {}).items() if isinstance(value, str)}


def interface_answer(asked: Interface, addresses: Sequence[str], mac: str) -> dict[str, Any]:
    """The answer to CreateEndpoint. libnetwork takes it as an error when a driver answers what the Engine
    decided itself, even if it is the same; where it differs, the container would get wrong addresses."""
    given = {"Address": asked.address, "AddressIPv6": asked.address_i_pv6, "MacAddress": asked.mac_address}
    ours: dict[str, str] = {"MacAddress": mac}
    for address in addresses:
        version = ipaddress.ip_interface(address).version
        ours.setdefault("Address" if version == 4 else "AddressIPv6", address)
    for field, value in given.items():
        if value and not _same(field, value, ours.get(field, "")):
            expected = ours.get(field) or "none"
            raise FabricError(
                f"the Engine chose {field} {value} for a container of a swarmpy network, where it must be "
                f"{expected}: create the network with the IPAM driver 'null', and choose no MAC address"
            )
    return {"Interface": {field: value for field, value in ours.items() if value and not given[field]}}


def _same(field: str, one: str, other: str) -> bool:
    if field == "MacAddress" or not other:
        return one.lower() == other.lower()
    try:
        return ipaddress.ip_interface(one) == ipaddress.ip_interface(other)
    except ValueError:
        return False


def join_answer(joined: Joined) -> dict[str, Any]:
    """The answer to Join. Without a gateway the Engine adds a link of its own for the way out, unless it is
    told not to."""
    answer: dict[str, Any] = {"InterfaceName": {"SrcName": joined.link, "DstPrefix": joined.prefix}}
    if joined.isolated:
        answer["DisableGatewayService"] = True
    return answer
