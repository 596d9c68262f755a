"""The agent's network planner: it comes to rest, repairs drift, and keeps its order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as with_

from swarmpy.model.fabric import (
    Endpoint,
    IngressNode,
    PublishedPort,
    ServiceEntry,
    Table,
    difference,
    patched,
)
from swarmpy.model.links import LinkSeen, Plug, SandboxTable, VirtualService
from swarmpy.plan import fabric as p
from swarmpy.plan import guarding, share
from swarmpy.plan.carried import finished, forwarded

ME, OTHER = "node-a", "node-b"


def endpoint(number: int, node: str = ME, *, serving: bool = True, service: str = "s") -> Endpoint:
    return Endpoint(
        id=f"t{number}", name=f"web.{number}.t{number}", service_id=service, slot=str(number), node_id=node,
        vtep="192.0.2.1" if node == ME else "192.0.2.2", mac=f"02:00:00:00:00:{number:02x}",
        addresses=(f"10.0.1.{number}",), serving=serving,
    )  # fmt: skip


def table(*endpoints: Endpoint, **rest) -> Table:
    base = Table(
        id="n1", name="front", vni=4097, mtu=1450, subnets=("10.0.1.0/24",), gateways=("10.0.1.1/24",),
        endpoints=endpoints, services=(ServiceEntry(id="s", name="web", vips=("10.0.1.100",)),),
    )  # fmt: skip
    return with_(base, **rest)


def mesh(*endpoints: Endpoint, source: str = "preserve") -> Table:
    nodes = tuple(
        IngressNode(id=node, number=number, vtep=vtep, mac=f"02:00:00:00:01:0{number}", addresses=(f"10.0.0.{number}",))
        for node, number, vtep in ((ME, 2, "192.0.2.1"), (OTHER, 3, "192.0.2.2"))
    )  # fmt: skip
    port = PublishedPort(service_id="s", protocol="tcp", published=8080, target=80, source=source)
    moved = tuple(with_(one, addresses=(one.addresses[0].replace("10.0.1", "10.0.0"),)) for one in endpoints)
    return table(*moved, id="ingress", name="ingress", ingress=True, nodes=nodes, ports=(port,),
                 subnets=("10.0.0.0/24",), gateways=("10.0.0.1/24",))  # fmt: skip


class Kernel:
    """Carries actions out as the real ones do."""

    def __init__(self, *tables: Table, sandboxes: dict[str, str] | None = None) -> None:
        self.world = p.World(
            ME,
            "192.0.2.1",
            {one.id: one for one in tables},
            links={},
            sandboxes=sandboxes or {},
            complete=True,
        )

    def run(self) -> list[p.Action]:
        done: list[p.Action] = []
        while actions := p.plan(self.world):
            for action in actions:
                self.do(action)
            done += actions
            assert len(done) < 1000, "never at rest"
        return done

    def do(self, action: p.Action) -> None:
        world, links = self.world, dict(self.world.links)
        match action:
            case guarding.Guard(wanted):
                self.world = replace(world, fenced=replace(world.fenced, guard=wanted, guard_left=False))
            case guarding.Cipher(wanted):
                self.world = replace(world, fenced=replace(world.fenced, cipher=wanted, cipher_left=False))
            case p.Ensure(link):
                old = links.get(link.network_id) or LinkSeen(link.network_id, None)
                links[link.network_id] = replace(old, link=link)
            case p.Forward(network_id, add, remove):
                known = dict(links[network_id].neighbours)
                for one in remove:
                    assert known.pop(one.mac) == one
                known.update({one.mac: one for one in add})
                links[network_id] = replace(links[network_id], neighbours=known)
            case p.Unplug(network_id, endpoint_id):
                plugs = {key: one for key, one in links[network_id].plugs.items() if key != endpoint_id}
                links[network_id] = replace(links[network_id], plugs=plugs)
            case p.Drop(network_id):
                del links[network_id]
            case p.Balance(path, wanted, before):
                assert world.programmed.get(path) == before
                self.world = replace(world, programmed={**world.programmed, path: wanted})
            case p.Mesh(wanted, before):
                assert world.mesh == before
                self.world = replace(world, mesh=wanted)
            case p.Serve(network_id, addresses):
                served = {key: one for key, one in world.served.items() if key != network_id}
                self.world = replace(world, served=served | ({network_id: addresses} if addresses else {}))
        self.world = replace(self.world, links=links)


def test_from_nothing_to_rest_in_order():
    kernel = Kernel(table(endpoint(2), endpoint(3, OTHER)), mesh(endpoint(2)), sandboxes={"t2": "/ns/t2"})
    kinds = [type(action).__name__ for action in kernel.run()]
    assert kinds.index("Guard") < kinds.index("Ensure")
    assert kinds.index("Ensure") < kinds.index("Forward") < kinds.index("Balance")
    assert kernel.world.programmed["/ns/t2"] == SandboxTable(
        services=(
            VirtualService("10.0.1.100", ("10.0.0.2",)),
            VirtualService("10.0.1.100", ("10.0.1.2", "10.0.1.3")),
        ),
        ingress_address="10.0.0.2",
        returns=kernel.world.programmed["/ns/t2"].returns,
    )
    assert [one.number for one in kernel.world.programmed["/ns/t2"].returns] == [2, 3]
    assert kernel.world.served == {"n1": ("10.0.1.1",)}
    assert kernel.world.links["ingress"].link.gateways == ("10.0.0.2/24",)
    assert kernel.world.links["ingress"].link.bridge_mac == "02:00:00:00:01:02"


def test_a_backend_leaves_the_balancers_before_its_forwarding_goes():
    kernel = Kernel(table(endpoint(2), endpoint(3, OTHER)), sandboxes={"t2": "/ns/t2"})
    kernel.run()
    kernel.world = replace(kernel.world, tables={"n1": table(endpoint(2))})
    assert [type(action).__name__ for action in kernel.run()] == ["Balance", "Forward"]


def test_a_namespace_whose_name_was_removed_is_left_before_another_is_made():
    """What listens in it would keep it alive, and with it the VXLAN device whose number the next one needs."""
    kernel = Kernel(table(endpoint(2), endpoint(3, OTHER)), sandboxes={"t2": "/ns/t2"})
    kernel.run()
    # Or it was made anew already, and could not be finished for that very reason.
    for found in ({}, {"n1": LinkSeen("n1", None)}):
        kernel.world = replace(kernel.world, links=found)
        done = kernel.run()
        assert [type(one).__name__ for one in done] == ["Serve", "Ensure", "Forward", "Serve"]
        assert (done[0].addresses, done[3].addresses) == ((), ("10.0.1.1",))


def test_an_entry_that_is_not_as_it_should_be_goes_before_it_comes():
    """A kernel adds to what it has: an address too many, or a second VTEP, stays until it is removed."""
    kernel = Kernel(table(endpoint(2), endpoint(3, OTHER)), sandboxes={"t2": "/ns/t2"})
    kernel.run()
    links = kernel.world.links
    [(mac, right)] = links["n1"].neighbours.items()
    wrong = replace(right, vtep=right.vtep + ",10.9.9.9", addresses=(*right.addresses, "10.0.1.99"))
    kernel.world = replace(kernel.world, links={"n1": replace(links["n1"], neighbours={mac: wrong})})
    assert kernel.run() == [p.Forward("n1", add=(right,), remove=(wrong,))]


def test_an_address_that_is_given_to_another_goes_before_it_comes():
    """The kernel keeps entries by address: taking away the old holder's after the new one's was set took the
    new one's, and nobody reached it until the next look at the links."""
    old = endpoint(3, OTHER)
    new = with_(endpoint(4, OTHER), addresses=old.addresses)
    kernel = Kernel(table(endpoint(2), old), sandboxes={"t2": "/ns/t2"})
    kernel.run()
    kernel.world = replace(kernel.world, tables={"n1": table(endpoint(2), new)})
    [before], [after] = share.neighbours(table(old), ME), share.neighbours(table(new), ME)
    assert kernel.run() == [p.Forward("n1", add=(after,), remove=(before,))]


