"""Links and their addresses as the kernel speaks of them: messages, and what it answers.

What belongs here: rtnetlink's words for bridges, VXLAN devices, pairs and addresses. What does not: which of
them are wanted (rooms, mending).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass

from swarmpy.adapters.overlay import netlink as nl
from swarmpy.adapters.overlay.netlink import Message, Netlink, attribute, nested

UP = 0x1
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
# IFLA_*
_MAC, _NAME, _MTU, _MASTER, _INFO, _ALIAS, _GROUP, _NETNS = 1, 3, 4, 10, 18, 20, 27, 28
_KIND, _DATA = 1, 2
_VNI, _LOCAL, _LEARNING, _PROXY, _PORT, _LOCAL6 = 1, 4, 7, 11, 15, 17
_SNOOPING = 23
_PEER = 1
# IFA_*
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_NODAD = 0x2


OURS = attribute(_GROUP, struct.pack("=I", 0x5357))
"""The group of all links that we make: they can be removed at once; one by one costs 20 ms each."""


@dataclass(frozen=True, slots=True)
class Device:
    """A link in the kernel. The last five are of VXLAN devices."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    master: int
    mac: str
    alias: str
    vni: int = 0
    local: str = ""
    port: int = 0
    learning: bool = False
    proxy: bool = False


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def devices(netlink: Netlink) -> dict[str, Device]:
    """All links of the namespace, by name."""
    found = (_device(body) for body in netlink.dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0)))
    return {device.name: device for device in found}


def device(netlink: Netlink, name: str) -> Device | None:
    """The link of that name."""
    try:
        return _device(netlink.ask(_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + attribute(_NAME, _text(name))))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _device(body: bytes) -> Device:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = nl.attributes(body, _LINK.size)
    info = nl.attributes(found.get(_INFO, b""))
    kind = _string(info.get(_KIND, b""))
    data = nl.attributes(info.get(_DATA, b"")) if kind == "vxlan" else {}
    local = data.get(_LOCAL) or data.get(_LOCAL6)
    return Device(
        index=index,
        name=_string(found.get(_NAME, b"")),
        kind=kind,
        up=bool(flags & UP),
        mtu=_number(found.get(_MTU)),
        master=_number(found.get(_MASTER)),
        mac=nl.mac_text(found.get(_MAC, b"")),
        alias=_string(found.get(_ALIAS, b"")),
        vni=_number(data.get(_VNI)),
        local=nl.unpacked(local) if local else "",
        port=int.from_bytes(data.get(_PORT, b""), "big"),
        learning=bool(_number(data.get(_LEARNING))),
        proxy=bool(_number(data.get(_PROXY))),
    )


def _string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", sys.byteorder)


# ---------------------------------------------------------------- links


def add_bridge(name: str, *, mac: str, mtu: int) -> tuple[Message, Message]:
    """A bridge, up. Without snooping: who asked for what needs no guessing where nothing is flooded.

    A bridge follows the smallest MTU among its ports until its own was once changed (being made with one does
    not count), so it is made with another and then changed.
    """
    other = mtu - 1
    data = nested(_DATA, attribute(_SNOOPING, b"\0"))
    body = (_LINK.pack(0, 0, 0, UP, UP) + OURS + attribute(_NAME, _text(name)) + attribute(_MTU, _u32(other))
            + attribute(_MAC, nl.mac_bytes(mac))
            + nested(_INFO, attribute(_KIND, b"bridge\0"), data))  # fmt: skip
    return Message(_NEWLINK, nl.CREATE | nl.EXCL, body), change(name, mtu=mtu)


