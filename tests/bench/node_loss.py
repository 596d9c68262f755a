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

SERVICE, PORT, PATIENCE = "node-loss", 18080, 1.0


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


def measure(name: str, rate: float, seconds: float, victim: str, through: str) -> None:
    exports = dict(line.removeprefix("export ").split("=", 1) for line in
                   swarmpy("lab", "env", "--name", name, through).splitlines() if "=" in line)  # fmt: skip
    address = exports["NODE_ADDR"].strip("'\"")
    inside = ("lab", "exec", "--name", name)
    manager = (*inside, "m1", "--", "swarmpy", "service")
    swarmpy(
        *manager, "create", "--name", SERVICE, "--mode", "global", "-p", f"{PORT}:80", "registry:5000/web:1"
    )
    try:
        command = [sys.executable, "-m", "swarmpy", *inside, "c1", "--", sys.executable, __file__, "--client", address,
                   "--rate", str(rate), "--seconds", str(seconds), name]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
            assert asking.stdout is not None
            asking.stdout.readline()
            time.sleep(seconds / 3)
            killed = time.time()
            swarmpy("lab", "kill", "--name", name, victim, "--what", "node")
            over = time.time()
            found = json.loads(asking.stdout.read())
    finally:
        swarmpy("lab", "start", "--name", name, victim, "--what", "node")
        swarmpy(*manager, "rm", SERVICE)
    print(f"{len(found)} requests at {rate:g}/s through {through}; {victim} killed at "
          f"{time.strftime('%H:%M:%S', time.localtime(killed))}{f'{killed % 1:.2f}'[1:]} (the command took {over - killed:.2f} s)")  # fmt: skip
    failed = Counter((int(4 * (at - killed)), why) for at, why in found if why)
    print(f"{failed.total()} failed; by the quarter of a second in which they began, after the kill did:")
    for (quarter, why), count in sorted(failed.items()):
        print(f"  {quarter / 4:+.2f} s  {count:3}  {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description="requests while a machine dies")
    parser.add_argument("name")
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--node", default="w2")
    parser.add_argument("--through", default="m1")
    parser.add_argument("--client", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client(options.client, options.rate, options.seconds)
    else:
        measure(options.name, options.rate, options.seconds, options.node, options.through)


if __name__ == "__main__":
    main()