def test_drift_is_repaired_and_strangers_ports_are_swept():
    kernel = Kernel(table(endpoint(2), endpoint(3, OTHER)), sandboxes={"t2": "/ns/t2"})
    kernel.run()
    links = kernel.world.links
    plug = Plug("e1", "n1", "02:00:00:00:00:02", 1450, "t2")
    broken = replace(links["n1"], neighbours={}, plugs={"e1": plug, "e2": replace(plug, endpoint_id="e2")})
    kernel.world = replace(kernel.world, links={"n1": broken, "old": LinkSeen("old", None)}, programmed={},
                           endpoints=frozenset({"e1"}))  # fmt: skip
    kernel.run()
    assert kernel.world.links["n1"].neighbours
    assert set(kernel.world.links["n1"].plugs) == {"e1"}
    assert "old" not in kernel.world.links
    assert kernel.world.programmed


def test_nothing_is_swept_before_the_leader_told_everything():
    kernel = Kernel()
    kernel.world = replace(kernel.world, links={"n1": LinkSeen("n1", None)}, complete=False)
    assert kernel.run() == []


def test_what_was_carried_out_is_known_without_another_look():
    kernel = Kernel(table(endpoint(2), endpoint(3, OTHER)), sandboxes={"t2": "/ns/t2"})
    assert finished(kernel.world) == frozenset()
    kernel.run()
    assert finished(kernel.world) == {"/ns/t2"}
    seen = kernel.world.links["n1"]
    (old,) = seen.neighbours.values()
    new = replace(old, mac="02:00:00:00:00:09")
    after = forwarded(seen, p.Forward("n1", add=(new,), remove=(old,)))
    assert after.neighbours == {new.mac: new}


