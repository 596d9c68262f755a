"""The rule sets of the routing mesh, as text of nft commands. Pure.

What belongs here: the host's rules and those of the ingress namespace. What does not: containers (render.py).

The host sends what comes for a published port over a pair of links into the ingress namespace; from there it
goes on to a backend, with the client's address. Only a connection of the host itself gets another one: the
host's end of the pair has the same address on all nodes, so it leaves as the node's own ingress address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarmpy.adapters.nftables.render import KEEP_TRACKING, LINK, MARK, checked, turned
from swarmpy.ports import FabricError, MeshPort, MeshTable

NAME = "swarmpy_mesh"
TABLE = f"inet {NAME}"
HOST_MAPS = ("pub", "pubat", "pubat6")
MAPS = ("pub",)
OUTER, INNER = "gwi", "gw0"
"""The pair of links: the host's end, and the ingress namespace's."""
_SNAT = MARK
"""Mark of connections that are made to come from the node (numbers of nodes begin at 1)."""
PROTOCOLS = ("tcp", "udp", "sctp")
Host = tuple[str, int, str]
SHUT = "shut"
"""The chain by which a host whose IPv6 forwarding we switched on is known."""
_SHUT_RULES = (
    f" chain {SHUT} {{ type filter hook forward priority 0; meta nfproto != ipv6 accept;"
    f' iifname "{OUTER}" accept; oifname "{OUTER}" accept;'
    # frames that a bridge passes on were never the host's to forward, but may come by here
    ' meta iifkind "bridge" meta oifkind "bridge" accept; drop; }'
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Addresses of the pair of links; those of IPv6 are "" where nothing is published over it."""

    outer: str
    inner: str
    outer6: str = ""
    inner6: str = ""


# ---------------------------------------------------------------- the host


