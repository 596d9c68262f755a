"""ports.Overlay in the Linux kernel.

What belongs here: the port's calls, each a job for the one thread that enters namespaces. What does not: the
order of steps (mending), what is right (rooms).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from swarmpy.adapters.overlay import identity, links, mending, netns, rooms, sentences
from swarmpy.adapters.overlay.identity import BRIDGE, LOOPBACK, TUNNEL, free_name, port_name
from swarmpy.adapters.overlay.mending import Mender
from swarmpy.adapters.overlay.netlink import Netlink
from swarmpy.adapters.overlay.netns import FOLDER, OWN, Spaces, Worker
from swarmpy.adapters.overlay.sentences import doing
from swarmpy.ports import FabricError, Link, LinkSeen, Neighbour, Plug

T = TypeVar("T")


def _no_step(name: str) -> None:
    """Nobody watches the steps."""


class KernelOverlay:
    """ports.Overlay. `folder` is where namespaces get their names, `home` the namespace of the node's
    underlay; `step` is told of each change before it is made."""

    def __init__(self, folder: str = FOLDER, home: str = OWN, step: Callable[[str], None] = _no_step) -> None:
        self._spaces = Spaces(folder, home, step)
        self._worker = Worker(self._spaces)
        self._step = step
        self._swept = False

    def close(self) -> None:
        """Stop the thread. The kernel keeps everything."""
        self._worker.close()
        self._spaces.close()

    # ------------------------------------------------------------ the port

    async def probe(self) -> frozenset[str]:
        """What the kernel can do, of: overlay, ipv6: it is tried in a namespace without a name."""
        return await self._run(self._probe)

    def underlay_mtu(self, address: str) -> int:
        """MTU of the interface that has this address; 0 where none has."""

        def look() -> int:
            with Netlink() as netlink:
                for index, cidr in links.addresses(netlink):
                    if cidr.partition("/")[0] == address:
                        return next(
                            (one.mtu for one in links.devices(netlink).values() if one.index == index), 0
                        )
            return 0

        with doing(f"find the interface that has {address}", ""):
            return netns.aside(self._spaces.home, look)

    async def observe(self) -> Mapping[str, LinkSeen]:
        """All networks of ours in the kernel, by network id."""
        return await self._run(self._observe)

    async def ensure(self, link: Link) -> None:
        """Make the network's links, or mend them; plugs and neighbours stay."""
        await self._run(lambda: Mender(self._spaces, link, self._step).mend())

    async def remove(self, network_id: str) -> None:
        """Remove the network's links with all plugs; missing is fine."""
        await self._run(lambda: self._remove(network_id))

    async def forward(self, network_id: str, add: Sequence[Neighbour], remove: Sequence[Neighbour]) -> None:
        """Set forwarding and neighbour entries in bulk: removals first, then additions."""
        await self._run(lambda: self._forward(network_id, tuple(add), tuple(remove)))

    async def plug(self, plug: Plug) -> str:
        """Make the pair of links; returns the name of the free end, at home."""
        return await self._run(lambda: self._plug(plug))

    async def unplug(self, network_id: str, endpoint_id: str) -> None:
        """Remove the pair of links, wherever its free end is; missing is fine."""
        await self._run(lambda: self._unplug(network_id, endpoint_id))

    def namespace(self, network_id: str) -> str:
        """Path of the network's namespace."""
        return self._spaces.path(identity.room_name(network_id))

    async def clear(self) -> None:
        """Remove everything of ours from the kernel."""
        await self._run(self._clear)

    # ------------------------------------------------------------ the jobs

    async def _run(self, job: Callable[[], T]) -> T:
        def work() -> T:
            if not self._swept:
                self._sweep()
                self._swept = True
            return job()

        return await self._worker.run(work)

    def _sweep(self) -> None:
        """Names without a namespace: a process died before it mounted one, or after it unmounted it."""
        for name in self._spaces.names(identity.PREFIX):
            if not self._spaces.exists(name):
                with doing("sweep the name of a namespace that is gone", name):
                    self._spaces.delete(name)

    def _probe(self) -> frozenset[str]:
        found: set[str] = set()
        with doing("try what the kernel can do", ""), self._spaces.fresh(), Netlink() as netlink:
            try:
                netlink.do(*links.add_bridge(BRIDGE, mac="02:00:00:00:00:01", mtu=1450))
                index = links.devices(netlink)[BRIDGE].index
                with open("/proc/thread-self/ns/net") as here:
                    netlink.do(links.add_vxlan(TUNNEL, here.fileno(), index, vni=1, local="127.0.0.1",
                                               port=4789, mtu=1450))  # fmt: skip
                found.add("overlay")
                netlink.do(links.add_address(index, "fd00::1/64"))
                found.add("ipv6")
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EMFILE, errno.ENOMEM, errno.ENOBUFS):
                    raise
        return frozenset(found)

    def _observe(self) -> dict[str, LinkSeen]:
        found: dict[str, LinkSeen] = {}
        for name in self._spaces.names(identity.PREFIX):
            # One that ends while we look is gone, which is as it should be seen.
            with doing("look at the links", name), suppress(FileNotFoundError):
                if self._spaces.exists(name):
                    with rooms.entered(self._spaces, name) as room:
                        seen = rooms.seen(room)
                    if seen is not None:
                        found[seen.network_id] = seen
        return found

    def _remove(self, network_id: str) -> None:
        name = identity.room_name(network_id)
        with doing("remove the links", network_id):
            if self._spaces.exists(name):
                with rooms.entered(self._spaces, name) as room:
                    sentences.refuse_foreign(
                        room.devices[LOOPBACK].alias, network_id, self._spaces.path(name)
                    )
            mending.demolish(self._spaces, name, self._step)

    def _forward(self, network_id: str, add: tuple[Neighbour, ...], remove: tuple[Neighbour, ...]) -> None:
        with self._opened("set the forwarding entries", network_id) as (_, inside):
            tunnel = links.device(inside, TUNNEL)
            if tunnel is None:
                raise sentences.unmade("set the forwarding entries", network_id, "VXLAN device")
            self._step("forward")
            refused, first = mending.program(inside, tunnel.index, add, remove)
        if first is not None:
            what = f"set {refused} of the forwarding entries"
            raise sentences.sentence(what, network_id, first)

    def _plug(self, plug: Plug) -> str:
        port, free = port_name(plug.endpoint_id), free_name(plug.endpoint_id)
        alias = identity.write_plug(plug)
        what = f"plug in endpoint {plug.endpoint_id}"
        with self._opened(what, plug.network_id, sentences.PAIR) as (_, inside):
            bridge = links.device(inside, BRIDGE)
            if bridge is None:
                raise sentences.unmade(what, plug.network_id, "bridge")
            self._step("plug-old")
            _drop(inside, port)
            with Netlink() as home:
                other = links.device(home, free)
                if other is not None:  # of a plug in another network: one endpoint has one
                    found = identity.read_plug(other.alias)
                    if found is None or found.endpoint_id != plug.endpoint_id:
                        raise FabricError(
                            f"cannot {what} of network {plug.network_id}: a link {free} that is not ours is "
                            f"there already; removing it would help"
                        )
                    _drop(home, free)
                # Both at once: there is no moment at which a process could die and leave a nameless port.
                self._step("plug")
                inside.do(
                    links.add_pair(port, bridge.index, free, self._spaces.home, mac=plug.mac, mtu=plug.mtu),
                    links.change(port, alias=alias),
                )
                self._step("plug-free-end")
                home.do(links.change(free, alias=alias))
        return free

    def _unplug(self, network_id: str, endpoint_id: str) -> None:
        if self._spaces.exists(identity.room_name(network_id)):
            with self._opened(f"unplug endpoint {endpoint_id}", network_id) as (_, inside):
                self._step("unplug")
                _drop(inside, port_name(endpoint_id))

    def _clear(self) -> None:
        for name in self._spaces.names(identity.PREFIX):
            with doing("remove the links", name):
                if self._spaces.exists(name):
                    with rooms.entered(self._spaces, name) as room:
                        if room.identity is None:
                            continue
                mending.demolish(self._spaces, name, self._step)

    @contextmanager
    def _opened(
        self, what: str, network_id: str, help_: Mapping[int, str] | None = None
    ) -> Generator[tuple[int, Netlink], None, None]:
        """The network's namespace and a socket in it. Raises FabricError where it is missing."""
        name = identity.room_name(network_id)
        if not self._spaces.exists(name):
            raise sentences.unmade(what, network_id, "namespace")
        with doing(what, network_id, help_), self._spaces.opened(name) as descriptor:
            with self._spaces.inside(descriptor):
                inside = Netlink()
            with inside:
                loop = links.device(inside, LOOPBACK)
                sentences.refuse_foreign(loop.alias if loop else "", network_id, self._spaces.path(name))
                yield descriptor, inside


def _drop(netlink: Netlink, name: str) -> None:
    try:
        netlink.do(links.delete(name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
