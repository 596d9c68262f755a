"""What clients notice when a machine dies: requests through the routing mesh of a living node, meanwhile.

python tests/bench/node_loss.py NAME [--rate 200] [--seconds 12] [--node w2] [--through m1]

needs a running lab with at least three nodes (`swarmpy lab up --name NAME --managers 1 --workers 3`; with two
workers there is just one witness besides the killed one). It makes a service with tasks on every node, asks it
at the rate from the client c1, kills the machine, and prints how many requests failed, and for how long. The
machine is started again and the service removed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SERVICE, PORT, PATIENCE = "node-loss", 18080, 1.0
Requests = list[tuple[float, str]]
"""When each began, and what went wrong with it ("": nothing)."""


def swarmpy(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "swarmpy", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"swarmpy {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


async def request(address: str) -> str:
    """One request on a connection of its own; "" for one that was answered in time, else why not."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(address, PORT)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            answered = (await reader.readline()).startswith(b"HTTP/1.")
            writer.close()
            return "" if answered else "no answer"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return type(error).__name__


async def ask(address: str, rate: float, seconds: float) -> list[tuple[float, str]]:
    """(when it began, what went wrong) of each request. The killer waits for the first line."""
    begun: list[tuple[float, asyncio.Task[str]]] = []
    start = time.monotonic()
    print("asking", flush=True)
    while (passed := time.monotonic() - start) < seconds:
        while len(begun) < passed * rate:
            begun.append((time.time(), asyncio.ensure_future(request(address))))
        await asyncio.sleep(0.5 / rate)
    return [(at, await task) for at, task in begun]


def client(address: str, rate: float, seconds: float) -> None:
    """What runs inside c1."""
    print(json.dumps(asyncio.run(ask(address, rate, seconds))))


@contextmanager
def asking(name: str, address: str, rate: float, seconds: float) -> Iterator[Callable[[], Requests]]:
    """Requests from the client c1, from now on; what is given waits for their end and tells of them."""
    command = [sys.executable, "-m", "swarmpy", "lab", "exec", "--name", name, "c1", "--", sys.executable, __file__,
               "--client", address, "--rate", str(rate), "--seconds", str(seconds), name]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield lambda: json.loads(process.stdout.read())


def address_of(name: str, node: str) -> str:
    exports = dict(line.removeprefix("export ").split("=", 1) for line in
                   swarmpy("lab", "env", "--name", name, node).splitlines() if "=" in line)  # fmt: skip
    return exports["NODE_ADDR"].strip("'\"")


def killed(
    name: str, rate: float, seconds: float, victim: str, through: str
) -> tuple[Requests, float, float]:
    """(requests, when the kill began, when it was over). The machine is started again."""
    manager = ("lab", "exec", "--name", name, "m1", "--", "swarmpy", "service")
    swarmpy(
        *manager, "create", "--name", SERVICE, "--mode", "global", "-p", f"{PORT}:80", "registry:5000/web:1"
    )
    try:
        with asking(name, address_of(name, through), rate, seconds) as told:
            time.sleep(seconds / 3)
            began = time.time()
            swarmpy("lab", "kill", "--name", name, victim, "--what", "node")
            over = time.time()
            return told(), began, over
    finally:
        swarmpy("lab", "start", "--name", name, victim, "--what", "node")
        swarmpy(*manager, "rm", SERVICE)


def measure(name: str, rate: float, seconds: float, victim: str, through: str, path: str | None) -> None:
    found, began, over = killed(name, rate, seconds, victim, through)
    print(f"{len(found)} requests at {rate:g}/s through {through}; {victim} killed at "
          f"{time.strftime('%H:%M:%S', time.localtime(began))}{f'{began % 1:.2f}'[1:]} (the command took {over - began:.2f} s)")  # fmt: skip
    failed = Counter((int(4 * (at - began)), why) for at, why in found if why)
    print(f"{failed.total()} failed; by the quarter of a second in which they began, after the kill did:")
    for (quarter, why), count in sorted(failed.items()):
        print(f"  {quarter / 4:+.2f} s  {count:3}  {why}")
    if path:
        figures = {
            "requests": len(found),
            "failed, s after the kill": [at - began for at, why in found if why],
        }
        Path(path).write_text(json.dumps(figures, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="requests while a machine dies")
    parser.add_argument("name")
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--node", default="w2")
    parser.add_argument("--through", default="m1")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--client", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client(options.client, options.rate, options.seconds)
    else:
        measure(options.name, options.rate, options.seconds, options.node, options.through, options.json)


if __name__ == "__main__":
    main()
