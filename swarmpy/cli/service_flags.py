"""The flags of `service create` and `service update`: one table, two command lines.

A flag with a `field` sets that field of the spec in both commands. Flags that are lists in create become
`--X-add` and `--X-rm` in update. What does not belong here: how lists are merged (`service_update`).
"""

from __future__ import annotations

from swarmpy.cli.service_lists import LISTS
from swarmpy.cli.tables import Flag, Kind
from swarmpy.cli.values import (
    BYTES,
    COMMAND,
    DECIMAL,
    DURATION,
    ENDPOINT_MODE,
    FLOAT,
    INT,
    LIST,
    POSITIVE_DURATION,
    STRING,
    SWAP,
    SWITCH,
    UINT,
    choice,
)

DETACH = Flag("detach", SWITCH, "Exit immediately instead of waiting for the service to converge", short="d")
QUIET = Flag("quiet", SWITCH, "Suppress progress output", short="q")

_C = "TaskTemplate.ContainerSpec."
_T = "TaskTemplate."
_UNITS = "(ns|us|ms|s|m|h)"
_SHORT_UNITS = "(ms|s|m|h)"
NO_CREDENTIALS = "credential specs are for Windows nodes, and nodes run Linux"


def _rollout(word: str, prefix: str, actions: tuple[str, ...], texts: dict[str, str]) -> tuple[Flag, ...]:
    """The six flags of an update or a rollback configuration."""
    shown = ", ".join(f'"{action}"' for action in actions)
    return (
        Flag(f"{word}-delay", DURATION, f"{texts['delay']} {_UNITS}", default="0s", field=f"{prefix}.Delay"),
        Flag(
            f"{word}-failure-action",
            choice(*actions),
            f"Action on {word} failure ({shown})",
            default="pause",
            field=f"{prefix}.FailureAction",
        ),
        Flag(
            f"{word}-max-failure-ratio",
            FLOAT,
            f"Failure rate to tolerate during {texts['during']}",
            default="0",
            field=f"{prefix}.MaxFailureRatio",
            pointer=True,
        ),
        Flag(
            f"{word}-monitor",
            DURATION,
            f"Duration after each task {word} to monitor for failure {_UNITS}",
            default="5s",
            field=f"{prefix}.Monitor",
        ),
        Flag(
            f"{word}-order",
            choice("start-first", "stop-first"),
            f'{word.capitalize()} order ("start-first", "stop-first")',
            default="stop-first",
            field=f"{prefix}.Order",
        ),
        Flag(
            f"{word}-parallelism",
            UINT,
            texts["parallelism"],
            default="1",
            field=f"{prefix}.Parallelism",
            pointer=True,
        ),
    )


