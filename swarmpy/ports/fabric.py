"""The node's network: overlay links, balancers, names and the Engine's network driver. See the package's
charter.

Everything here is level-triggered: `observe` says what is, the other calls make one thing as it should be and
may be repeated at will. Things carry their identity in the kernel (namespace names, link aliases), so nothing
is kept beside it and whatever is found after a restart is adopted or swept. A *sandbox* is the path of a
network namespace (a container's, or the node's ingress namespace).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarmpy.model.links import (
    Answer,
    CipherTable,
    GuardTable,
    Link,
    LinkSeen,
    MeshTable,
    Neighbour,
    Plug,
    Question,
    SandboxTable,
    Station,
)


class FabricError(Exception):
    """The kernel refused; the text is for the user."""


class Overlay(Protocol):
    """Links and forwarding. All calls raise FabricError."""

    async def probe(self) -> frozenset[str]:
        """What the kernel can do, of: overlay, ipv6."""

    def underlay_mtu(self, address: str) -> int:
        """MTU of the interface that has this address; 0 where none has."""

    async def observe(self) -> Mapping[str, LinkSeen]:
        """All networks of ours in the kernel, by network id."""

    async def ensure(self, link: Link) -> None:
        """Make the network's links, or mend them; plugs and neighbours stay where the links were right."""

    async def remove(self, network_id: str) -> None:
        """Remove the network's links with all plugs; missing is fine."""

    async def forward(self, network_id: str, add: Sequence[Neighbour], remove: Sequence[Neighbour]) -> None:
        """Set forwarding and neighbour entries in bulk: removals first, then additions. Entries that are
        there, or gone, already are fine."""

    async def plug(self, plug: Plug) -> str:
        """Make the pair of links; returns the name of the free end, in this process's own namespace, ready
        to be moved into a sandbox. One that exists already is made anew."""

    async def unplug(self, network_id: str, endpoint_id: str) -> None:
        """Remove the pair of links; missing is fine."""

    def namespace(self, network_id: str) -> str:
        """Path of the network's namespace."""

    async def clear(self) -> None:
        """Remove everything of ours from the kernel."""


class Balancer(Protocol):
    """Virtual addresses, in the namespaces of those who use them. All calls raise FabricError.

    Replacing is atomic for new connections; open ones stay with their backend, also with one that is removed.
    """

    name: str
    """nftables or ipvs."""

    async def probe(self) -> bool:
        """Whether the kernel can do it."""

    async def observe(self, sandbox: str) -> str:
        """Fingerprint of what the kernel has in the sandbox, "" for nothing of ours or a table that was
        changed by others. Equal to what `apply` returned as long as nothing changed it."""

    async def apply(self, sandbox: str, table: SandboxTable, before: SandboxTable | None) -> str:
        """Make the sandbox as the table says; returns its fingerprint. `before` is what was applied last
        (None: unknown), so that only the difference is worked on, and UDP flows to backends that went are
        cut. The routes of returns need the link to be there."""

    async def clear(self, sandbox: str) -> None:
        """Remove everything of ours from the sandbox; one that is gone is fine."""


class Sandboxes(Protocol):
    """Containers' namespaces as they appear."""

    async def appeared(self, path: str, *, patience: float) -> bool:
        """Return True once the namespace at the path can be entered, False after `patience` seconds."""


class Mesh(Protocol):
    """The routing mesh of this node: the host's ports and the ingress namespace. Raises FabricError."""

    async def observe(self) -> str:
        """Fingerprint of what the kernel has; see Balancer.observe."""

    async def apply(self, table: MeshTable, before: MeshTable | None) -> str:
        """Make host and ingress namespace as the table says; returns its fingerprint."""

    async def clear(self) -> None:
        """Remove everything of ours."""


class Guard(Protocol):
    """The firewall of this node's VXLAN ports, apart from all other firewalls of the machine. Raises
    FabricError.

    What others sent to the ports is dropped, and so is what processes of this machine, or those behind it
    (containers), send to members' ports: only the kernel's own VXLAN devices speak there."""

    async def observe(self) -> str:
        """Fingerprint of what the kernel has; see Balancer.observe."""

    async def apply(self, table: GuardTable) -> str:
        """Make the firewall as the table says, in one step; returns its fingerprint."""

    async def clear(self) -> None:
        """Remove everything of ours."""


