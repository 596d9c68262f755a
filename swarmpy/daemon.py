"""The composition root: the only file that joins adapters to shells, and the daemon's main.

What belongs here: choosing real adapters, the process's signals and logging. What does not: anything else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from swarmpy import __version__, standin
from swarmpy.adapters.balancers import FirstThatWorks, Successor
from swarmpy.adapters.clock import SystemClock, SystemEntropy
from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.dns import Keeper, NameServers
from swarmpy.adapters.docker import DockerEngine
from swarmpy.adapters.driver import NetworkDriver
from swarmpy.adapters.interfaces import usable_interfaces
from swarmpy.adapters.ipvs import IpvsBalancer, sweep
from swarmpy.adapters.netns import ends_with_us
from swarmpy.adapters.nftables import NftBalancer, NftGuard, NftMesh
from swarmpy.adapters.overlay import KernelOverlay
from swarmpy.adapters.prober import UdpProber
from swarmpy.adapters.raft.node import RaftLog
from swarmpy.adapters.sandboxes import MountWatch
from swarmpy.adapters.sockets import ProcSockets
from swarmpy.adapters.trials import KernelTrials
from swarmpy.adapters.wire import TlsWire
from swarmpy.adapters.wire.bootstrap import bootstrap_call, fetch_bundle
from swarmpy.adapters.xfrm import KernelCipher
from swarmpy.api.server import ApiServer
from swarmpy.cli.usage import Parser
from swarmpy.node.node import Node
from swarmpy.node.toolbox import Interface
from swarmpy.pki.identity import Identity
from swarmpy.pki.rpc import Revoked
from swarmpy.pki.seal import DataKeys, Sealing
from swarmpy.ports import Balancer, Body, FabricPorts, Log, Machine, Member, Wire

logger = logging.getLogger("swarmpy")

STATE_DIR = "/var/lib/swarmpy"
SOCKET = "/run/swarmpy/swarmpy.sock"
ENGINE = "unix:///var/run/docker.sock"
BALANCERS: dict[str, Callable[[], Balancer]] = {
    "auto": lambda: FirstThatWorks(Successor(NftBalancer(), sweep), IpvsBalancer()),
    "nftables": lambda: Successor(NftBalancer(), sweep),
    "ipvs": IpvsBalancer,
}


class RealTools:
    """node.toolbox.Toolbox over the real world."""

    def __init__(self, state_dir: Path, engine_url: str, balancer: str = "auto") -> None:
        self._state_dir = state_dir
        self.clock = SystemClock()
        self.entropy = SystemEntropy()
        self.disk = FileDisk(state_dir)
        # The log's own handles, each with its thread: nobody else's files delay a commit, a snapshot does
        # not, and nobody else's writing closes the journal that is being appended to.
        self._log_disks = (FileDisk(state_dir), FileDisk(state_dir))
        self.engine = DockerEngine(engine_url)
        self.sockets = ProcSockets()
        overlay = KernelOverlay()
        self.fabric = FabricPorts(
            overlay=overlay,
            sandboxes=MountWatch(),
            balancer=BALANCERS[balancer](),
            mesh=NftMesh(overlay.namespace),
            guard=NftGuard(),
            cipher=KernelCipher(),
            names=NameServers(
                keeper=Keeper(str(state_dir / standin.SOCKET), __version__, standin.spawner(state_dir))
            ),
            driver=NetworkDriver(),
            prober=UdpProber(),
            trials=KernelTrials(),
        )

    def interfaces(self) -> Sequence[Interface]:
        """Addresses that others may reach."""
        return [Interface(name, address) for name, address in usable_interfaces()]

    def wire(self, identity: Identity, revoked: Revoked) -> Wire:
        """Mutual TLS."""
        return TlsWire(identity, self.clock, revoked)

    def log(
        self, seat: str, address: str, wire: Wire, machine: Machine, sealer: Sealing, *, bootstrap: bool
    ) -> Log:
        """The Raft log under `raft/`."""
        journal, bulk = self._log_disks
        return RaftLog(
            seat,
            address,
            journal,
            wire,
            self.clock,
            self.entropy,
            machine,
            sealer,
            bootstrap_members=(Member(seat, address),) if bootstrap else None,
            bulk=bulk,
        )

    def sealer(self, *, create: bool) -> Sealing:
        """AES-GCM under the node's data key."""
        keys = DataKeys.create(self.disk) if create else DataKeys.load(self.disk)
        return keys.sealer()

    async def fetch_bundle(self, address: str, token: str) -> bytes:
        """The CA bundle pinned by the token."""
        return await fetch_bundle(address, token)

    async def bootstrap_call(self, address: str, bundle: bytes, method: str, body: Body) -> Body:
        """A call without a certificate."""
        return await bootstrap_call(address, bundle, method, body)

    def wipe(self) -> None:
        """Forget everything below the state directory, but keep the directory."""
        for entry in self._state_dir.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


async def serve(state_dir: Path, socket: Path, engine_url: str, balancer: str = "auto") -> int:
    """Run the daemon until SIGTERM or SIGINT. Returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if ends_with_us():
        logger.warning(
            "the daemon has mounts of its own: the namespaces of its networks end with it, and running "
            "containers lose their networks when it is restarted; take ProtectHome, ProtectKernelModules, "
            "PrivateMounts and the like out of its unit"
        )
    tools = RealTools(state_dir, engine_url, balancer)
    node = Node(tools)
    api = ApiServer(node, engine_url, entropy=tools.entropy)
    try:
        await api.start(str(socket))
    except OSError as error:
        print(f"swarmpy: cannot serve the API on {socket}: {error}", file=sys.stderr)  # noqa: T201  the log may be elsewhere
        return 1
    logger.info("swarmpy %s, API on %s, Engine at %s", __version__, socket, engine_url)
    await node.start()
    try:
        await stop.wait()
    finally:
        logger.info("stopping; containers keep running")
        await api.stop()
        await node.stop()
    return 0


def parser() -> Parser:
    """Options of `swarmpy daemon`."""
    made = Parser(prog="swarmpy daemon", description="Run the node's daemon in the foreground.")
    made.add_argument("--state-dir", default=STATE_DIR, type=Path, help="where state is kept (%(default)s)")
    made.add_argument("--socket", default=SOCKET, type=Path, help="the API's socket (%(default)s)")
    made.add_argument("--engine", default=ENGINE, help="the Docker Engine's address (%(default)s)")
    made.add_argument(
        "--balancer", default="auto", choices=tuple(BALANCERS),
        help="what balances services' connections; auto: nftables, else IPVS (%(default)s)",
    )  # fmt: skip
    made.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="(%(default)s)"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """`swarmpy daemon`."""
    options = parser().parse_args(argv)
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    if os.geteuid() != 0:
        logger.error("the daemon must run as root: it drives the Docker Engine and the node's network")
        return 1
    options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(KeyboardInterrupt):
        return asyncio.run(serve(options.state_dir, options.socket, options.engine, options.balancer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
