"""`swarmpy lab ...`: the words for the terminal.

What belongs here: arguments, progress lines, exit statuses. What does not: doing anything (lab.py).
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from swarmpy.cli.usage import Parser
from swarmpy.lab import lab as labs
from swarmpy.lab import layout, network, nodes
from swarmpy.lab.errors import LabError

_EPILOG = """\
A lab is a whole cluster on this machine. Every node is a set of namespaces with its own Docker Engine and its
own swarmpy daemon: managers m1.., workers w1.., a registry r1 (registry:5000, and registry:5001 with a
password), and an outside client c1. Images that every node has: busybox, sleeper, web:1, web:2.
On an emulated machine, SWARMPY_LAB_PATIENCE=10 waits ten times longer for everything.
"""


def main(argv: list[str]) -> int:
    """Run one lab command; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.verb is None:
        parser.error("the following arguments are required: VERB")
    verb: Callable[[argparse.Namespace], int] = args.verb
    try:
        return verb(args)
    except LabError as error:
        print(f"swarmpy lab: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(
            f"swarmpy lab: {error.filename} is closed to you: labs belong to root; "
            "run the same command with sudo",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("swarmpy lab: interrupted", file=sys.stderr)
        return 130


def _parser() -> Parser:
    parser = Parser(
        prog="swarmpy lab",
        description="Whole clusters on this machine, for trying things out and for tests.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=None)  # required, but a wrong flag before it is what is to be said first
    verbs = parser.add_subparsers(metavar="VERB")

    def add(name: str, verb: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.add_argument("--name", default=layout.DEFAULT_NAME, help="which lab (default: %(default)s)")
        sub.set_defaults(verb=verb)
        return sub

    up = add("up", _up, "make a lab; returns when every node is Ready")
    up.add_argument("--managers", type=int, default=3, metavar="N", help="default: %(default)s")
    up.add_argument("--workers", type=int, default=2, metavar="N", help="default: %(default)s")
    up.add_argument("--no-cluster", action="store_true", help="engines only, without swarmpy")
    up.add_argument(
        "--host-link", action="store_true", help="let this machine reach the nodes' addresses too"
    )
    up.add_argument(
        "--balancer", choices=layout.BALANCERS, default="auto",
        help="what balances services' connections (default: %(default)s, see swarmpy daemon --help)",
    )  # fmt: skip
    add("down", _down, "remove a lab and everything it made")
    add("status", _status, "what of a lab runs")
    execute = add("exec", _exec, "run a command inside a node: exec NODE -- CMD...")
    execute.add_argument("node", metavar="NODE")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    env = add("env", _env, "print shell exports to talk to a node: eval $(swarmpy lab env m1)")
    env.add_argument("node", metavar="NODE")
    for name, verb, text in (
        ("kill", _kill, "kill -9 a node, or one program on it"),
        ("start", _start, "start a killed node, or one program on it"),
    ):
        sub = add(name, verb, text)
        sub.add_argument("node", metavar="NODE")
        sub.add_argument(
            "--what", choices=("node", *nodes.PROGRAMS), default="node", help="default: %(default)s"
        )
    cut = add("partition", _partition, "cut nodes off from others")
    cut.add_argument("nodes", nargs="+", metavar="NODE")
    cut.add_argument(
        "--from",
        dest="others",
        nargs="+",
        default=[],
        metavar="NODE",
        help="from whom (default: all other managers and workers)",
    )
    cut.add_argument("--one-way", action="store_true", help="lose only what the first named send")
    add("heal", _heal, "undo all partitions")
    return parser


def _teller() -> Callable[[str], None]:
    began = time.monotonic()
    lock = threading.Lock()

    def tell(line: str) -> None:
        with lock:
            print(f"[{time.monotonic() - began:5.1f}s] {line}", file=sys.stderr, flush=True)

    return tell


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _up(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    lab = labs.up(
        args.name,
        _teller(),
        managers=args.managers,
        workers=args.workers,
        with_cluster=not args.no_cluster,
        host_link=args.host_link,
        balancer=args.balancer,
    )
    flag = "" if lab.name == layout.DEFAULT_NAME else f" --name {lab.name}"
    print(f"lab {lab.name} is up. Try:")
    if lab.cluster:
        print(f"  swarmpy lab exec{flag} m1 -- swarmpy node ls")
    print(f"  swarmpy lab status{flag}")
    print(f"  swarmpy lab down{flag}")
    return 0


def _down(args: argparse.Namespace) -> int:
    labs.down(args.name, _teller())
    return 0


def _status(args: argparse.Namespace) -> int:
    lab = layout.load(args.name)
    columns = ("node", "role", "address", "state", "engine", "daemon")
    print("".join(f"{column.upper():<14}" for column in columns).rstrip())
    for row in labs.status(lab):
        print("".join(f"{row[column]:<14}" for column in columns).rstrip())
    for near, far in network.cuts(lab):
        print(f"cut: {near} -> {far}")
    return 0


def _exec(args: argparse.Namespace) -> int:
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise LabError("say what to run: swarmpy lab exec NODE -- CMD...")
    lab = layout.load(args.name)
    line = labs.command_in(lab, lab.node(args.node), words)
    sys.stdout.flush()
    os.execvpe(line[0], line, nodes.environment())  # noqa: S606 - terminal and signals reach the command


def _env(args: argparse.Namespace) -> int:
    lab = layout.load(args.name)
    for key, value in labs.exports(lab, lab.node(args.node)).items():
        print(f"export {key}={shlex.quote(value)}")
    return 0


def _kill(args: argparse.Namespace) -> int:
    lab = layout.load(args.name)
    labs.kill(lab, lab.node(args.node), args.what)
    return 0


def _start(args: argparse.Namespace) -> int:
    lab = layout.load(args.name)
    labs.start(lab, lab.node(args.node), args.what)
    return 0


def _partition(args: argparse.Namespace) -> int:
    lab = layout.load(args.name)
    for near, far in labs.partition(lab, args.nodes, args.others, one_way=args.one_way):
        print(f"cut: {near} -> {far}")
    return 0


def _heal(args: argparse.Namespace) -> int:
    labs.heal(layout.load(args.name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
