"""Networks: driver, subnets, options. See the package's charter."""

from __future__ import annotations

import msgspec

from swarmpy.model.specs.base import Spec, view

MTU_OPTION = "com.docker.network.driver.mtu"
"""Driver option: the MTU of the underlay, in bytes, where it is not to be found out."""
VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
"""Driver option: the VXLAN id that the network uses; shown, and accepted on create."""


class IPAMConfig(Spec, frozen=True):
    """A subnet in CIDR notation, and which of its addresses are given away."""

    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = msgspec.field(default={}, name="AuxiliaryAddresses")


class IPAM(Spec, frozen=True):
    """Where addresses come from; no config means: from the cluster's pools."""

    driver: str = ""
    options: dict[str, str] = {}
    config: tuple[IPAMConfig, ...] = ()


class ConfigReference(Spec, frozen=True):
    """The network whose configuration is taken."""

    network: str = ""


class NetworkSpec(Spec, frozen=True):
    """What a network should be: the body of POST /networks/create."""

    name: str = ""
    driver: str = "overlay"
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    enable_ipv4: bool = msgspec.field(default=True, name="EnableIPv4")
    enable_ipv6: bool = msgspec.field(default=False, name="EnableIPv6")
    ipam: IPAM = msgspec.field(default=IPAM(), name="IPAM")
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    config_only: bool = False
    config_from: ConfigReference | None = None

    @property
    def encrypted(self) -> bool:
        """Whether its frames are encrypted between nodes (the option's mere presence counts, as in Docker,
        unless it says false)."""
        value = self.options.get("encrypted")
        return value is not None and value.strip().lower() not in {"false", "0", "f"}

    @property
    def underlay_mtu(self) -> int:
        """The underlay's MTU that the user names, 0 to find it out. Not a number counts as 0."""
        text = self.options.get(MTU_OPTION, "0")
        return int(text) if text.isascii() and text.isdigit() else 0


def network_view(text: str) -> NetworkSpec:
    """Typed view of a network's spec."""
    return view(NetworkSpec, text)
