"""Two nodes to hold the overlay's contract against: in a simulated kernel, and in the real one.

A real node is a namespace of its own with a cable to the other; all names carry this process's id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec

from swarmpy.adapters.overlay import KernelOverlay, netns
from swarmpy.adapters.overlay.identity import free_name, port_name, room_name
from swarmpy.ports import Overlay
from swarmpy.sim.loop import Killed, Process, SimLoop
from swarmpy.sim.netstack import OTHER_ADDRESS, OTHER_MAC, Netstack, Room, Tunnel
from swarmpy.sim.overlay import SimOverlay
from swarmpy.sim.trace import Trace
from tests.contracts.overlay_crash import DIED

ADDRESSES = ("10.231.0.1", "10.231.0.2")
UNDERLAY_MTU = 1500
PATIENCE = 5.0


class Node:
    """One node. `steps` are those that `overlay` took."""

    overlay: Overlay
    address: str
    steps: list[str]

    def renew(self) -> None:
        """The agent is started anew."""
        raise NotImplementedError

    def drift(self, network_id: str, what: str) -> None:
        """Somebody changes something behind our back."""
        raise NotImplementedError

    async def crash(self, name: str, arguments: tuple[Any, ...], at: int) -> bool:
        """Another process makes the call and dies before its step number `at`; False where it ended first."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """What there is of ours."""
        raise NotImplementedError

    def free_end(self, endpoint_id: str) -> tuple[str, int] | None:
        """MAC and MTU of the free end that is at home."""
        raise NotImplementedError

    def enter(self, network_id: str, endpoint_id: str, sandbox: str, addresses: tuple[str, ...]) -> None:
        """The Engine moves the free end into a sandbox that is made for it."""
        raise NotImplementedError

    def end(self, sandbox: str) -> None:
        """The sandbox ends."""
        raise NotImplementedError

    def foreign(self, network_id: str) -> None:
        """Somebody else has a namespace of the name that we would use."""
        raise NotImplementedError

    def strange_tunnel(self, vni: int, port: int) -> None:
        """Somebody else has a VXLAN device."""
        raise NotImplementedError

    def remove_strange_tunnel(self) -> None:
        raise NotImplementedError


class Site:
    kind: str
    nodes: list[Any]

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        raise NotImplementedError

    def delivered(self, sender: str, network_id: str, address: str, patience: float = PATIENCE) -> str:
        """Which sandbox of the second node hears what `sender` on the first says to the address."""
        raise NotImplementedError


# ---------------------------------------------------------------- simulated


class SimNode(Node):
    def __init__(self, loop: SimLoop, name: str, address: str, trace: Trace) -> None:
        self.loop = loop
        self.address = address
        self.stack = Netstack(loop, name, f"seed-{name}", trace, {address: UNDERLAY_MTU})
        self.sandboxes: dict[str, str] = {}
        self.renew()

    def renew(self) -> None:
        self.steps = []
        self.overlay = SimOverlay(self.stack, self.steps.append)

    def _room(self, network_id: str) -> Room:
        return self.stack.rooms[room_name(network_id)]

    def drift(self, network_id: str, what: str) -> None:
        if what == "two vteps":
            tunnel = self._room(network_id).tunnel
            assert tunnel is not None
            next(iter(tunnel.forwards.values())).append("10.231.0.77")
            return
        assert self.stack.drift(room_name(network_id), what)

    async def crash(self, name: str, arguments: tuple[Any, ...], at: int) -> bool:
        process, taken = Process("agent"), 0
        ended: asyncio.Future[bool] = self.loop.create_future()

        def step(word: str) -> None:
            nonlocal taken
            if taken == at:
                ended.set_result(True)
                self.loop.kill(process)
                raise Killed
            taken += 1

        async def call() -> None:
            await getattr(SimOverlay(self.stack, step), name)(*arguments)
            ended.set_result(False)

        self.loop.spawn(process, call())
        died = await ended
        self.renew()
        return died

    def leftovers(self) -> list[str]:
        return [name for name, room in self.stack.rooms.items() if room.identity is not None]

    def free_end(self, endpoint_id: str) -> tuple[str, int] | None:
        for room in self.stack.rooms.values():
            port = room.ports.get(port_name(endpoint_id))
            if port is not None and not port.place:
                return port.mac, port.mtu
        return None

    def enter(self, network_id: str, endpoint_id: str, sandbox: str, addresses: tuple[str, ...]) -> None:
        self.stack.take(free_name(endpoint_id), sandbox)
        self.sandboxes[endpoint_id] = sandbox

    def end(self, sandbox: str) -> None:
        self.stack.end_sandbox(sandbox)

    def foreign(self, network_id: str) -> None:
        self.stack.rooms[room_name(network_id)] = Room(None)

    def strange_tunnel(self, vni: int, port: int) -> None:
        self.stack.rooms["strange"] = Room(None, tunnel=Tunnel(vni, "10.9.9.9", port, 1450))

    def remove_strange_tunnel(self) -> None:
        del self.stack.rooms["strange"]


class SimSite(Site):
    kind = "simulated"

    def __init__(self) -> None:
        self.loop = SimLoop()
        trace = Trace(self.loop.time)
        self.nodes = [
            SimNode(self.loop, f"n{number}", address, trace) for number, address in enumerate(ADDRESSES)
        ]

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(scenario)

    def delivered(self, sender: str, network_id: str, address: str, patience: float = PATIENCE) -> str:
        way = self.nodes[0].stack.route(room_name(network_id), address)
        if way is None:
            return ""
        mac, vtep, vni, port = way
        there = next((node for node in self.nodes if node.address == vtep), None)
        return there.sandboxes.get(there.stack.arrives(vni, port, mac), "") if there else ""


# ---------------------------------------------------------------- real


def run(command: str, **words: Any) -> str:
    done = subprocess.run(command.split(), check=False, capture_output=True, text=True, **words)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def batch(namespace: str, *lines: str) -> None:
    run(f"ip -n {namespace} -batch -", input="\n".join(lines) + "\n")


def inside(path: str, job: Callable[[], Any]) -> Any:
    """Something quick, done in the namespace."""
    home = os.open(path, os.O_RDONLY)
    try:
        return netns.aside(home, job)
    finally:
        os.close(home)


class RealNode(Node):
    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.folder = str(folder)
        self.home = f"/run/netns/{name}"
        self.sandboxes: list[str] = []
        self.closing: list[KernelOverlay] = []
        self.server: subprocess.Popen[str] | None = None

    def renew(self) -> None:
        self.steps = []
        self.overlay = KernelOverlay(self.folder, self.home, self.steps.append)
        self.closing.append(self.overlay)

    def ip(self, network_id: str, *lines: str) -> None:
        path = self.overlay.namespace(network_id)
        run(f"nsenter --net={path} ip -batch -", input="\n".join(lines) + "\n")

    def drift(self, network_id: str, what: str) -> None:
        path = self.overlay.namespace(network_id)
        held = json.loads(run(f"nsenter --net={path} ip -j link"))
        port = next((one["ifname"] for one in held if one["ifname"].startswith("sp")), "")
        found = json.loads(run(f"nsenter --net={path} ip -j addr show dev br0"))
        first = next((f"{one['local']}/{one['prefixlen']}" for one in found[0]["addr_info"]), "")
        lines = {
            "tunnel gone": ["link del vx0"],
            "tunnel down": ["link set vx0 down"],
            "tunnel mtu": ["link set vx0 mtu 1300"],
            "tunnel loose": ["link set vx0 nomaster"],
            "another tunnel": ["link del vx0", "link add vx0 type vxlan id 69632 dstport 4789 local 10.231.0.9",
                               "link set vx0 master br0 up mtu 1450"],
            "bridge gone": ["link del br0"],
            "bridge down": ["link set br0 down"],
            "bridge mtu": ["link set br0 mtu 1300"],
            "bridge mac": [f"link set br0 address {OTHER_MAC}"],
            "gateway gone": [f"addr del {first} dev br0"],
            "gateway surplus": [f"addr add {OTHER_ADDRESS} dev br0"],
            "loopback down": ["link set lo down"],
            "port down": [f"link set {port} down"],
            "port loose": [f"link set {port} nomaster"],
            "port mtu": [f"link set {port} mtu 1300"],
            "port nameless": [f"link set {port} alias nobody"],
            "port gone": [f"link del {port}"],
        }.get(what)  # fmt: skip
        if what == "knob":
            inside(path, lambda: Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("1"))
        elif what == "two vteps":
            mac = run(f"nsenter --net={path} bridge fdb show dev vx0").split()[0]
            run(f"nsenter --net={path} bridge fdb append {mac} dev vx0 dst 10.231.0.77 self permanent")
        else:
            assert lines is not None, what
            self.ip(network_id, *lines)

    async def crash(self, name: str, arguments: tuple[Any, ...], at: int) -> bool:
        if self.server is None:
            command = [sys.executable, "-m", "tests.contracts.overlay_crash", self.folder, self.home]
            self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(msgspec.json.encode([name, arguments, at]).decode() + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        assert status in (0, DIED)
        self.renew()
        return status == DIED

    def leftovers(self) -> list[str]:
        links = json.loads(run(f"ip -n {self.name} -j link"))
        names = [one["ifname"] for one in links if one["ifname"] not in ("lo", "eth0", "strange")]
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()
                  if line.split()[1].startswith(self.folder + "/")]  # fmt: skip
        return sorted([*os.listdir(self.folder), *names, *mounts])

    def free_end(self, endpoint_id: str) -> tuple[str, int] | None:
        for one in json.loads(run(f"ip -n {self.name} -j link")):
            if one["ifname"] == free_name(endpoint_id):
                return one["address"], one["mtu"]
        return None

    def enter(self, network_id: str, endpoint_id: str, sandbox: str, addresses: tuple[str, ...]) -> None:
        space = self.sandbox(sandbox)
        run(f"ip netns add {space}")
        self.sandboxes.append(sandbox)
        free = free_name(endpoint_id)
        batch(self.name, f"link set {free} netns {space}")
        batch(space, "link set lo up", f"link set {free} name eth0",
              *[f"addr add {cidr} dev eth0" + (" nodad" if ":" in cidr else "") for cidr in addresses],
              "link set eth0 up")  # fmt: skip
        # The kernel opens port and addresses a moment after the link came up, and holds its lock until it is done.
        path, deadline = self.overlay.namespace(network_id), time.monotonic() + PATIENCE
        for look in (
            f"ip -n {space} -j link show eth0",
            f"nsenter --net={path} ip -j link show {port_name(endpoint_id)}",
        ):
            while json.loads(run(look))[0]["operstate"] != "UP":
                assert time.monotonic() < deadline, f"not up: {look}"
                time.sleep(0.01)

    def sandbox(self, sandbox: str) -> str:
        return f"{self.name}{sandbox}"

    def end(self, sandbox: str) -> None:
        batch(self.sandbox(sandbox), "link del eth0")  # what the namespace's end does, but now
        self.drop(sandbox)

    def drop(self, sandbox: str) -> None:
        self.sandboxes.remove(sandbox)
        run(f"ip netns del {self.sandbox(sandbox)}")

    def foreign(self, network_id: str) -> None:
        name = f"{self.name}foreign"
        run(f"ip netns add {name}")
        target = Path(self.folder) / room_name(network_id)
        Path(self.folder).mkdir(exist_ok=True)
        target.touch()
        run(f"mount --bind /run/netns/{name} {target}")
        run(f"ip netns del {name}")

    def drop_foreign(self) -> None:
        for name in os.listdir(self.folder):
            run(f"umount {self.folder}/{name}")
            os.unlink(f"{self.folder}/{name}")

    def strange_tunnel(self, vni: int, port: int) -> None:
        batch(self.name, f"link add strange type vxlan id {vni} dstport {port} local 10.9.9.9",
              "link set strange up")  # fmt: skip

    def remove_strange_tunnel(self) -> None:
        batch(self.name, "link del strange")

    def tidy(self) -> None:
        """After a test: nothing may be left, whatever happened in it."""
        for sandbox in list(self.sandboxes):
            self.drop(sandbox)
        asyncio.run(self.overlay.clear())
        for overlay in self.closing:
            overlay.close()
        self.closing = []
        assert self.leftovers() == []

    def close(self) -> None:
        if self.server is not None:
            self.server.communicate()
        # Bound onto itself (os.path.ismount does not see that) where the adapter made any namespace.
        if any(line.split()[1] == self.folder for line in Path("/proc/mounts").read_text().splitlines()):
            run(f"umount {self.folder}")


class RealSite(Site):
    kind = "kernel"

    def __init__(self, nodes: list[RealNode]) -> None:
        self.nodes = nodes

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(scenario)

    def socket(
        self, node: RealNode, sandbox: str, family: int, kind: int = socket.SOCK_DGRAM
    ) -> socket.socket:
        made = inside(f"/run/netns/{node.sandbox(sandbox)}", lambda: socket.socket(family, kind))
        made.settimeout(PATIENCE)
        return made

    def delivered(self, sender: str, network_id: str, address: str, patience: float = PATIENCE) -> str:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        ears: dict[socket.socket, str] = {}
        with contextlib.ExitStack() as stack:
            for sandbox in self.nodes[1].sandboxes:
                ear = stack.enter_context(self.socket(self.nodes[1], sandbox, family))
                ear.bind(("", 7000))
                ears[ear] = sandbox
            mouth = stack.enter_context(self.socket(self.nodes[0], sender, family))
            mouth.sendto(b"hello", (address, 7000))
            heard, _, _ = select.select(list(ears), [], [], patience)
            return ears[heard[0]] if heard else ""


@contextlib.contextmanager
def real_nodes() -> Iterator[list[RealNode]]:
    """Two nodes with a cable between them."""
    # Not pytest's own folder: it clears those of earlier runs, and what is mounted cannot be cleared.
    folder = Path(tempfile.mkdtemp(prefix="swt"))
    names = [f"swt{os.getpid()}n{number}" for number in range(2)]
    made: list[RealNode] = []
    try:
        for name in names:
            run(f"ip netns add {name}")
        batch(names[0], "link set lo up", f"link add eth0 type veth peer name eth0 netns {names[1]}",
              f"addr add {ADDRESSES[0]}/24 dev eth0", "link set eth0 up")  # fmt: skip
        batch(names[1], "link set lo up", f"addr add {ADDRESSES[1]}/24 dev eth0", "link set eth0 up")
        for name, address in zip(names, ADDRESSES, strict=True):
            made.append(RealNode(name, address, folder / name))
            (folder / name).mkdir()
        yield made
    finally:
        for node in made:
            node.close()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(folder)