def test_the_mesh_spares_what_the_node_itself_listens_on():
    ports = tuple(
        PublishedPort(service_id="s", protocol=protocol, published=number, target=80)
        for protocol in ("tcp", "udp") for number in (2377, 4789, 4790, 7946, 8080)
    )  # fmt: skip
    published = with_(mesh(endpoint(2)), ports=ports)
    for listening, spared in (({2377}, {("tcp", 2377)}), (set(), set())):
        found = share.mesh_of(published, ME, frozenset(listening))
        spared |= {("udp", 4789), ("udp", 4790), ("udp", 7946)}
        wanted = {(one.protocol, one.published) for one in ports} - spared
        assert {(one.protocol, one.published) for one in found.ports} == wanted
        assert {one[:2] for one in found.hosts} == wanted


def test_a_mesh_that_took_the_managers_port_gives_it_back():
    kernel = Kernel(mesh(endpoint(2)))
    kernel.run()
    assert [one.published for one in kernel.world.mesh.ports] == [8080]
    kernel.world = replace(kernel.world, listening=frozenset({8080}))
    kernel.run()
    assert kernel.world.mesh.ports == kernel.world.mesh.hosts == ()


def test_local_ports_and_snat():
    here, there = endpoint(2), endpoint(3, OTHER)
    local = share.mesh_of(mesh(here, there, source="local"), ME)
    assert local.ports[0].backends == ("10.0.0.2",)
    snat = share.mesh_of(mesh(here, there, source="snat"), ME)
    assert (snat.ports[0].backends, snat.ports[0].snat) == (("10.0.0.2", "10.0.0.3"), True)
    assert share.mesh_of(mesh(here, there), "stranger") is None


def dual(found: Table, *without: str) -> Table:
    """The mesh with IPv6 beside IPv4, but for the nodes that are named."""

    def more(one):
        own = one.id if isinstance(one, IngressNode) else one.node_id
        return with_(
            one, addresses=one.addresses if own in without else (*one.addresses, f"fd00::{one.addresses[0]}")
        )

    return with_(found, nodes=tuple(map(more, found.nodes)), endpoints=tuple(map(more, found.endpoints)),
                 subnets=("10.0.0.0/24", "fd00::/64"))  # fmt: skip


def test_the_mesh_over_ipv6():
    found = dual(mesh(endpoint(2), endpoint(3, OTHER)))
    made = share.mesh_of(found, ME)
    assert made.addresses == ("10.0.0.2", "fd00::10.0.0.2")
    assert made.ports[0].backends == ("10.0.0.2", "10.0.0.3", "fd00::10.0.0.2", "fd00::10.0.0.3")
    assert share.link_of(found, ME, "192.0.2.1").gateways == ("10.0.0.2/24", "fd00::10.0.0.2/64")
    sandbox = share.Sandboxes({"ingress": found}).table("t2")
    assert (sandbox.ingress_address, sandbox.ingress_address6) == ("10.0.0.2", "fd00::10.0.0.2")
    assert [(one.address, one.address6) for one in sandbox.returns] == [
        ("10.0.0.2", "fd00::10.0.0.2"), ("10.0.0.3", "fd00::10.0.0.3"),
    ]  # fmt: skip
    local = share.mesh_of(dual(mesh(endpoint(2), endpoint(3, OTHER), source="local")), ME)
    assert local.ports[0].backends == ("10.0.0.2", "fd00::10.0.0.2")


def test_a_node_without_ipv6_takes_part_over_ipv4():
    found = dual(mesh(endpoint(2), endpoint(3, OTHER)), ME)
    assert share.mesh_of(found, ME).ports[0].backends == ("10.0.0.2", "10.0.0.3")
    assert share.mesh_of(found, OTHER).ports[0].backends == ("10.0.0.2", "10.0.0.3", "fd00::10.0.0.3")
    mine, theirs = (share.Sandboxes({"ingress": found}).table(task) for task in ("t2", "t3"))
    assert (mine.ingress_address6, {one.address6 for one in mine.returns}) == ("", {""})
    assert [one.address6 for one in theirs.returns] == ["", "fd00::10.0.0.3"]


endpoints = st.lists(
    st.builds(endpoint, st.integers(2, 20), st.sampled_from([ME, OTHER]), serving=st.booleans()),
    unique_by=lambda one: one.id, max_size=8,
).map(lambda found: tuple(sorted(found, key=lambda one: one.id)))  # fmt: skip


@given(before=endpoints, after=endpoints)
@settings(max_examples=60, deadline=None)
def test_any_change_comes_to_rest_and_tables_travel_as_differences(before, after):
    sandboxes = {one.id: f"/ns/{one.id}" for one in (*before, *after) if one.node_id == ME}
    kernel = Kernel(table(*before), mesh(*before), sandboxes=sandboxes)
    kernel.run()
    old, new = table(*before), table(*after, mtu=1400)
    assert patched(old, difference(old, new)) == new
    assert patched(None, difference(None, new)) == new
    kernel.world = replace(kernel.world, tables={"n1": new, "ingress": mesh(*after)})
    kernel.run()
    wanted = {one.mac: one for one in share.neighbours(new, ME)}
    assert kernel.world.links["n1"].neighbours == wanted
