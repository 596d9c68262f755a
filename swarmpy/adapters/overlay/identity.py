"""Names and aliases: how links say in the kernel whose they are.

What belongs here: the texts, both ways. What does not: putting them there. A network's namespace is named
after its id and carries the whole of it in the alias of its loopback, which nobody can delete; a plug's port
carries endpoint and task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from swarmpy.adapters.overlay.netlink import order, plain
from swarmpy.model.ids import SHORT
from swarmpy.ports import FabricError, Link, Plug

PREFIX = "swp-"
PORT = "sp"
LOOPBACK, BRIDGE, TUNNEL = "lo", "br0", "vx0"
ALIAS_LIMIT = 255
_NETWORK, _PLUG = "swarmpy-network", "swarmpy-plug"


def room_name(network_id: str) -> str:
    """Name of the network's namespace."""
    return PREFIX + network_id[:SHORT]


def port_name(endpoint_id: str) -> str:
    """Name of the end in the bridge; 15 characters are allowed."""
    return PORT + _digest(endpoint_id)


def free_name(endpoint_id: str) -> str:
    """Name of the end that goes into the sandbox."""
    return "sf" + _digest(endpoint_id)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def canonical(texts: Iterable[str]) -> list[str]:
    """Addresses, with or without a prefix length: IPv4 first, by value."""
    return sorted(texts, key=order)


def normal(link: Link) -> Link:
    """The link with its addresses written as they will be observed. Else one that somebody wrote in another
    way would be drift for ever, and made anew each time. Raises OSError for what is no address."""
    return replace(link, local=plain(link.local), gateways=tuple(plain(one) for one in link.gateways),
                   bridge_mac=link.bridge_mac.lower())  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """What a network's namespace says of itself: besides the id, what its links alone do not tell, namely
    whether the bridge's MAC was asked for and in which order the gateways were."""

    network_id: str
    own_mac: bool = False
    order: tuple[int, ...] = ()

    @classmethod
    def of(cls, network_id: str, bridge_mac: str, gateways: Sequence[str]) -> Identity:
        """That of a link."""
        places = {text: place for place, text in enumerate(canonical(gateways))}
        return cls(network_id, bool(bridge_mac), tuple(places[text] for text in gateways))

    @property
    def alias(self) -> str:
        """The text in the kernel."""
        return _write(_NETWORK, id=self.network_id, mac="own" if self.own_mac else "any",
                      order=".".join(map(str, self.order)))  # fmt: skip

    def gateways(self, found: Iterable[str]) -> tuple[str, ...]:
        """The addresses that were found, in the order in which they were asked for."""
        known = canonical(found)
        if sorted(self.order) != list(range(len(known))):
            return tuple(known)
        return tuple(known[place] for place in self.order)


def read_network(alias: str) -> Identity | None:
    """Whose namespace it is; None for one that is not ours."""
    words = _read(_NETWORK, alias)
    if not words or not words.get("id"):
        return None
    places = words.get("order", "").split(".")
    order = tuple(int(place) for place in places if place.isascii() and place.isdigit())
    return Identity(words["id"], words.get("mac") == "own", order)


def write_plug(plug: Plug) -> str:
    """The alias of a plug's ends."""
    return _write(_PLUG, endpoint=plug.endpoint_id, network=plug.network_id, task=plug.task_id,
                  mac=plug.mac, mtu=str(plug.mtu))  # fmt: skip


def read_plug(alias: str) -> Plug | None:
    """Whose port it is; None for one that does not say so."""
    words = _read(_PLUG, alias)
    if not words or not words.get("endpoint") or not words.get("mtu", "").isdigit():
        return None
    return Plug(endpoint_id=words["endpoint"], network_id=words.get("network", ""), mac=words.get("mac", ""),
                mtu=int(words["mtu"]), task_id=words.get("task", ""))  # fmt: skip


def _write(kind: str, **words: str) -> str:
    text = " ".join([kind, *(f"{key}={value}" for key, value in words.items())])
    if len(text.encode()) > ALIAS_LIMIT or len(text.split()) != len(words) + 1:
        raise FabricError(f"cannot write down whose link it is: {text!r} has spaces or is longer than "
                          f"{ALIAS_LIMIT} bytes; shorter ids would help")  # fmt: skip
    return text


def _read(kind: str, alias: str) -> dict[str, str]:
    first, *rest = alias.split(" ")
    if first != kind:
        return {}
    return dict(word.partition("=")[::2] for word in rest)
