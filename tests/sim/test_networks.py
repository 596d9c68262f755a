"""Networks in the whole cluster: the oracle really asks, and what the campaign found stays mended."""

from __future__ import annotations

import pytest

from swarmpy.sim.cluster import Cluster
from swarmpy.sim.nemesis import REGISTRY
from swarmpy.sim.runs import first_violation, quiet_logs

FABRIC = sorted(name for name, one in REGISTRY.items() if one.group == "fabric")


def test_requests_are_asked_and_answered() -> None:
    cluster = Cluster(6, workers=2, duration=30.0, faults=[])
    with quiet_logs():
        outcome = cluster.run()
    assert outcome.violation is None, outcome.violation
    assert cluster.oracle.asked > 50
    assert cluster.oracle.asked_six > 10
    assert cluster.nets.looks > 50
    assert cluster.nets.late > 3


def test_all_that_befalls_networks_together_is_survived() -> None:
    broken = first_violation("cluster", range(3), faults=FABRIC)
    assert broken is None, f"seed {broken.seed}: {broken.violation}"


@pytest.mark.parametrize(
    ("seed", "faults"),
    [
        (3, ["kernel-refuses"]),  # a mesh whose last change was refused stayed for ever
        (590, ["drift"]),  # a busy node never looked at what others did to its links
    ],
)
def test_found_and_mended(seed: int, faults: list[str]) -> None:
    broken = first_violation("cluster", [seed], faults=faults)
    assert broken is None, str(broken.violation)
