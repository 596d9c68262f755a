"""The lab's network: one switch, a cable per node, and cables that can be cut.

What belongs here: links, addresses and cuts of the underlay. What does not: anything swarmpy programs.

The switch is a namespace with a bridge; each node's eth0 is the far end of a port named like the node.
Cuts are drop rules between ports, in the switch: no node can undo or even see them, they outlive a node's
restart, and they stop everything, ARP included. Cables that lose frames at random are made the same way.
Nothing is added to this machine's own network, but for the host's cable (`host_link`), which is made only on
request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from swarmpy.lab.layout import SWITCH, Lab, Node, locked
from swarmpy.lab.processes import Process, run

Cut = tuple[str, str]
"""Frames from the first node's port to the second's are dropped."""


def raise_switch(init: Process, gateway: Node) -> None:
    """Make the bridge. It is everybody's default route and answers at once that nothing is out there."""
    _ip(
        init,
        "link set lo up",
        "link add br0 type bridge",
        f"addr add {gateway.address}/24 dev br0",
        "link set br0 up",
        "route add unreachable default",
    )
    _inside(init, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    if has_ipv6():
        _ip(init, f"addr add {gateway.address6}/64 dev br0 nodad", "route add unreachable ::/0")
        _inside(init, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")


def has_ipv6() -> bool:
    """Whether this machine's kernel has IPv6: a lab does without it where not."""
    return Path("/proc/sys/net/ipv6").exists()


def plug(lab: Lab, node: Node, init: Process, switch: Process) -> None:
    """Lay the node's cable and give it its address. A cable of the node's former life is replaced."""
    remove_cable(node, switch)
    peer = f"peer name eth0 address {node.mac} netns {init.pid}"
    _ip(
        switch,
        f"link add {node.name} type veth {peer}",
        f"link set {node.name} master br0 up",
    )
    _ip(
        init,
        "link set lo up",
        f"addr add {node.address}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {lab.node(SWITCH).address}",
    )
    if has_ipv6():
        _ip(
            init,
            f"addr add {node.address6}/64 dev eth0 nodad",
            f"route add default via {lab.node(SWITCH).address6}",
        )


def pull(node: Node, switch: Process) -> None:
    """Take the node's cable out of the switch: nothing it still sends arrives, not even a goodbye."""
    _ip(switch, f"link set {node.name} nomaster", force=True)


def remove_cable(node: Node, switch: Process) -> None:
    """Remove what is left of a dead node's cable; the kernel does so by itself, but not at once."""
    _ip(switch, f"link del {node.name}", force=True)


def host_link(lab: Lab, switch: Process) -> str:
    """A cable from this machine itself to the switch; returns the name of its end here."""
    name = f"lab{lab.subnet}"
    _ip(switch, f"link add host type veth peer name {name} netns 1", "link set host master br0 up")
    run(["ip", "addr", "add", f"10.99.{lab.subnet}.253/24", "dev", name])
    run(["ip", "link", "set", name, "up"])
    return name


def cuts(lab: Lab) -> list[Cut]:
    """What is cut now."""
    path = lab.folder / "cuts.json"
    return [(a, b) for a, b in json.loads(path.read_text())] if path.exists() else []


def cut(
    lab: Lab, switch: Process, nodes: Sequence[str], others: Sequence[str], *, one_way: bool
) -> list[Cut]:
    """Cut `nodes` off from `others`; with one_way only what `nodes` send is lost. Returns all cuts."""
    with locked(lab.folder / "lab.json"):
        wanted = set(cuts(lab))
        for near in nodes:
            for far in others:
                wanted.add((near, far))
                if not one_way:
                    wanted.add((far, near))
        _enforce(lab, switch, sorted(wanted), losses(lab))
    return cuts(lab)


def losses(lab: Lab) -> dict[str, float]:
    """Per cent of the frames that are lost now in each direction of a node's cable, by the node's name."""
    path = lab.folder / "losses.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def lose(lab: Lab, switch: Process, nodes: Sequence[str], percent: float) -> None:
    """From now on lose so many of the frames to and from `nodes`, each by chance of its own."""
    with locked(lab.folder / "lab.json"):
        _enforce(lab, switch, cuts(lab), losses(lab) | dict.fromkeys(nodes, percent))


def mend(lab: Lab, switch: Process) -> None:
    """Undo all cuts and losses."""
    with locked(lab.folder / "lab.json"):
        _enforce(lab, switch, [], {})


def _enforce(lab: Lab, switch: Process, wanted: Sequence[Cut], lost: Mapping[str, float]) -> None:
    rules = [f'iifname "{near}" oifname "{far}" drop' for near, far in wanted]
    for node, percent in lost.items():
        chance = f"numgen random mod 1000 < {round(10 * percent)} drop"
        rules += [f'{side} "{node}" {chance}' for side in ("iifname", "oifname")]
    lines = "\n".join(rules)
    table = (
        "table bridge lab\ndelete table bridge lab\ntable bridge lab {\nchain cuts {\n"
        f"type filter hook forward priority 0;\n{lines}\n}}\n}}\n"
    )
    run(["nsenter", "-t", str(switch.pid), "-n", "nft", "-f", "-"], text=table)
    _save(lab.folder / "cuts.json", list(wanted))
    _save(lab.folder / "losses.json", dict(lost))


def _save(path: Path, wanted: object) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(wanted))
    aside.rename(path)


def _ip(init: Process, *lines: str, force: bool = False) -> None:
    flags = ["-force"] if force else []
    command = ["nsenter", "-t", str(init.pid), "-n", "ip", *flags, "-batch", "-"]
    if force:
        command = ["sh", "-c", '"$@" 2>/dev/null || true', "sh", *command]
    run(command, text="\n".join(lines) + "\n")


def _inside(init: Process, *command: str) -> None:
    run(["nsenter", "-t", str(init.pid), "-n", "-m", *command])
