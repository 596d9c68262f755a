"""Making one swarmpy cluster of a lab's nodes: daemons, init, joins, and waiting until all are Ready.

What belongs here: what a person would type on the nodes. What does not: nodes and cables.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from swarmpy.lab import nodes
from swarmpy.lab.errors import LabError
from swarmpy.lab.layout import Lab, Node
from swarmpy.lab.processes import entering, run, until

READY_SECONDS = 60.0


def form(lab: Lab, tell: Callable[[str], None]) -> None:
    """Start the daemons, init on m1, join the others. Returns when every node is Ready."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda node: nodes.start_daemon(lab, node), lab.members))
    tell("a swarmpy daemon answers on every node")
    first, *others = lab.members
    swarmpy(lab, first, "init", "--advertise-addr", first.address)
    tell(f"{first.name}: cluster made")
    tokens = {role: swarmpy(lab, first, "join-token", "-q", role).strip() for role in _ROLES}

    def join(node: Node) -> None:
        # As most people do it: the manager sees the node's address.
        swarmpy(lab, node, "join", "--token", tokens[node.role], f"{first.address}:2377")
        tell(f"{node.name}: joined as a {node.role}")

    # Managers one after the other (each is a change of the voters), workers at once.
    for node in others:
        if node.role == "manager":
            join(node)
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(join, [node for node in others if node.role == "worker"]))
    wait_ready(lab, [node.name for node in lab.members])
    tell(f"all {len(lab.members)} nodes are Ready")


_ROLES = ("manager", "worker")


def swarmpy(lab: Lab, node: Node, *words: str) -> str:
    """Run the swarmpy command on a node; its output. Raises LabError with its words."""
    line = entering(nodes.must_run(lab, node), [sys.executable, "-m", "swarmpy", *words])
    return run(line, env=nodes.environment())


def node_states(lab: Lab, asked: Node) -> dict[str, str]:
    """Hostname to status, as `node ls` on `asked` says. Raises LabError when it cannot say."""
    said = swarmpy(lab, asked, "node", "ls", "--format", "json")
    rows = [json.loads(line) for line in said.splitlines() if line.strip()]
    return {row["Hostname"]: row["Status"] for row in rows}


def wait_ready(lab: Lab, names: list[str], *, seconds: float = READY_SECONDS) -> None:
    """Return once m1's cluster shows every named node Ready. Raises LabError, saying who is not."""
    seen: dict[str, str] = {}

    def all_ready() -> bool:
        seen.clear()
        seen.update(node_states(lab, lab.members[0]))
        return all(seen.get(name) == "Ready" for name in names)

    try:
        until(all_ready, seconds, "not all nodes became Ready")
    except LabError as error:
        late = ", ".join(f"{n} is {seen.get(n, 'unknown')}" for n in names if seen.get(n) != "Ready")
        raise LabError(f"{error}: {late}") from None