_SCALARS = (
    Flag(
        "credential-spec",
        Kind("credential-spec", str),
        "Credential spec for managed service account (Windows only)",
        refused=NO_CREDENTIALS,
    ),
    DETACH,
    Flag(
        "endpoint-mode",
        ENDPOINT_MODE,
        "Endpoint mode (vip or dnsrr)",
        default="vip",
        field="EndpointSpec.Mode",
    ),
    Flag("entrypoint", COMMAND, "Overwrite the default ENTRYPOINT of the image", field=_C + "Command"),
    Flag("health-cmd", STRING, "Command to run to check health"),
    Flag("health-interval", POSITIVE_DURATION, f"Time between running the check {_SHORT_UNITS}"),
    Flag("health-retries", INT, "Consecutive failures needed to report unhealthy"),
    Flag(
        "health-start-interval",
        POSITIVE_DURATION,
        f"Time between running the check during the start period {_SHORT_UNITS}",
    ),
    Flag(
        "health-start-period",
        POSITIVE_DURATION,
        "Start period for the container to initialize before counting "
        f"retries towards unstable {_SHORT_UNITS}",
    ),
    Flag("health-timeout", POSITIVE_DURATION, f"Maximum time to allow one check to run {_SHORT_UNITS}"),
    Flag("hostname", STRING, "Container hostname", field=_C + "Hostname"),
    Flag(
        "init",
        SWITCH,
        "Use an init inside each service container to forward signals and reap processes",
        field=_C + "Init",
        pointer=True,
    ),
    Flag("isolation", STRING, "Service container isolation mode", field=_C + "Isolation"),
    Flag("limit-cpu", DECIMAL, "Limit CPUs", field=_T + "Resources.Limits.NanoCPUs"),
    Flag("limit-memory", BYTES, "Limit Memory", field=_T + "Resources.Limits.MemoryBytes"),
    Flag(
        "limit-pids",
        INT,
        "Limit maximum number of processes (default 0 = unlimited)",
        field=_T + "Resources.Limits.Pids",
    ),
    Flag("log-driver", STRING, "Logging driver for service"),
    Flag("log-opt", LIST, "Logging driver options"),
    Flag("max-concurrent", UINT, "Number of job tasks to run concurrently (default equal to --replicas)"),
    Flag(
        "memory-swap", SWAP, "Swap Bytes (-1 for unlimited)", field=_T + "Resources.SwapBytes", pointer=True
    ),
    Flag(
        "memory-swappiness",
        INT,
        "Tune memory swappiness (0-100), -1 to reset to default",
        default="-1",
        field=_T + "Resources.MemorySwappiness",
        pointer=True,
    ),
    Flag("no-healthcheck", SWITCH, "Disable any container-specified HEALTHCHECK"),
    Flag(
        "no-resolve-image",
        SWITCH,
        "Do not query the registry to resolve image digest and supported platforms",
    ),
    Flag("oom-score-adj", INT, "Tune host's OOM preferences (-1000 to 1000)", field=_C + "OomScoreAdj"),
    QUIET,
    Flag("read-only", SWITCH, "Mount the container's root filesystem as read only", field=_C + "ReadOnly"),
    Flag("replicas", UINT, "Number of tasks"),
    Flag(
        "replicas-max-per-node",
        UINT,
        "Maximum number of tasks per node (default 0 = unlimited)",
        field=_T + "Placement.MaxReplicas",
    ),
    Flag("reserve-cpu", DECIMAL, "Reserve CPUs", field=_T + "Resources.Reservations.NanoCPUs"),
    Flag("reserve-memory", BYTES, "Reserve Memory", field=_T + "Resources.Reservations.MemoryBytes"),
    Flag(
        "restart-condition",
        choice("none", "on-failure", "any"),
        'Restart when condition is met ("none", "on-failure", "any")',
        default="any",
        field=_T + "RestartPolicy.Condition",
    ),
    Flag(
        "restart-delay",
        DURATION,
        f"Delay between restart attempts {_UNITS}",
        default="5s",
        field=_T + "RestartPolicy.Delay",
        pointer=True,
    ),
    Flag(
        "restart-max-attempts",
        UINT,
        "Maximum number of restarts before giving up",
        field=_T + "RestartPolicy.MaxAttempts",
        pointer=True,
    ),
    Flag(
        "restart-window",
        DURATION,
        f"Window used to evaluate the restart policy {_UNITS}",
        field=_T + "RestartPolicy.Window",
        pointer=True,
    ),
    Flag(
        "stop-grace-period",
        DURATION,
        f"Time to wait before force killing a container {_UNITS}",
        default="10s",
        field=_C + "StopGracePeriod",
        pointer=True,
    ),
    Flag("stop-signal", STRING, "Signal to stop the container", field=_C + "StopSignal"),
    Flag("tty", SWITCH, "Allocate a pseudo-TTY", short="t", field=_C + "TTY"),
    Flag("user", STRING, "Username or UID (format: <name|uid>[:<group|gid>])", short="u", field=_C + "User"),
    Flag("with-registry-auth", SWITCH, "Send registry authentication details to swarm agents"),
    Flag("workdir", STRING, "Working directory inside the container", short="w", field=_C + "Dir"),
    Flag("cap-add", LIST, "Add Linux capabilities"),
    Flag("cap-drop", LIST, "Drop Linux capabilities"),
    *_rollout(
        "update",
        "UpdateConfig",
        ("pause", "continue", "rollback"),
        {
            "delay": "Delay between updates",
            "during": "an update",
            "parallelism": "Maximum number of tasks updated simultaneously (0 to update all at once)",
        },
    ),
    *_rollout(
        "rollback",
        "RollbackConfig",
        ("pause", "continue"),
        {
            "delay": "Delay between task rollbacks",
            "during": "a rollback",
            "parallelism": "Maximum number of tasks rolled back simultaneously (0 to roll back all at once)",
        },
    ),
)


def create_flags() -> tuple[Flag, ...]:
    """The flags of `service create`."""
    lists = tuple(
        Flag(name, kind, text, short=short, refused=refused)
        for name, kind, short, text, _, _, _, refused in LISTS
    )
    return (
        Flag(
            "mode",
            choice("replicated", "global", "replicated-job", "global-job"),
            'Service mode ("replicated", "global", "replicated-job", "global-job")',
            default="replicated",
        ),
        Flag("name", STRING, "Service name"),
        Flag("env-file", LIST, "Read in a file of environment variables"),
        *_SCALARS,
        *lists,
    )


def update_flags() -> tuple[Flag, ...]:
    """The flags of `service update`; none has a default, as only what is given changes."""
    scalars = tuple(
        Flag(
            flag.name,
            flag.kind,
            flag.help,
            short=flag.short,
            field=flag.field,
            pointer=flag.pointer,
            refused=flag.refused,
        )
        for flag in _SCALARS
    )
    lists = tuple(
        flag
        for name, kind, _, _, add, remove, remove_kind, refused in LISTS
        for flag in (
            Flag(f"{name}-add", kind, add, refused=refused),
            Flag(f"{name}-rm", remove_kind, remove, refused=refused),
        )
    )
    return (
        Flag("args", COMMAND, "Service command args", field=_C + "Args"),
        Flag("force", SWITCH, "Force update even if no changes require it"),
        Flag("image", STRING, "Service image tag", field=_C + "Image"),
        Flag("rollback", SWITCH, "Rollback to previous specification"),
        *scalars,
        *lists,
    )