class Cipher(Protocol):
    """Encryption of what encrypted networks send between nodes. Raises FabricError."""

    async def probe(self) -> bool:
        """Whether the kernel can do it."""

    async def observe(self) -> str:
        """Fingerprint of what the kernel has, "" for nothing of ours."""

    async def apply(self, table: CipherTable) -> str:
        """Make it as the table says; returns its fingerprint. At no instant does anything pass in the clear,
        and nothing that passes is lost as long as two nodes have the secret in common that one sends with."""

    async def clear(self) -> None:
        """Remove everything of ours."""


@dataclass(frozen=True, slots=True)
class Plugged:
    """What the Engine asks when it connects a container: our options of the endpoint, as they were given to
    it. `options` are the endpoint's DriverOpts."""

    endpoint_id: str
    options: Mapping[str, str]
    sandbox: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer: link to move into the sandbox and the prefix of its new name; no gateway means that the
    Engine adds its own link for the way out, `isolated` that it must not."""

    link: str
    prefix: str
    isolated: bool = False


class Plumber(Protocol):
    """What the network driver asks of the agent. All calls raise FabricError with a sentence."""

    async def create(self, endpoint: Plugged) -> tuple[tuple[str, ...], str]:
        """The endpoint's addresses (CIDR, IPv4 first) and MAC."""

    async def join(self, endpoint: Plugged) -> Joined:
        """Plug it in; its sandbox exists, its process does not run yet."""

    async def leave(self, endpoint_id: str) -> None:
        """Unplug it; unknown is fine."""


class Driver(Protocol):
    """The Engine's network driver, served to the local Engine."""

    async def start(self, plumber: Plumber) -> None:
        """Serve. Raises OSError."""

    async def stop(self) -> None:
        """Serve no longer."""


Resolve = Callable[[Question], Answer]


class Names(Protocol):
    """The name servers of this node's networks."""

    def begin(self, resolve: Resolve) -> None:
        """Answer with this from now on."""

    async def serve(self, network_id: str, namespace: str, addresses: Sequence[str]) -> None:
        """Serve port 53 at these addresses of the namespace; changes what is served before. Raises
        FabricError."""

    async def withdraw(self, network_id: str) -> None:
        """Serve that network no longer; not served is fine."""

    def changed(self) -> None:
        """Answers may differ from now on: nothing that was remembered counts."""

    async def stop(self) -> None:
        """Serve nothing any more; who stands in for this process does, if there is somebody."""

    async def wipe(self) -> None:
        """Serve nothing any more, and have nobody stand in."""


Heard = Callable[[str, int, int], None]
"""(peer's address, the question's number, bytes of the question's datagram): it was answered."""


class Prober(Protocol):
    """Questions to other nodes on the underlay, and answers to theirs. Only nodes that have the key ask and
    answer; nobody else can make an answer up, nor use an old one again where numbers are not."""

    def begin(self, heard: Heard) -> None:
        """Tell of answers from now on, in the event loop."""

    async def serve(self, local: str, port: int, key: bytes) -> None:
        """Ask and answer from that address; what was served before ends. Raises FabricError."""

    def ask(self, peer: str, number: int, size: int = 0) -> None:
        """Send one question, at least `size` bytes long, in one piece. Says nothing of its fate."""

    async def stop(self) -> None:
        """Neither ask nor answer any more."""


class Trials(Protocol):
    """Trying a network out, for `net doctor`. Both raise FabricError."""

    async def across(
        self, namespace: str, here: Station, there: Sequence[Station], size: int, patience: float
    ) -> frozenset[Station]:
        """Who answers a packet of `size` bytes (IP) that goes out of the network's namespace over its VXLAN
        device, in the name of our station `here`."""

    async def answers(
        self, namespace: str, addresses: Sequence[str], name: str, patience: float
    ) -> frozenset[str]:
        """Which of the name servers at these addresses of the namespace answer a question for the name."""


@dataclass(frozen=True, slots=True)
class FabricPorts:
    """Everything of a node's network. `names` and `driver` serve what the agent gives them when it starts."""

    overlay: Overlay
    sandboxes: Sandboxes
    balancer: Balancer
    mesh: Mesh
    guard: Guard
    cipher: Cipher
    names: Names
    driver: Driver
    prober: Prober
    trials: Trials
