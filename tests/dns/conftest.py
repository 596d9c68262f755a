"""A name server of ours with a table, on an address of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmpy.adapters.dns import NameServers
from swarmpy.adapters.dns.upstream import Upstream
from swarmpy.model.links import Answer
from tests.dns.servers import OWN, PORT, Table, address


@pytest.fixture
def table() -> Table:
    return Table(
        web=Answer(addresses=("10.0.1.2",)),
        many=Answer(addresses=tuple(f"10.0.2.{number}" for number in range(1, 9))),
        gone=Answer(refused=True),
        **{"probe.test": Answer(addresses=("10.9.9.9",))},
    )


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    return tmp_path / "resolv.conf"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(port=PORT, deadline=4.0, stagger=0.2)


@pytest.fixture
async def names(table: Table, resolv_conf: Path, upstream: Upstream) -> AsyncIterator[NameServers]:
    names = NameServers(table, resolv_conf=resolv_conf, port=PORT, upstream=upstream)
    yield names
    await names.stop()


@pytest.fixture
async def server(names: NameServers) -> str:
    where = address()
    await names.serve("net1", OWN, [where])
    return where
