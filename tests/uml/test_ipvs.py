"""IPVS on a kernel that has it: the contract of ports.Balancer, what is IPVS's own, and services over a lossy
underlay. One boot for all."""

from __future__ import annotations

import inspect
import sys
from xml.etree import ElementTree

import pytest

from tests.contracts import test_balancer
from tests.uml import ipvs_cases, loss_cases, machine, sctp_cases

pytestmark = [pytest.mark.uml, pytest.mark.timeout(600)]

MODULES = (
    "ip_vs", "ip_vs_rr", "vxlan", "sch_netem", "ipv6", "bridge", "veth", "sctp", "nf_conntrack_netlink", "iptable_mangle", "iptable_nat",
    "iptable_filter", "ip6table_mangle", "ip6table_nat", "ip6table_filter", "xt_mark", "xt_conntrack", "xt_REDIRECT",
    "ipt_REJECT", "ip6t_REJECT",
)  # fmt: skip
CASES = {
    f"tests/{module.__name__.removeprefix('tests.').replace('.', '/')}.py::{name}"
    for module in (test_balancer, ipvs_cases, loss_cases, sctp_cases)
    for name, case in vars(module).items()
    if name.startswith("test_") and "balancer" in inspect.signature(case).parameters
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[str]]:
    """What each case came to, by name; a case with several parameters has several."""
    done = machine.run(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-q", "--tb=short", "-rP", "--durations=10",
         "-o", "timeout=200", "--junitxml=/run/out/junit.xml", *sorted(CASES, reverse=True)],
        modules=MODULES, environment={"SWARMPY_BALANCER": "ipvs"}, deadline=560,
    )  # fmt: skip
    print(done.output)
    assert "junit.xml" in done.files, done.output
    found: dict[str, list[str]] = {}
    for case in ElementTree.fromstring(done.files["junit.xml"]).iter("testcase"):
        where = case.attrib["classname"].replace(".", "/")
        bad = [one for one in case if one.tag in ("failure", "error", "skipped")]
        text = "\n".join(f"{one.tag}: {one.attrib.get('message', '')}\n{one.text or ''}" for one in bad)
        found.setdefault(f"{where}.py::{case.attrib['name'].partition('[')[0]}", []).append(text)
    return found


def test_all_were_run_and_nothing_else(outcomes: dict[str, list[str]]) -> None:
    assert outcomes.keys() == CASES
    assert len(CASES) > 20


@pytest.mark.parametrize("case", sorted(CASES))
def test_on_a_kernel_with_ipvs(outcomes: dict[str, list[str]], case: str) -> None:
    failures = [text for text in outcomes[case] if text]
    assert not failures, "\n\n".join(failures)
