"""IPVS of the thread's namespace.

What belongs here: reading it, telling it what to do, its settings. What does not: what there is to do
(steps.py).

Raw generic netlink, many commands in one message: pyroute2 takes 1 to 6 ms for each. /proc/net/ip_vs would
tell everything in one text, but leaves services out where other namespaces have some too: the kernel counts
theirs when it goes on after 4 kB, and does not when it finds its place again.
"""

from __future__ import annotations

import errno
import ipaddress
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from swarmpy.adapters.ipvs.steps import EMPTY, MARK, MASK, Server, Service, Step, Verb, ours, six
from swarmpy.adapters.nftables import netlink, routes
from swarmpy.adapters.nftables.netlink import (
    ACK,
    CREATE,
    EXCL,
    REPLACE,
    REQUEST,
    Message,
    Netlink,
    attribute,
    attributes,
    name,
    nested,
    text,
)
from swarmpy.ports import FabricError

_GENERIC = 16
_CONTROL, _GET_FAMILY = 16, struct.pack("=BBH", 3, 1, 0)
_NEW_LINK, _NEW_ROUTE, _DELETE_ROUTE = 16, 24, 25
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_PRIORITY = 20_001
_GET_SERVICE, _GET_SERVERS, _SET_CONFIG, _GET_CONFIG = 4, 8, 12, 13
_HASHED, _METHODS = 0x2, 0x7
_TABLE = Path("/proc/thread-self/net/ip_vs")
TIMEOUTS = (432_000, 120, 300)
"""Seconds until a silent connection is forgotten: open TCP as the kernel's own tracking does (IPVS's 15
minutes break idle connections), TCP that is closing, datagrams."""
SETTINGS = {
    "conntrack": "1",  # the container's own rules (its name server's) track connections: they must agree
    "conn_reuse_mode": "1",  # who comes from a port used before is balanced anew, not sent to the old server
    "expire_nodest_conn": "1",  # datagrams to a server that went are balanced anew, not dropped
    "expire_quiescent_template": "1",
    "run_estimation": "0",  # nobody reads rates, and they cost a timer per service
}
_OPTIONAL = ("run_estimation",)  # kernels before 5.13 always estimate


def load() -> None:
    """Load what the kernel needs. Raises FabricError where it has no IPVS."""
    with suppress(FabricError):
        _family()  # the kernel loads it by itself when it is asked for: this process may not be allowed to
    program = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program and not _TABLE.exists():
        subprocess.run([program, "-a", "ip_vs", "ip_vs_rr"], capture_output=True, check=False)
    if not _TABLE.exists():
        raise FabricError(
            "the kernel has no IPVS (its modules ip_vs and ip_vs_rr are not there and could not be loaded); "
            "use --balancer nftables, or a kernel with CONFIG_IP_VS"
        )
    _family()


def is_loaded() -> bool:
    """Whether the kernel has IPVS at hand; asking it anything else would load it."""
    return _TABLE.exists()


@cache
def _family() -> int:
    with Netlink(_GENERIC) as kernel:
        answer = kernel.get(_CONTROL, _GET_FAMILY + text(2, "IPVS"), missing=(errno.ENOENT,))
    if answer is None:
        raise FabricError("the kernel has no IPVS")
    return int(struct.unpack_from("=H", attributes(answer[4:])[1])[0])


def services() -> dict[int, Service]:
    """Services of ours by mark. Raises FabricError."""
    found = {}
    with Netlink(_GENERIC) as kernel:
        for answer in kernel.ask(_family(), struct.pack("=BBH", _GET_SERVICE, 1, 0)):
            mark, right = service_of(answer.body)
            if ours(mark):
                found[mark] = Service(dict(_servers(kernel, mark)), right)
    return found


def _servers(kernel: Netlink, mark: int) -> Iterator[tuple[str, Server]]:
    asked = struct.pack("=BBH", _GET_SERVERS, 1, 0) + _service(mark)
    for answer in kernel.ask(_family(), asked):
        yield server_of(answer.body, six(mark))


def service_of(body: bytes) -> tuple[int, bool]:
    """(mark, whether it takes its servers in turn and does nothing else) out of the kernel's answer."""
    parts = attributes(attributes(body[4:])[1])
    flags = int(struct.unpack_from("=I", parts[7])[0]) & ~_HASHED
    return _value(parts.get(5)), name(parts[6]) == "rr" and not flags


def server_of(body: bytes, v6: bool) -> tuple[str, Server]:
    """(address, server) out of the kernel's answer."""
    parts = attributes(attributes(body[4:])[2])
    address = str(ipaddress.ip_address(parts[1] if v6 else parts[1][:4]))
    method = _value(parts[3]) & _METHODS
    return address, Server(_value(parts[4]), _value(parts[7]) + _value(parts[8]), right=not method)


def _value(payload: bytes | None) -> int:
    return int(struct.unpack("=I", payload)[0]) if payload else 0


def carry_out(steps: Iterable[Step]) -> int:
    """Tell the kernel, in this order; how many steps. Raises FabricError."""
    messages = [
        Message(_family(), REQUEST | ACK, struct.pack("=BBH", one.verb, 1, 0) + _body(one)) for one in steps
    ]
    if messages:
        with Netlink(_GENERIC) as kernel:
            kernel.tell(messages, "a change of IPVS's services")
    return len(messages)


def _service(mark: int) -> bytes:
    family = socket.AF_INET6 if six(mark) else socket.AF_INET
    return nested(1, attribute(1, struct.pack("=H", family)) + _number(5, mark))


