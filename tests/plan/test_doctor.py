"""The doctor's judgement: every kind of trouble is a sentence about the right node, and health is silent."""

from __future__ import annotations

from msgspec.structs import replace

from swarmpy.model.examination import Crossing, Finding, Mended, NodeReport, Path, Wrong
from swarmpy.model.fabric import digest
from swarmpy.model.lifecycle import NodeState
from swarmpy.plan import doctor, tables
from swarmpy.plan.doctor import Case
from swarmpy.plan.explain import explain
from swarmpy.state.changes import Delete, Put
from swarmpy.state.snapshot import Snapshot
from tests.plan.test_fabric import ME, OTHER, endpoint, mesh, table
from tests.plan.worlds import Stage, node, spec

NETWORK = "network-front"
ALL = ("node-a", "node-b", "node-c")


class Ward:
    """Three nodes with a service on a network; `case` is the healthy one but for what a test changes."""

    def __init__(self) -> None:
        self.stage = Stage(*(node(one) for one in "abc"))
        self.stage.network("front")
        self.stage.create(spec("web", 3, template={"Networks": [{"Target": NETWORK}]}))
        self.stage.agents()
        for number, name in enumerate("abc", 1):
            old = self.world.nodes[f"node-{name}"]
            status = replace(old.status, address=f"192.0.2.{number}")
            self.stage.put(Put(replace(old, status=status)))

    @property
    def world(self) -> Snapshot:
        return self.stage.world

    def report(self, node_id: str, **fields: object) -> NodeReport:
        digests = {NETWORK: digest(tables.table(self.world, self.world.networks[NETWORK]))}
        return NodeReport(node_id=node_id, **{"digests": digests, **fields})  # type: ignore[arg-type]

    def findings(self, *reports: NodeReport, silent: tuple[str, ...] = (), after: Snapshot | None = None,
                 asked: tuple[str, ...] = (NETWORK,)) -> tuple[Finding, ...]:  # fmt: skip
        known = {one: self.report(one) for one in ALL if one not in silent}
        known |= {one.node_id: one for one in reports}
        return doctor.findings(Case(self.world, after or self.world, asked, known, silent))


def test_a_published_port_that_the_nodes_need_is_told() -> None:
    ward = Ward()
    stage = ward.stage
    stage.ingress()
    stage.create(spec("api", EndpointSpec={"Ports": [{"TargetPort": 80, "PublishedPort": 2400}]}))
    ingress = ward.world.ingress_network()
    assert ingress is not None
    asked = (ingress.id,)

    def told() -> list[Finding]:
        reports = [ward.report(one, digests={ingress.id: digest(tables.table(ward.world, ingress))})
                   for one in ALL]  # fmt: skip
        return [one for one in ward.findings(*reports, asked=asked) if "port 2400" in one.what]

    assert told() == []
    stage.put(Put(replace(ward.world.nodes["node-a"], manager_address="192.0.2.1:2400")))
    what = "port 2400/tcp of service api is published on no node where the managers of this cluster use it"
    assert only(tuple(told())) == Finding(
        doctor.PROBLEM, "all nodes", "ingress", what, "publish the service at another port"
    )
    assert explain(ward.world, "api").notes == (
        "port 2400/tcp is published on no node where the managers of this cluster use it: publish another one",
    )


