"""How many questions a second our name server answers on one core, beside others.

    python -m tests.bench.dns [--seconds 3] [--names 50] [--clients 20]

The servers: ours with answers remembered, ours when nothing is (each question decoded, resolved and rendered),
a server of a few lines on dnspython alone, and dnsmasq with the same names in a hosts file (if it is installed:
Debian's dnsmasq-base). Each runs as a process of its own. The load is dnsperf (Debian's package of that name),
or where that is missing a loop in this process, which is slower than the servers and so understates them.
Printed: answers per second of wall time, and per second of the server's CPU time: what one core gives when the
machine is shared with the load.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dns.message
import dns.rrset

from swarmpy.adapters.dns import Limits, NameServers
from swarmpy.model.links import Answer, Question

ADDRESS, PORT = "127.53.53.53", 5399
UNBOUNDED = Limits(rate=1e9, burst=1e9)


def addresses(names: int) -> dict[str, Answer]:
    """Services with four tasks each."""
    tasks = {n: tuple(f"10.{n >> 8}.{n & 255}.{task}" for task in range(1, 5)) for n in range(names)}
    return {f"service{n}": Answer(addresses=tasks[n]) for n in range(names)}


def ours(names: int, remember: bool) -> None:
    """Our server, until it is killed."""
    known = addresses(names)

    def resolve(question: Question) -> Answer:
        return known.get(question.name, Answer(refused=True))

    async def main() -> None:
        server = NameServers(resolve, port=PORT, limits=UNBOUNDED)
        await server.serve("n", "/proc/self/ns/net", [ADDRESS])
        if not remember:
            server._served["n"].zone.memory.keep = lambda key, answer: None  # type: ignore[method-assign]  # bench
        await asyncio.Event().wait()

    asyncio.run(main())


def remembered(names: int) -> None:
    ours(names, True)


def unremembered(names: int) -> None:
    ours(names, False)


def plain(names: int) -> None:
    """What a server on dnspython alone does."""
    known = addresses(names)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((ADDRESS, PORT))
        while True:
            packet, peer = udp.recvfrom(4096)
            query = dns.message.from_wire(packet)
            asked = query.question[0]
            reply = dns.message.make_response(query)
            found = known[asked.name.to_text(omit_final_dot=True).lower()]
            reply.answer.append(dns.rrset.from_text_list(asked.name, 600, "IN", "A", found.addresses))
            udp.sendto(reply.to_wire(), peer)


def dnsmasq(folder: str, names: int) -> None:
    """dnsmasq in the foreground, with a hosts file."""
    hosts = Path(folder) / "hosts"
    lines = [f"{text} {name}\n" for name, found in addresses(names).items() for text in found.addresses]
    hosts.write_text("".join(lines))
    command = ["dnsmasq", "--keep-in-foreground", "--no-hosts", f"--addn-hosts={hosts}", "--no-resolv"]
    command += [f"--listen-address={ADDRESS}", f"--port={PORT}", "--bind-interfaces", "--conf-file=/dev/null"]
    command += ["--pid-file", "--user=root", "--log-facility=-"]
    with (Path(folder) / "log").open("w") as log:
        os.dup2(log.fileno(), 2)
    os.execvp("dnsmasq", command)


def spent(pid: int) -> float:
    """Seconds of CPU time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def dnsperf(names: int, seconds: float, clients: int) -> float:
    """Answers per second."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.writelines(f"service{number} A\n" for number in range(names))
        file.flush()
        command = ["dnsperf", "-s", ADDRESS, "-p", str(PORT), "-d", file.name, "-l", str(seconds)]
        command += ["-c", str(clients), "-q", "100"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Queries per second:\s+([0-9.]+)", text)
    assert found, text
    return float(found.group(1))


def loop(names: int, seconds: float, clients: int) -> float:
    """Answers per second; `clients` questions are under way at a time."""
    queries = [dns.message.make_query(f"service{n}", "A").to_wire() for n in range(names)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((ADDRESS, PORT))
        udp.settimeout(1)
        for number in range(clients):
            udp.send(queries[number % names])
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            udp.recv(4096)
            count += 1
            udp.send(queries[count % names])
    return count / seconds


def ready() -> None:
    """Wait until the server answers."""
    query = dns.message.make_query("service0", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(0.1)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            udp.sendto(query, (ADDRESS, PORT))
            try:
                udp.recv(4096)
            except TimeoutError:
                continue
            return
    raise RuntimeError("the server does not answer")


def measure(server: Callable[[int], None], names: int, seconds: float, clients: int) -> tuple[float, float]:
    """(answers per second, answers per second of the server's CPU time)."""
    process = multiprocessing.get_context("fork").Process(target=server, args=(names,))
    process.start()
    assert process.pid is not None
    try:
        ready()
        load = dnsperf if shutil.which("dnsperf") else loop
        before = spent(process.pid)
        rate = load(names, seconds, clients)
        return rate, rate * seconds / max(spent(process.pid) - before, 0.001)
    finally:
        process.kill()
        process.join()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--names", type=int, default=50)
    options.add_argument("--clients", type=int, default=20)
    given = options.parse_args()
    servers: dict[str, Callable[[int], None]] = {
        "swarmpy, remembered": remembered,
        "swarmpy, not remembered": unremembered,
        "dnspython alone": plain,
    }
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("dnsmasq"):
            servers["dnsmasq"] = functools.partial(dnsmasq, folder)
        table(servers, given)


def table(servers: dict[str, Callable[[int], None]], given: argparse.Namespace) -> None:
    """Measure and print."""
    print(f"load: {'dnsperf' if shutil.which('dnsperf') else 'a loop in Python'}, {given.names} names\n")
    print(f"{'server':<26}{'answers/s':>12}{'answers/s of CPU':>18}")
    for name, server in servers.items():
        rate, core = measure(server, given.names, given.seconds, given.clients)
        print(f"{name:<26}{rate:>12,.0f}{core:>18,.0f}")


if __name__ == "__main__":
    main()