def host_whole(hosts: Iterable[Host], pair: Pair, *, shut: bool = False) -> str:
    """All of the host's rules, instead of what is there. `shut`: the host forwarded nothing over IPv6 before
    it had to for the mesh, and forwards nothing else now.

    Link-local addresses mean something on one link only: nothing that comes to or from them could go on."""
    local = "meta nfproto ipv4 fib daddr type local goto pick"
    if pair.inner6:
        local += "; ip6 saddr != fe80::/10 ip6 daddr != fe80::/10 fib daddr type local goto pick"
    six = f" meta nfproto ipv6 dnat ip6 to {pair.inner6};" if pair.inner6 else ""
    return "\n".join([
        f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{",
        " map pub { type inet_proto . inet_service : verdict; }",
        " map pubat { type ipv4_addr . inet_proto . inet_service : verdict; }",
        " map pubat6 { type ipv6_addr . inet_proto . inet_service : verdict; }",
        f" chain enter {{ meta nfproto ipv4 dnat ip to {pair.inner};{six} }}",
        " chain pick { meta l4proto . th dport vmap @pub;"
        " ip daddr . meta l4proto . th dport vmap @pubat;"
        " ip6 daddr . meta l4proto . th dport vmap @pubat6; }",
        f" chain pre {{ type nat hook prerouting priority -110; {local}; }}",
        f" chain out {{ type nat hook output priority -110; {local}; }}",
        " chain post { type nat hook postrouting priority 90;"
        f' oifname "{OUTER}" fib saddr type local masquerade; {KEEP_TRACKING}; }}',
        *([_SHUT_RULES] if shut else []),
        "}", *_host_elements("add", hosts), "",
    ])  # fmt: skip


def host_change(hosts: Iterable[Host], known: Iterable[Host] | None) -> str:
    """From the ports that are known to be there (None: unknown ones) to these."""
    wanted = set(hosts)
    if known is None:
        lines = [*(f"flush map {TABLE} {one}" for one in HOST_MAPS), *_host_elements("add", wanted)]
    else:
        there = set(known)
        lines = [*_host_elements("delete", there - wanted), *_host_elements("add", wanted - there)]
    return "\n".join([*lines, ""])


def _host_elements(verb: str, hosts: Iterable[Host]) -> list[str]:
    found: dict[str, list[str]] = {one: [] for one in HOST_MAPS}
    for protocol, port, address in sorted(set(hosts)):
        key = f"{_protocol(protocol)} . {port:d} : goto enter"
        if address:
            found["pubat6" if ":" in address else "pubat"].append(f"{checked(address)} . {key}")
        else:
            found["pub"].append(key)
    return [f"{verb} element {TABLE} {one} {{ {', '.join(entries)} }}"
            for one, entries in found.items() if entries]  # fmt: skip


# ---------------------------------------------------------------- the ingress namespace


def chain_of(port: MeshPort) -> str:
    """Name of a port's chain. Raises FabricError."""
    return f"{_protocol(port.protocol)}_{port.published:d}"


def _protocol(name: str) -> str:
    if name not in PROTOCOLS:
        raise FabricError(f"the protocol {name!r} cannot be published: only {', '.join(PROTOCOLS)} can")
    return name


def is_port(chain: str) -> bool:
    """Whether the chain is one of a port."""
    return chain.partition("_")[0] in PROTOCOLS


def whole(table: MeshTable, pair: Pair, bridge: str) -> str:
    """All rules of the ingress namespace, instead of what is there."""
    lines = [
        f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{",
        " map pub { type inet_proto . inet_service : verdict; }",
        " chain pre { type nat hook prerouting priority -100;"
        f' iifname "{INNER}" meta l4proto . th dport vmap @pub; {KEEP_TRACKING}; }}',
        " chain forth { type filter hook forward priority 0; }",
        " chain post { type nat hook postrouting priority 100; }",
        "}",
    ]  # fmt: skip
    lines += _fixed(table, pair, bridge)
    for port in table.ports:
        lines += _port(port, table)
    return "\n".join([*lines, *_elements("add", map(chain_of, table.ports)), ""])


def change(
    table: MeshTable, pair: Pair, bridge: str, known: Mapping[str, MeshPort | None], *, fixed: bool
) -> str:
    """From the ports that are known to be there, by chain (None: unknown what they are), to the table's.
    `fixed`: the rules that belong to no port are written anew too."""
    wanted = {chain_of(port): port for port in table.ports}
    gone = [chain for chain in known if chain not in wanted]
    lines = _elements("delete", gone)
    for chain in gone:
        lines += [f"flush chain {TABLE} {chain}", f"delete chain {TABLE} {chain}"]
    for chain, port in wanted.items():
        if known.get(chain) != port:
            lines += _port(port, table, anew=chain in known)
    lines += _elements("add", (chain for chain in wanted if chain not in known))
    if fixed:
        lines += [f"flush chain {TABLE} {chain}" for chain in ("forth", "post")] + _fixed(table, pair, bridge)
    return "\n".join([*lines, ""])


def _fixed(table: MeshTable, pair: Pair, bridge: str) -> list[str]:
    """Containers of the ingress network may answer through this node, but not use it as their way out. A
    node's links may carry larger packets than the ingress network: connections are told when they begin."""
    rules = [
        f'forth iifname != "{INNER}" ct state new drop',
        "forth tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
    ]
    own = next((address for address in table.addresses if ":" not in address), "")
    if own:
        out = f'post oifname "{checked(bridge, LINK)}"'
        rules += [f"{out} ip saddr {pair.outer} snat ip to {checked(own)}",
                  f"{out} ct mark {_SNAT:#x} meta nfproto ipv4 snat ip to {own}"]  # fmt: skip
    own6 = next((address for address in table.addresses if ":" in address), "")
    if own6 and pair.outer6:
        out = f'post oifname "{checked(bridge, LINK)}"'
        rules += [f"{out} ip6 saddr {pair.outer6} snat ip6 to {checked(own6)}",
                  f"{out} ct mark {_SNAT:#x} meta nfproto ipv6 snat ip6 to {own6}"]  # fmt: skip
    return [f"add rule {TABLE} {rule}" for rule in rules]


def _port(port: MeshPort, table: MeshTable, *, anew: bool = False) -> list[str]:
    """A port without backends has no rule: the namespace itself refuses, as nobody listens there."""
    chain = chain_of(port)
    rules: list[str] = []
    for family in ("ip", "ip6"):
        mine = [checked(one) for one in port.backends if (":" in one) == (family == "ip6")]
        backends = turned(mine, f"{table.addresses} {chain}")
        only = "meta nfproto ipv4" if family == "ip" else "meta nfproto ipv6"
        if backends and port.snat:
            rules.append(f"{only} ct mark set {_SNAT:#x}")
        rules += [f"{only} {rule}" for rule in _in_turn(port, family, backends)]
    first = f"flush chain {TABLE} {chain}" if anew else f"add chain {TABLE} {chain}"
    return [first, *(f"add rule {TABLE} {chain} {rule}" for rule in rules)]


def _in_turn(port: MeshPort, family: str, backends: Sequence[str]) -> list[str]:
    """As render.in_turn, with the port."""
    if not backends:
        return []
    protocol = f"meta l4proto {port.protocol}"
    first = backends[0] if family == "ip" else f"[{backends[0]}]"
    rules = [f"{protocol} dnat {family} to {first}:{port.target:d}"]
    if len(backends) > 1:
        slots = ", ".join(f"{slot} : {one} . {port.target:d}" for slot, one in enumerate(backends))
        rules.insert(0, f"{protocol} dnat {family} to numgen inc mod {len(backends)} map {{ {slots} }}")
    return rules


def _elements(verb: str, chains: Iterable[str]) -> list[str]:
    entries = [f"{chain.replace('_', ' . ')} : goto {chain}" for chain in chains]
    return [f"{verb} element {TABLE} pub {{ {', '.join(entries)} }}"] if entries else []
