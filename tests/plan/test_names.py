"""Names as Docker answers them, and those that it has not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmpy.model.fabric import Endpoint, ServiceEntry, Table
from swarmpy.model.links import Answer, Question
from swarmpy.plan.names import TTL, Resolver


def endpoint(
    key: str, slot: int, address: str, service: str = "s", *, serving: bool = True, **rest
) -> Endpoint:
    return Endpoint(
        id=key, name=f"web.{slot}.{key}", service_id=service, slot=str(slot), node_id="n", vtep="192.0.2.1",
        mac="02:00:00:00:00:01", addresses=(address, f"fd00::{slot}"), serving=serving, **rest,
    )  # fmt: skip


FRONT = Table(
    id="front", name="Front", vni=4097, mtu=1450, subnets=("10.0.1.0/24",), gateways=("10.0.1.1/24",),
    endpoints=(endpoint("t1", 1, "10.0.1.3", hostname="One"), endpoint("t2", 2, "10.0.1.4"),
               endpoint("t3", 3, "10.0.1.5", serving=False), endpoint("c1", 1, "10.0.1.9", "d")),
    services=(ServiceEntry(id="d", name="db"),
              ServiceEntry(id="s", name="web", aliases=("www",), vips=("10.0.1.2",))),
)  # fmt: skip
BACK = replace(
    FRONT, id="back", name="back", internal=True, endpoints=(endpoint("t1", 1, "10.0.2.3"),),
    services=(ServiceEntry(id="s", name="web", vips=("10.0.2.2",)), ServiceEntry(id="x", name="only", vips=())),
)  # fmt: skip
RESOLVER = Resolver({"front": FRONT, "back": BACK}, {"t2": ("9.9.9.9",)})


def ask(name: str, kind: str = "A", client: str = "10.0.1.4", network: str = "front") -> Answer:
    return RESOLVER.answer(Question(network, client, name, kind))


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web", ("10.0.1.2",)),
        ("www", ("10.0.1.2",)),
        ("tasks.web", ("10.0.1.3", "10.0.1.4")),
        ("tasks.www", ("10.0.1.3", "10.0.1.4")),
        ("db", ("10.0.1.9",)),
        ("web.3.t3", ("10.0.1.5",)),
        ("one", ("10.0.1.3",)),
        ("1.web", ("10.0.1.3",)),
        ("web.front", ("10.0.1.2",)),
        ("tasks.web.front", ("10.0.1.3", "10.0.1.4")),
    ],
)
def test_names(name: str, addresses: tuple[str, ...]) -> None:
    assert ask(name) == Answer(addresses=addresses, ttl=TTL)


def test_a_service_is_found_over_each_version_that_its_network_has():
    entry = ServiceEntry(id="s", name="web", vips=("10.0.1.2", "fd00::99"))
    both = Resolver({"front": replace(FRONT, services=(entry,))}, {})

    def found(name: str, kind: str) -> Answer:
        return both.answer(Question("front", "10.0.1.4", name, kind))

    assert found("web", "A").addresses == ("10.0.1.2",)
    assert found("web", "AAAA").addresses == ("fd00::99",)
    assert (
        found("9.9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "PTR").name
        == "web.Front"
    )


def test_a_known_name_without_such_an_address_is_empty_and_an_unknown_one_is_asked_of_others():
    assert ask("web", "AAAA") == Answer(ttl=TTL)
    assert ask("tasks.web", "AAAA").addresses == ("fd00::1", "fd00::2")
    assert ask("web", "TXT") == Answer(ttl=TTL)
    assert ask("nope") == Answer(forward=True, upstream=("9.9.9.9",))
    assert ask("only") == Answer(forward=True, upstream=("9.9.9.9",))


def test_a_client_sees_the_names_of_all_its_networks_and_no_others():
    assert ask("only", client="10.0.1.3") == Answer(ttl=TTL)
    assert ask("web.back", client="10.0.1.3").addresses == ("10.0.2.2",)
    assert ask("web.back", client="10.0.1.4").forward


def test_without_a_way_out_an_unknown_name_does_not_exist():
    assert ask("nope", client="10.0.2.99", network="back") == Answer(refused=True)
    assert ask("web", network="gone").refused


def test_reverse():
    assert ask("3.1.0.10.in-addr.arpa", "PTR") == Answer(name="web.1.t1.Front", ttl=TTL)
    assert ask("2.1.0.10.in-addr.arpa", "PTR") == Answer(name="web.Front", ttl=TTL)
    assert ask("8.8.8.8.in-addr.arpa", "PTR").forward
    assert ask("x.8.8.8.in-addr.arpa", "PTR").forward
    digits = ".".join("2" + "0" * 27 + "00df")
    assert ask(f"{digits}.ip6.arpa", "PTR") == Answer(name="web.2.t2.Front", ttl=TTL)
