"""What a node needs from outside, gathered: the ports, and makers of those that need an identity.

What belongs here: the Protocol that the daemon (real adapters) and the simulator implement. What does not:
any implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from swarmpy.pki.identity import Identity
from swarmpy.pki.rpc import Revoked
from swarmpy.pki.seal import Sealing
from swarmpy.ports import Body, Clock, Disk, Engine, Entropy, FabricPorts, Log, Machine, Sockets, Wire


@dataclass(frozen=True, slots=True)
class Interface:
    """An address of this machine that others may reach."""

    name: str
    address: str


class Toolbox(Protocol):
    """See the file's charter."""

    @property
    def clock(self) -> Clock:
        """The node's clocks."""

    @property
    def entropy(self) -> Entropy:
        """The node's randomness."""

    @property
    def disk(self) -> Disk:
        """The node's state directory."""

    @property
    def engine(self) -> Engine:
        """The node's container engine."""

    @property
    def sockets(self) -> Sockets:
        """The sockets of what the node's containers run."""

    @property
    def fabric(self) -> FabricPorts | None:
        """The node's network; None where it has none."""

    def interfaces(self) -> Sequence[Interface]:
        """The machine's global unicast addresses, loopback excluded, without the Engine's own bridges."""

    def wire(self, identity: Identity, revoked: Revoked) -> Wire:
        """A wire speaking with this identity."""

    def log(
        self, seat: str, address: str, wire: Wire, machine: Machine, sealer: Sealing, *, bootstrap: bool
    ) -> Log:
        """A replicated log in the folder `raft`. `bootstrap`: begin a new one with this seat as its only
        member; otherwise
        recover what is on disk, or wait to be added."""

    def sealer(self, *, create: bool) -> Sealing:
        """The sealing of this node's disk; `create` makes its key first. Raises SealError."""

    async def fetch_bundle(self, address: str, token: str) -> bytes:
        """The CA bundle that the token pins. Raises PkiError, WireError, RefusedError."""

    async def bootstrap_call(self, address: str, bundle: bytes, method: str, body: Body) -> Body:
        """A call without a certificate. Raises PkiError, WireError, RefusedError."""

    def wipe(self) -> None:
        """Remove everything this node keeps on disk."""
