"""What went wrong, in a sentence that a user reads: what failed, on which network, why, what would help."""

from __future__ import annotations

import errno
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from swarmpy.adapters.overlay import identity
from swarmpy.ports import FabricError, Link

RIGHTS = "run the daemon as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
HELP = {errno.EPERM: RIGHTS, errno.EACCES: RIGHTS,
        errno.EMFILE: "raise the daemon's limit of open files (LimitNOFILE)",
        errno.ENOSPC: "raise the limit of mounts or namespaces (sysctl fs.mount-max, "
                      "user.max_net_namespaces)",
        errno.EROFS: "the daemon needs a writable /proc/sys and /run"}  # fmt: skip


@contextmanager
def doing(what: str, network_id: str, help_: Mapping[int, str] | None = None) -> Generator[None, None, None]:
    """Makes one sentence of whatever the kernel refuses. `help_`: what would help, by errno."""
    try:
        yield
    except OSError as error:
        raise sentence(what, network_id, error, help_) from error


def sentence(
    what: str, network_id: str, error: OSError, help_: Mapping[int, str] | None = None
) -> FabricError:
    """The error to raise."""
    code = error.errno or 0
    where = f" of network {network_id}" if network_id else ""
    advice = (help_ or {}).get(code) or HELP.get(code, "")
    return FabricError(f"cannot {what}{where}: {error.strerror or error}" + (f"; {advice}" if advice else ""))


def unmade(what: str, network_id: str, missing: str) -> FabricError:
    """The error where something that `ensure` makes is missing."""
    return FabricError(f"cannot {what} of network {network_id}: its {missing} is not there on this node; it "
                       f"is made again when the network's links are mended")  # fmt: skip


def refuse_foreign(alias: str, network_id: str, path: str) -> None:
    """Raises FabricError where the namespace with this alias of its loopback is not this network's."""
    owner = identity.read_network(alias)
    found = owner.network_id if owner else "nobody we know"
    if found != network_id:
        raise FabricError(f"cannot use the namespace {path} for network {network_id}: it belongs to {found}; "
                          f"renaming or removing it (`ip netns delete`) would help")  # fmt: skip


def of_tunnel(link: Link) -> dict[int, str]:
    """What would help where a VXLAN device is refused."""
    return {
        errno.EOPNOTSUPP: "the kernel lacks VXLAN: load its module (modprobe vxlan)",
        errno.EEXIST: f"another VXLAN device of this node has VNI {link.vni} on port {link.port}: remove it "
                  f"(`ip -d link show type vxlan`), or give the network another VNI",
        errno.EADDRINUSE: f"UDP port {link.port} is taken by another program, or by a VXLAN device with "
                      f"other settings: free it, or use another data path port for the cluster",
        errno.EAFNOSUPPORT: "the kernel lacks the address family of this node's data path address",
    }  # fmt: skip


BRIDGE = {errno.EOPNOTSUPP: "the kernel lacks bridges: load the module (modprobe bridge)"}
PAIR = {errno.EOPNOTSUPP: "the kernel lacks pairs of links: load the module (modprobe veth)"}
NO_IPV6 = "IPv6 is off on this node: switch it on, or create the network without it"
ADDRESS = {errno.EACCES: NO_IPV6, errno.EOPNOTSUPP: NO_IPV6, errno.EAFNOSUPPORT: NO_IPV6,
           errno.EINVAL: "IPv6 needs an MTU of 1280 bytes or more", errno.ENODEV: NO_IPV6}  # fmt: skip