def only(found: tuple[Finding, ...]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def crossings(*pairs: tuple[str, str], small: bool = False) -> list[NodeReport]:
    ward = Ward()
    by_node: dict[str, list[Crossing]] = {}
    for one, other in pairs:
        by_node.setdefault(f"node-{one}", []).append(
            Crossing(NETWORK, f"node-{other}", "10.0.1.9", small, False)
        )
    return [ward.report(key, crossings=tuple(ways)) for key, ways in by_node.items()]


def test_health_is_silent() -> None:
    assert Ward().findings() == ()


def test_everybody_who_carries_a_network_is_a_patient() -> None:
    ward = Ward()
    assert doctor.patients(ward.world, [NETWORK], all_nodes=False) == ALL
    ward.stage.network("empty")
    assert doctor.patients(ward.world, ["network-empty"], all_nodes=False) == ()
    assert doctor.patients(ward.world, [], all_nodes=True) == ALL


def test_a_node_that_does_not_answer_is_named_and_so_is_who_does_not_hear_it_either() -> None:
    ward = Ward()
    found = only(ward.findings(silent=("node-c",)))
    assert (found.kind, found.node) == ("problem", "c")
    assert "it did not answer (the leader knows it as ready)" in found.what
    found = ward.findings(ward.report("node-a", lost=("192.0.2.3",)), silent=("node-c",))[0]
    assert "does not hear c" in found.what
    found = ward.findings(ward.report("node-a", lost=("192.0.2.3",)), silent=("node-c",))[1]
    assert found.what.endswith("nor do a hear it")
    ward.stage.set_node("c", state=NodeState.DOWN)
    assert only(ward.findings(silent=("node-c",))).kind == "note"


def test_a_table_that_is_not_the_leaders_is_a_problem_unless_it_is_changing() -> None:
    ward = Ward()
    old = ward.report("node-b")
    before = ward.world
    stale = ward.report("node-b", digests={NETWORK: "0123456789abcdef"})
    found = only(ward.findings(stale))
    assert (found.kind, found.node, found.network) == ("problem", "b", "front")
    assert "its table is 0123456789abcdef" in found.what
    missing = only(ward.findings(ward.report("node-b", digests={})))
    assert (missing.kind, missing.what) == ("problem", "it has no table of it")
    # While it changes, the table of before counts, and any other one is only a note.
    ward.stage.create(spec("more", 1, template={"Networks": [{"Target": NETWORK}]}))
    ward.stage.agents()
    known = {one: ward.report(one) for one in ALL} | {"node-b": old}
    assert doctor.findings(Case(before, ward.world, (NETWORK,), known, ())) == ()
    known["node-b"] = stale
    assert only(doctor.findings(Case(before, ward.world, (NETWORK,), known, ()))).kind == "note"


def test_a_network_that_goes_meanwhile_is_no_problem() -> None:
    ward = Ward()
    before, known = ward.world, {one: ward.report(one) for one in ALL}
    ward.stage.put(Delete("network", NETWORK))
    assert doctor.findings(Case(before, ward.world, (NETWORK,), known, ())) == ()


def test_what_a_node_says_itself_is_passed_on_for_the_networks_that_were_asked_for() -> None:
    ward = Ward()
    report = ward.report(
        "node-a",
        wrong=(Wrong(NETWORK, "its name server is silent"), Wrong("", "no port"), Wrong("other", "x")),
        mended=(Mended(NETWORK, "links were damaged", 1.4), Mended(NETWORK, "links were damaged", 90.0)),
    )
    found = ward.findings(report)
    assert [(one.kind, one.node, one.network, one.what) for one in found] == [
        ("problem", "a", "", "no port"),
        ("problem", "a", "front", "its name server is silent"),
        ("mended", "a", "front", "links were damaged; mended 1 s ago"),
    ]


def test_paths_that_are_narrow_or_blocked_say_which_port_or_size() -> None:
    ward = Ward()
    narrow = only(ward.findings(ward.report("node-a", paths=(Path("192.0.2.2", 1472, True, False),))))
    assert "to b: the path to 192.0.2.2 does not pass packets of 1500 bytes" in narrow.what
    blocked = only(ward.findings(ward.report("node-a", paths=(Path("192.0.2.2", 1472, False, False),))))
    assert "b (192.0.2.2) does not answer its probes" in blocked.what
    assert "UDP port 7946" in blocked.help
    # Who did not answer at all, or is known as lost, is not told of twice.
    silent = ward.findings(
        ward.report("node-a", paths=(Path("192.0.2.3", 1472, False, False),)), silent=("node-c",)
    )
    assert [one.node for one in silent] == ["c"]


def test_a_node_in_the_middle_of_all_blocked_ways_is_named_alone() -> None:
    ward = Ward()
    found = only(ward.findings(*crossings(("a", "c"), ("b", "c"), ("c", "a"), ("c", "b"))))
    assert (found.kind, found.node, found.network) == ("problem", "c", "front")
    assert "nothing passes between it and any other node" in found.what
    assert "UDP port 4789" in found.help


def test_a_single_blocked_way_is_told_as_it_is() -> None:
    found = only(Ward().findings(*crossings(("a", "c"))))
    assert (found.node, found.what) == ("a", "it does not reach c through the network")


def test_where_nobody_reaches_anybody_it_is_said_once() -> None:
    every = [(one, other) for one in "abc" for other in "abc" if one != other]
    found = only(Ward().findings(*crossings(*every)))
    assert (found.node, found.what) == ("all nodes", "no node reaches another one through the network")


def test_ways_that_pass_small_packets_only_are_told_apart() -> None:
    found = only(Ward().findings(*crossings(("a", "b"), small=True)))
    assert found.what == "its large packets do not reach b, small ones do"
    assert "driver.mtu" in found.help


def test_ways_to_nodes_that_did_not_answer_are_not_told_again() -> None:
    found = Ward().findings(*crossings(("a", "c")), silent=("node-c",))
    assert [one.node for one in found] == ["c"]


def test_stations_are_those_that_can_answer() -> None:
    here, there = endpoint(1), endpoint(2, OTHER)
    mine, others = doctor.stations(table(here, there, endpoint(3, OTHER)), ME)
    assert mine is not None
    assert mine.address == "10.0.1.1"
    assert {key: one.address for key, one in others.items()} == {OTHER: "10.0.1.2"}
    assert doctor.stations(table(there), ME)[0] is None
    assert doctor.stations(table(here, endpoint(2, OTHER, serving=False)), ME)[1] == {}
    mine, others = doctor.stations(mesh(), ME)
    assert (mine and mine.address, list(others)) == ("10.0.0.2", [OTHER])
