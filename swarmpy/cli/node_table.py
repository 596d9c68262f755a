"""The table of `swarmpy node`. What the verbs do is in `node`."""

from __future__ import annotations

from swarmpy.cli.tables import Flag, Noun, Verb
from swarmpy.cli.values import FILTER, LABELS, LIST, STRING, SWITCH, choice

FILTERS = Flag("filter", FILTER, "Filter output based on conditions provided (KEY=VALUE)", short="f")
QUIET_IDS = Flag("quiet", SWITCH, "Only display IDs", short="q")
FORMAT = Flag("format", STRING, "Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
INSPECT = (
    Flag("format", STRING, "Format output: 'json', or a Go template", short="f"),
    Flag("pretty", SWITCH, "Print the information in a human friendly format"),
)
PS = (
    FILTERS,
    Flag("format", STRING, "Pretty-print tasks: 'table', 'table TEMPLATE', 'json', or a Go template"),
    Flag("no-resolve", SWITCH, "Do not map IDs to Names"),
    Flag("no-trunc", SWITCH, "Do not truncate output"),
    Flag("quiet", SWITCH, "Only display task IDs", short="q"),
)

NOUN = Noun(
    "node",
    "Manage the cluster's nodes",
    (
        Verb(
            "ls",
            "List nodes in the swarm",
            "swarmpy.cli.node:ls",
            aliases=("list",),
            flags=(FILTERS, FORMAT, QUIET_IDS),
        ),
        Verb(
            "inspect",
            "Display detailed information on one or more nodes",
            "swarmpy.cli.node:inspect",
            args="self|NODE [NODE...]",
            count=(1, -1),
            flags=INSPECT,
            subject="node",
        ),
        Verb(
            "ps",
            "List tasks running on one or more nodes, defaults to current node",
            "swarmpy.cli.node:ps",
            args="[NODE...]",
            count=(0, -1),
            flags=PS,
            subject="node",
        ),
        Verb(
            "update",
            "Update a node",
            "swarmpy.cli.node:update",
            args="NODE",
            count=(1, 1),
            subject="node",
            flags=(
                Flag(
                    "availability",
                    choice("active", "pause", "drain"),
                    'Availability of the node ("active", "pause", "drain")',
                ),
                Flag("role", choice("worker", "manager"), 'Role of the node ("worker", "manager")'),
                Flag("label-add", LABELS, "Add or update a node label (key=value)"),
                Flag("label-rm", LIST, "Remove a node label if exists"),
            ),
        ),
        Verb(
            "promote",
            "Promote one or more nodes to manager in the swarm",
            "swarmpy.cli.node:promote",
            args="NODE [NODE...]",
            count=(1, -1),
            subject="node",
        ),
        Verb(
            "demote",
            "Demote one or more nodes from manager in the swarm",
            "swarmpy.cli.node:demote",
            args="NODE [NODE...]",
            count=(1, -1),
            subject="node",
        ),
        Verb(
            "rm",
            "Remove one or more nodes from the swarm",
            "swarmpy.cli.node:remove",
            aliases=("remove",),
            args="NODE [NODE...]",
            count=(1, -1),
            subject="node",
            flags=(Flag("force", SWITCH, "Force remove a node from the swarm", short="f"),),
        ),
    ),
)