def _body(step: Step) -> bytes:
    family, netmask = (10, 128) if six(step.mark) else (2, 0xFFFFFFFF)
    service = attribute(1, struct.pack("=H", family)) + _number(5, step.mark)
    if step.verb in (Verb.ADD_SERVICE, Verb.SET_SERVICE):
        service += text(6, "rr") + attribute(7, struct.pack("=II", 0, 0xFFFFFFFF))
        service += attribute(8, bytes(4)) + attribute(9, struct.pack("=I", netmask))
    body = nested(1, service)
    if step.server:
        packed = ipaddress.ip_address(step.server).packed
        server = attribute(1, packed + bytes(16 - len(packed))) + attribute(2, bytes(2))
        # translate the address; no limits
        server += attribute(3, bytes(4)) + attribute(4, struct.pack("=I", step.weight))
        body += nested(2, server + attribute(5, bytes(4)) + attribute(6, bytes(4)))
    return body


def set_ways() -> None:
    """Packets with a mark of ours are routed to this namespace itself. IPVS routes those anew that it sends
    elsewhere, and only those: without this, one for the namespace's own address would leave by the link to
    the virtual one. Raises FabricError."""
    messages = [
        Message(_NEW_LINK, 0, struct.pack("=BxHiII", 0, 0, 1, 1, 1))
    ]  # IPVS needs a loopback that is up
    for family in _families():
        # type 2 and scope 254: local to this host
        route = struct.pack("=8BI", family, 0, 0, 0, 0, 4, 254, 2, 0)
        messages.append(Message(_NEW_ROUTE, CREATE | REPLACE, route + _number(15, MARK) + _number(4, 1)))
        if _ways(family) != 1:
            messages += [Message(_NEW_RULE, CREATE | EXCL, _rule(family))]
    with Netlink(netlink.ROUTE) as kernel:
        kernel.tell(messages, "the way of packets to IPVS", fine=(errno.EEXIST,))


def has_ways() -> bool:
    """Whether rules and routes are there: the kernel drops routes where IPv6 is switched off and on."""
    return all(_ways(family) == 1 and routes.keeps_all(MARK, family) for family in _families())


def has_any_way() -> bool:
    """Whether any rule or route is there."""
    return any(_ways(family) or routes.keeps_all(MARK, family) for family in routes.families())


def _families() -> list[int]:
    """IP versions that the namespace speaks. The Engine switches IPv6 off in containers whose networks have
    none, and the kernel then refuses its routes; one that gets it later is mended when it is looked at."""
    off = routes.switch("ipv6/conf/lo/disable_ipv6") != "0"
    return [socket.AF_INET] if off else [socket.AF_INET, socket.AF_INET6]


def clear_ways() -> None:
    """They go."""
    families = [socket.AF_INET, *([socket.AF_INET6] if routes.switch("ipv6/conf/lo/disable_ipv6") else [])]
    messages = [Message(_DELETE_RULE, 0, _rule(one)) for one in families]
    for family in families:
        route = struct.pack("=8BI", family, 0, 0, 0, 0, 4, 254, 2, 0)
        messages.append(Message(_DELETE_ROUTE, 0, route + _number(15, MARK) + _number(4, 1)))
    with Netlink(netlink.ROUTE) as kernel:
        kernel.tell(messages, "removing the way of packets to IPVS", fine=(errno.ENOENT, errno.ESRCH))


def _rule(family: int) -> bytes:
    head = struct.pack("=8BI", family, 0, 0, 0, 0, 0, 0, 1, 0)
    return head + _number(6, _PRIORITY) + _number(10, MARK) + _number(16, MASK | EMPTY) + _number(15, MARK)


def _ways(family: int) -> int:
    """How many of the rules are ours."""
    with Netlink(netlink.ROUTE) as kernel:
        answers = kernel.ask(_GET_RULE, struct.pack("=B11x", family))
    wanted = attributes(_rule(family)[12:])
    held = (attributes(answer.body[12:]) for answer in answers)
    return sum(all(one.get(kind) == value for kind, value in wanted.items()) for one in held)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def set_up() -> None:
    """The namespace's settings and routes. Raises FabricError."""
    set_ways()
    for setting, value in SETTINGS.items():
        if setting not in _OPTIONAL or routes.switch(f"ipv4/vs/{setting}"):
            routes.set_switch(f"ipv4/vs/{setting}", value)
    if timeouts() != TIMEOUTS:
        body = b"".join(
            attribute(4 + number, struct.pack("=I", value)) for number, value in enumerate(TIMEOUTS)
        )
        with Netlink(_GENERIC) as kernel:
            told = Message(_family(), REQUEST | ACK, struct.pack("=BBH", _SET_CONFIG, 1, 0) + body)
            kernel.tell([told], "IPVS's timeouts")


def is_set_up() -> bool:
    """Whether the settings are as we make them."""
    for setting, value in SETTINGS.items():
        held = routes.switch(f"ipv4/vs/{setting}")
        if held != value and (held or setting not in _OPTIONAL):
            return False
    return timeouts() == TIMEOUTS and has_ways()


def timeouts() -> tuple[int, ...]:
    """Seconds, in the order of TIMEOUTS."""
    with Netlink(_GENERIC) as kernel:
        answer = kernel.get(_family(), struct.pack("=BBH", _GET_CONFIG, 1, 0)) or b""
    parts = attributes(answer[4:])
    return tuple(int(struct.unpack("=I", parts.get(kind, bytes(4)))[0]) for kind in (4, 5, 6))