def add_vxlan(
    name: str, namespace: int, master: int, *, vni: int, local: str, port: int, mtu: int
) -> Message:
    """A VXLAN device in another namespace, up and in its bridge at once. Its own socket lives in the
    namespace of the netlink socket that this is sent on: no moving, no half-made device at home."""
    family, raw = nl.packed(local)
    data = nested(
        _DATA,
        attribute(_VNI, _u32(vni)),
        attribute(_LOCAL if family == socket.AF_INET else _LOCAL6, raw),
        attribute(_PORT, struct.pack("!H", port)),
        attribute(_LEARNING, b"\0"),
        attribute(_PROXY, b"\1"),
    )
    body = (_LINK.pack(0, 0, 0, UP, UP) + OURS + attribute(_NAME, _text(name)) + attribute(_MTU, _u32(mtu))
            + attribute(_NETNS, _u32(namespace)) + attribute(_MASTER, _u32(master))
            + nested(_INFO, attribute(_KIND, b"vxlan\0"), data))  # fmt: skip
    return Message(_NEWLINK, nl.CREATE | nl.EXCL, body)


def add_pair(name: str, master: int, peer: str, namespace: int, *, mac: str, mtu: int) -> Message:
    """A pair: one end here, up and in its bridge; the other, `peer`, in another namespace."""
    other = attribute(_PEER, _LINK.pack(0, 0, 0, 0, 0) + attribute(_NAME, _text(peer))
                      + attribute(_MTU, _u32(mtu)) + attribute(_MAC, nl.mac_bytes(mac))
                      + attribute(_NETNS, _u32(namespace)))  # fmt: skip
    body = (_LINK.pack(0, 0, 0, UP, UP) + OURS + attribute(_NAME, _text(name))
            + attribute(_MTU, _u32(mtu)) + attribute(_MASTER, _u32(master))
            + nested(_INFO, attribute(_KIND, b"veth\0"), nested(_DATA, other)))  # fmt: skip
    return Message(_NEWLINK, nl.CREATE | nl.EXCL, body)


def change(
    name: str,
    *,
    index: int = 0,
    up: bool = False,
    mtu: int = 0,
    master: int = 0,
    mac: str = "",
    alias: str = "",
) -> Message:
    """Set what is given on the link of that name (or index)."""
    body = _LINK.pack(0, 0, index, UP if up else 0, UP if up else 0)
    if not index:
        body += attribute(_NAME, _text(name))
    if mtu:
        body += attribute(_MTU, _u32(mtu))
    if master:
        body += attribute(_MASTER, _u32(master))
    if mac:
        body += attribute(_MAC, nl.mac_bytes(mac))
    if alias:
        body += attribute(_ALIAS, alias.encode())
    return Message(_NEWLINK, 0, body)


def delete(name: str) -> Message:
    """Remove the link of that name."""
    return Message(_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + attribute(_NAME, _text(name)))


def delete_ours() -> Message:
    """Remove all links that we made in the namespace."""
    return Message(_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + OURS)


# ---------------------------------------------------------------- addresses


def addresses(netlink: Netlink) -> list[tuple[int, str]]:
    """(link's index, CIDR) of all addresses but IPv6's link-local ones."""
    found: list[tuple[int, str]] = []
    for body in netlink.dump(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        _, length, _, _, index = _ADDRESS.unpack_from(body)
        words = nl.attributes(body, _ADDRESS.size)
        raw = words.get(_IFA_LOCAL) or words.get(_IFA_ADDRESS)
        if raw and not (len(raw) == 16 and raw[0] == 0xFE and raw[1] & 0xC0 == 0x80):
            found.append((index, f"{nl.unpacked(raw)}/{length}"))
    return found


def add_address(index: int, cidr: str) -> Message:
    """Give the link an address; no search for duplicates, which there are by design: one on every node."""
    return Message(_NEWADDR, nl.CREATE | nl.REPLACE, _address(index, cidr))


def drop_address(index: int, cidr: str) -> Message:
    """Take the address away."""
    return Message(_DELADDR, 0, _address(index, cidr))


def _address(index: int, cidr: str) -> bytes:
    face = ipaddress.ip_interface(cidr)
    family, raw = nl.packed(str(face.ip))
    head = _ADDRESS.pack(family, face.network.prefixlen, 0, 0, index)
    flags = attribute(_IFA_FLAGS, _u32(_NODAD)) if family == socket.AF_INET6 else b""
    return head + attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw) + flags
