"""The table of `swarmpy swarm`, whose first verbs are also reached as `swarmpy init`, `join` and so on.

What the verbs do is in `swarm`.
"""

from __future__ import annotations

from swarmpy.cli.tables import Flag, Noun, Verb
from swarmpy.cli.values import DURATION, INT, LIST, STRING, STRINGS, SWITCH, UINT, UINT32, choice

QUIET_TOKEN = Flag("quiet", SWITCH, "Only display token", short="q")
AVAILABILITY = Flag(
    "availability",
    choice("active", "pause", "drain"),
    'Availability of the node ("active", "pause", "drain")',
    default="active",
)
AUTOLOCK = Flag(
    "autolock", SWITCH, "Enable manager autolocking (requiring an unlock key to start a stopped manager)"
)
SPEC = (
    Flag(
        "cert-expiry",
        DURATION,
        "Validity period for node certificates (ns|us|ms|s|m|h)",
        default="2160h0m0s",
        field="CAConfig.NodeCertExpiry",
    ),
    Flag(
        "dispatcher-heartbeat",
        DURATION,
        "Dispatcher heartbeat period (ns|us|ms|s|m|h)",
        default="5s",
        field="Dispatcher.HeartbeatPeriod",
    ),
    Flag(
        "external-ca",
        LIST,
        "Specifications of one or more certificate signing endpoints",
        refused="certificates are signed by the cluster's own CA only",
    ),
    Flag(
        "max-snapshots",
        UINT,
        "Number of additional Raft snapshots to retain",
        default="0",
        field="Raft.KeepOldSnapshots",
        pointer=True,
    ),
    Flag(
        "snapshot-interval",
        UINT,
        "Number of log entries between Raft snapshots",
        default="10000",
        field="Raft.SnapshotInterval",
    ),
    Flag(
        "task-history-limit",
        INT,
        "Task history retention limit",
        default="5",
        field="Orchestration.TaskHistoryRetentionLimit",
        pointer=True,
    ),
)
ADDRESSES = (
    Flag("advertise-addr", STRING, 'Advertised address (format: "<ip|interface>[:port]")'),
    Flag(
        "data-path-addr",
        STRING,
        'Address or interface to use for data path traffic (format: "<ip|interface>")',
    ),
    Flag("listen-addr", STRING, 'Listen address (format: "<ip|interface>[:port]")', default="0.0.0.0:2377"),
)
LATER = "swarmpy.cli.swarm:later"

NOUN = Noun(
    "swarm",
    "Manage the cluster (Docker's words)",
    (
        Verb(
            "init",
            "Initialize a swarm",
            "swarmpy.cli.swarm:init",
            flags=(
                *ADDRESSES,
                *SPEC,
                AUTOLOCK,
                AVAILABILITY,
                Flag(
                    "data-path-port",
                    UINT32,
                    "Port number to use for data path traffic (1024 - 49151). If no value is "
                    "set or is set to 0, the default port (4789) is used.",
                ),
                Flag("default-addr-pool", LIST, "default address pool in CIDR format"),
                Flag(
                    "default-addr-pool-mask-length",
                    UINT32,
                    "default address pool subnet mask length",
                    default="24",
                ),
                Flag("force-new-cluster", SWITCH, "Force create a new cluster from current state"),
            ),
        ),
        Verb(
            "join",
            "Join a swarm as a node and/or manager",
            "swarmpy.cli.swarm:join",
            args="HOST:PORT",
            count=(1, 1),
            flags=(*ADDRESSES, AVAILABILITY, Flag("token", STRING, "Token for entry into the swarm")),
        ),
        Verb(
            "join-token",
            "Manage join tokens",
            "swarmpy.cli.swarm:join_token",
            args="(worker|manager)",
            count=(1, 1),
            subject=("worker", "manager"),
            flags=(QUIET_TOKEN, Flag("rotate", SWITCH, "Rotate join token")),
        ),
        Verb(
            "leave",
            "Leave the swarm",
            "swarmpy.cli.swarm:leave",
            flags=(
                Flag("force", SWITCH, "Force this node to leave the swarm, ignoring warnings", short="f"),
            ),
        ),
        Verb(
            "update",
            "Update the swarm",
            "swarmpy.cli.swarm:update",
            flags=(
                *SPEC,
                Flag(
                    "autolock",
                    SWITCH,
                    "Change manager autolocking setting (true|false)",
                    field="EncryptionConfig.AutoLockManagers",
                ),
                Flag(
                    "default-addr-pool-add",
                    STRINGS,
                    "Add a default address pool in CIDR format (swarmpy's own: Docker cannot)",
                ),
            ),
        ),
        Verb("ca", "Display and rotate the root CA", LATER, count=(0, -1), raw=True),
        Verb("unlock", "Unlock swarm", LATER, count=(0, -1), raw=True),
        Verb("unlock-key", "Manage the unlock key", LATER, count=(0, -1), raw=True),
    ),
)
