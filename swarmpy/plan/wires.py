"""What the creation of containers needs to know of the networks that a node carries, by their tables.

What belongs here: which name servers there are, and whether there is IPv6. What does not: what is made of it
(container.py), links (fabric.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from swarmpy.model.fabric import Table
from swarmpy.plan.container import Wire
from swarmpy.plan.share import served_at


def wires_of(tables: Mapping[str, Table], node_id: str) -> dict[str, Wire]:
    """Of the node's networks, by id. Tasks have their addresses before a node is chosen: on one without IPv6
    they do without it in the ingress network."""
    return {
        key: Wire(table.name, table.internal, table.ingress, served_at(table), ipv6=_six(table, node_id))
        for key, table in tables.items()
    }


def _six(table: Table, node_id: str) -> bool:
    own = (one.addresses for one in table.nodes if one.id == node_id)
    return not table.ingress or any(":" in address for addresses in own for address in addresses)
