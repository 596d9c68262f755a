"""The table of `swarmpy service`. What the verbs do is in `service`, `service_create`, `service_update`.

The flags of create and update are in `service_flags`.
"""

from __future__ import annotations

from swarmpy.cli.node_table import FILTERS, FORMAT, INSPECT, PS, QUIET_IDS
from swarmpy.cli.service_flags import DETACH, QUIET, create_flags, update_flags
from swarmpy.cli.tables import Flag, Noun, Verb
from swarmpy.cli.values import STRING, SWITCH

LOGS = (
    Flag("details", SWITCH, "Show extra details provided to logs"),
    Flag("follow", SWITCH, "Follow log output", short="f"),
    Flag("no-resolve", SWITCH, "Do not map IDs to Names in output"),
    Flag("no-task-ids", SWITCH, "Do not include task IDs in output"),
    Flag("no-trunc", SWITCH, "Do not truncate output"),
    Flag("raw", SWITCH, "Do not neatly format logs"),
    Flag(
        "since",
        STRING,
        'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)',
    ),
    Flag("tail", STRING, "Number of lines to show from the end of the logs", short="n", default="all"),
    Flag("timestamps", SWITCH, "Show timestamps", short="t"),
)

NOUN = Noun(
    "service",
    "Manage services",
    (
        Verb(
            "create",
            "Create a new service",
            "swarmpy.cli.service_create:create",
            args="IMAGE [COMMAND] [ARG...]",
            count=(1, -1),
            flags=create_flags(),
            options_first=True,
        ),
        Verb(
            "inspect",
            "Display detailed information on one or more services",
            "swarmpy.cli.service:inspect",
            args="SERVICE [SERVICE...]",
            count=(1, -1),
            flags=INSPECT,
            subject="service",
        ),
        Verb(
            "logs",
            "Fetch the logs of a service or task",
            "swarmpy.cli.logs:logs",
            args="SERVICE|TASK",
            count=(1, 1),
            flags=LOGS,
            subject="service",
        ),
        Verb(
            "ls",
            "List services",
            "swarmpy.cli.service:ls",
            aliases=("list",),
            flags=(FILTERS, FORMAT, QUIET_IDS),
        ),
        Verb(
            "ps",
            "List the tasks of one or more services",
            "swarmpy.cli.service:ps",
            args="SERVICE [SERVICE...]",
            count=(1, -1),
            flags=PS,
            subject="service",
        ),
        Verb(
            "rm",
            "Remove one or more services",
            "swarmpy.cli.service:remove",
            aliases=("remove",),
            args="SERVICE [SERVICE...]",
            count=(1, -1),
            subject="service",
        ),
        Verb(
            "rollback",
            "Revert changes to a service's configuration",
            "swarmpy.cli.service:rollback",
            args="SERVICE",
            count=(1, 1),
            flags=(DETACH, QUIET),
            subject="service",
        ),
        Verb(
            "scale",
            "Scale one or multiple replicated services",
            "swarmpy.cli.service:scale",
            args="SERVICE=REPLICAS [SERVICE=REPLICAS...]",
            count=(1, -1),
            flags=(DETACH,),
            subject="service",
        ),
        Verb(
            "update",
            "Update a service",
            "swarmpy.cli.service_update:update",
            args="SERVICE",
            count=(1, 1),
            flags=update_flags(),
            subject="service",
        ),
    ),
)
