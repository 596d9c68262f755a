"""The table of `swarmpy network`. What the verbs do is in `network`."""

from __future__ import annotations

from swarmpy.cli.node_table import FILTERS, FORMAT
from swarmpy.cli.tables import Flag, Noun, Verb
from swarmpy.cli.values import FILTER, INT, LABELS, LIST, MAP, STRING, STRINGS, SWITCH, choice

_CREATE = (
    Flag("attachable", SWITCH, "Enable manual container attachment"),
    Flag("aux-address", MAP, "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
    Flag("config-from", STRING, "The network from which to copy the configuration"),
    Flag("config-only", SWITCH, "Create a configuration only network"),
    Flag(
        "driver",
        choice("bridge", "ipvlan", "macvlan", "overlay"),
        'Driver to manage the Network: "overlay" spans the cluster, others are of this node',
        short="d",
        default="bridge",
    ),
    Flag("gateway", STRINGS, "IPv4 or IPv6 Gateway for the master subnet"),
    Flag("ingress", SWITCH, "Create swarm routing-mesh network"),
    Flag("internal", SWITCH, "Restrict external access to the network"),
    Flag("ip-range", STRINGS, "Allocate container ip from a sub-range"),
    Flag("ipam-driver", STRING, "IP Address Management Driver", default="default"),
    Flag("ipam-opt", MAP, "Set IPAM driver specific options"),
    Flag("ipv4", SWITCH, "Enable or disable IPv4 address assignment", default="true"),
    Flag("ipv6", SWITCH, "Enable or disable IPv6 address assignment"),
    Flag("label", LABELS, "Set metadata on a network"),
    Flag("opt", MAP, "Set driver specific options", short="o"),
    Flag("scope", STRING, "Control the network's scope"),
    Flag("subnet", STRINGS, "Subnet in CIDR format that represents a network segment"),
)
_CONNECT = (
    Flag("alias", STRINGS, "Add network-scoped alias for the container"),
    Flag("driver-opt", STRINGS, "driver options for the network"),
    Flag("gw-priority", INT, "Highest gw-priority provides the default gateway"),
    Flag("ip", STRING, 'IPv4 address (e.g., "172.30.100.104")'),
    Flag("ip6", STRING, 'IPv6 address (e.g., "2001:db8::33")'),
    Flag("link", LIST, "Add link to another container"),
    Flag("link-local-ip", STRINGS, "Add a link-local address for the container"),
)

NOUN = Noun(
    "network",
    "Manage networks",
    (
        Verb(
            "create",
            "Create a network",
            "swarmpy.cli.network:create",
            args="NETWORK",
            count=(1, 1),
            flags=_CREATE,
        ),
        Verb(
            "ls",
            "List networks",
            "swarmpy.cli.network:ls",
            aliases=("list",),
            flags=(
                FILTERS,
                FORMAT,
                Flag("no-trunc", SWITCH, "Do not truncate the output"),
                Flag("quiet", SWITCH, "Only display network IDs", short="q"),
            ),
        ),
        Verb(
            "inspect",
            "Display detailed information on one or more networks",
            "swarmpy.cli.network:inspect",
            args="NETWORK [NETWORK...]",
            count=(1, -1),
            subject="network",
            flags=(
                Flag("format", STRING, "Format output: 'json', or a Go template", short="f"),
                Flag("verbose", SWITCH, "Verbose output for diagnostics", short="v"),
            ),
        ),
        Verb(
            "rm",
            "Remove one or more networks",
            "swarmpy.cli.network:remove",
            aliases=("remove",),
            args="NETWORK [NETWORK...]",
            count=(1, -1),
            subject="network",
            flags=(Flag("force", SWITCH, "Do not error if the network does not exist", short="f"),),
        ),
        Verb(
            "prune",
            "Remove all unused networks",
            "swarmpy.cli.network:prune",
            flags=(
                Flag("filter", FILTER, 'Provide filter values (e.g. "until=<timestamp>")'),
                Flag("force", SWITCH, "Do not prompt for confirmation", short="f"),
            ),
        ),
        Verb(
            "connect",
            "Connect a container of this node to a network",
            "swarmpy.cli.network:connect",
            args="NETWORK CONTAINER",
            count=(2, 2),
            subject="network",
            flags=_CONNECT,
        ),
        Verb(
            "disconnect",
            "Disconnect a container of this node from a network",
            "swarmpy.cli.network:disconnect",
            args="NETWORK CONTAINER",
            count=(2, 2),
            subject="network",
            flags=(Flag("force", SWITCH, "Force the container to disconnect from a network", short="f"),),
        ),
    ),
)
