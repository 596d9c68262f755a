"""`make demo`: a real cluster before the reader's eyes, its failures, and how it heals.

What belongs here: the story and its telling. What does not: any lab verb of its own (lab.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

from swarmpy.lab import cluster, layout, nodes
from swarmpy.lab import lab as labs
from swarmpy.lab.errors import LabError
from swarmpy.lab.layout import Lab, Node
from swarmpy.lab.processes import until

NAME = "demo"
REPLICAS = 5
HEAL_SECONDS = 60.0


class Story:
    """Tells what changes in the cluster, with the seconds since the story began."""

    def __init__(self, lab: Lab, began: float) -> None:
        self._lab = lab
        self._began = began
        self._seen: dict[str, str] = {}

    def say(self, line: str) -> None:
        """One line of the story."""
        print(f"[{time.monotonic() - self._began:5.1f}s] {line}", flush=True)

    def chapter(self, title: str) -> None:
        """A heading."""
        print(f"\n=== {title}", flush=True)

    def show(self, *words: str) -> None:
        """Type a swarmpy command on a living manager, and show what it says."""
        print(f"$ swarmpy {' '.join(words)}")
        print(cluster.swarmpy(self._lab, self.manager(), *words), flush=True)

    def manager(self) -> Node:
        """The first manager that is up."""
        for node in self._lab.members:
            if node.role == "manager" and nodes.init_of(self._lab, node):
                return node
        raise LabError("no manager is up")

    def follow(
        self, done: Callable[[dict[str, str]], bool], otherwise: str, *, began: float | None = None
    ) -> float:
        """Tell every change of nodes and tasks until `done` with what is seen; seconds since `began`
        (since now, where none is given)."""
        began = time.monotonic() if began is None else began

        def look() -> bool:
            try:
                now = observe(self._lab, self.manager())
            except LabError:  # no leader at this moment: part of the story
                now = self._seen | {"managers": "no leader"}
            for what in sorted(now):
                if self._seen.get(what) != now[what]:
                    self.say(f"{what}: {now[what]}")
            self._seen = now
            return done(now)

        until(look, HEAL_SECONDS, otherwise)
        return time.monotonic() - began


def observe(lab: Lab, asked: Node) -> dict[str, str]:
    """What stands to be told: each node's status, the leader, and each replica's node and state."""
    seen = {}
    for row in _rows(lab, asked, "node", "ls"):
        seen[f"node {row['Hostname']}"] = row["Status"]
        if row["ManagerStatus"] == "Leader":
            seen["managers"] = f"{row['Hostname']} leads"
    for row in _rows(lab, asked, "service", "ps", "web", "-f", "desired-state=running"):
        state = row["CurrentState"].split()[0]
        seen[f"replica {row['Name']}"] = f"{state} on {row['Node']} with {row['Image']}"
    return seen


def _rows(lab: Lab, asked: Node, *words: str) -> list[dict[str, str]]:
    said = cluster.swarmpy(lab, asked, *words, "--format", "json")
    return [json.loads(line) for line in said.splitlines() if line.strip()]


def _running(seen: dict[str, str], *, lost: str = "", image: str = "") -> bool:
    replicas = [what for name, what in seen.items() if name.startswith("replica ")]
    good = [what for what in replicas if what.startswith("Running") and what.endswith(image)]
    here = all(f" on {lost} " not in what for what in replicas) if lost else True
    return here and len(replicas) == len(good) == REPLICAS and "leads" in seen["managers"]


def play(lab: Lab, story: Story) -> None:
    """The whole story, on a cluster that is up."""
    story.chapter("A service of five web servers")
    story.show("service", "create", "--detach", "--name", "web", "--replicas", str(REPLICAS), "web:1")
    took = story.follow(_running, "the service does not run")
    story.say(f"{REPLICAS} of {REPLICAS} run, {took:.1f} s after the command")
    story.show("service", "ps", "web")

    story.chapter("A worker loses power (kill -9 of everything on w1)")
    labs.kill(lab, lab.node("w1"), "node")
    took = story.follow(lambda seen: _running(seen, lost="w1"), "w1's replicas were not replaced")
    story.say(f"all {REPLICAS} run again, {took:.1f} s after the worker died")

    leader = leader_of(lab, story.manager())
    story.chapter(f"The leading manager loses power ({leader.name})")
    labs.kill(lab, leader, "node")
    took = story.follow(
        lambda seen: _running(seen, lost=leader.name) and seen["managers"] != f"{leader.name} leads",
        "the cluster did not recover from the loss of its leader",
    )
    story.say(f"another manager leads and all {REPLICAS} run, {took:.1f} s after the leader died")
    story.show("node", "ls")

    story.chapter("Both machines come back")
    power_on = time.monotonic()
    for lost in (lab.node("w1"), leader):
        labs.start(lab, lost, "node")
    members = [f"node {node.name}" for node in lab.members]
    took = story.follow(
        lambda seen: all(seen.get(name) == "Ready" for name in members),
        "not all came back",
        began=power_on,
    )
    story.say(f"all {len(members)} nodes are Ready, {took:.1f} s after power-on")

    story.chapter("A rolling update from web:1 to web:2")
    story.show("service", "update", "--detach", "--image", "web:2", "web")
    took = story.follow(lambda seen: _running(seen, image="web:2"), "the update did not finish")
    story.say(f"every replica runs web:2, {took:.1f} s after the command")
    story.show("service", "ps", "web")


def leader_of(lab: Lab, asked: Node) -> Node:
    """The node that leads now. Raises LabError when none does."""
    for row in _rows(lab, asked, "node", "ls"):
        if row["ManagerStatus"] == "Leader":
            return lab.node(row["Hostname"])
    raise LabError("no manager leads")


def main(argv: list[str]) -> int:
    """Bring the cluster up, play the story; the cluster stays, unless told otherwise."""
    parser = argparse.ArgumentParser(prog="demo", description=main.__doc__)
    parser.add_argument("--remove", action="store_true", help="take the cluster down at the end")
    remove = parser.parse_args(argv).remove
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f}s] {line}", flush=True)

    try:
        print("=== Three managers and two workers, each with its own Docker Engine", flush=True)
        lab = labs.up(NAME, tell)
        story = Story(lab, began)
        story.show("node", "ls")
        play(lab, story)
        if remove:
            labs.down(NAME, tell)
        else:
            print(_NEXT.format(name=NAME))
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        left = any(lab.name == NAME for lab in layout.everyone())
        rest = f"; `swarmpy lab down --name {NAME}` removes the cluster" if left else ""
        print(f"demo: interrupted{rest}", file=sys.stderr)
        return 130
    return 0


_NEXT = """
=== The cluster is yours now
  .venv/bin/swarmpy lab exec --name {name} m1 -- swarmpy service scale web=10
  .venv/bin/swarmpy lab exec --name {name} m1 -- swarmpy service logs web
  .venv/bin/swarmpy lab partition --name {name} m3          then: node ls, and  lab heal --name {name}
  eval $(.venv/bin/swarmpy lab env --name {name} m1)        then: .venv/bin/swarmpy node ls
  DOCKER_HOST=$SWARMPY_HOST docker service ls              any Docker client works
Remove all of it:
  .venv/bin/swarmpy lab down --name {name}"""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
