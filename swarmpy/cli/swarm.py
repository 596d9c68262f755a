"""`swarmpy init`, `join`, `join-token`, `leave` and `swarm update`: making, joining and leaving clusters.

What does not belong here: starting a daemon (`start`), the flags (`swarm_table`).
"""

from __future__ import annotations

from typing import Any

from swarmpy.cli.client import Client, Unreachable
from swarmpy.cli.output import out, warn
from swarmpy.cli.spec import apply_fields
from swarmpy.cli.swarm_table import NOUN, SPEC
from swarmpy.cli.tables import CommandError, Parsed

DEFAULT_PORT = "2377"
INTERRUPTED = 130


def _availability(parsed: Parsed) -> str:
    word = parsed.text("availability").lower() if parsed.has("availability") else ""
    if word not in ("", "active", "pause", "drain"):
        raise CommandError(
            f'invalid availability "{parsed.text("availability")}", '
            "only active, pause and drain are supported"
        )
    return word


def _listen(parsed: Parsed) -> str:
    """The listen address with its port."""
    text = parsed.text("listen-addr") or f"0.0.0.0:{DEFAULT_PORT}"
    bare = text.rpartition("]")[2]
    return text if ":" in bare else f"{text}:{DEFAULT_PORT}"


def _reach(parsed: Parsed) -> Client:
    """The daemon, started where none answers."""
    client = Client(parsed.host)
    try:
        client.ping()
    except Unreachable:
        from swarmpy.cli.start import start_daemon

        start_daemon(client.host)
    return client


def _interrupted(what: str) -> int:
    warn(f"\nInterrupted: the daemon may still {what}; `swarmpy info` shows how far it is.")
    return INTERRUPTED


def init(parsed: Parsed) -> int:
    """Make a new cluster."""
    availability = _availability(parsed)
    spec: dict[str, Any] = {}
    apply_fields(spec, SPEC, parsed)
    if parsed.has("autolock"):
        spec["EncryptionConfig"] = {"AutoLockManagers": parsed.on("autolock")}
    pools = [pool for text in parsed.list("default-addr-pool") for pool in text.split(",") if pool]
    body = {
        "ListenAddr": _listen(parsed),
        "AdvertiseAddr": parsed.text("advertise-addr"),
        "DataPathAddr": parsed.text("data-path-addr"),
        "DataPathPort": parsed.values.get("data-path-port", 0),
        "DefaultAddrPool": pools,
        "SubnetSize": parsed.values.get("default-addr-pool-mask-length", 24),
        "ForceNewCluster": parsed.on("force-new-cluster"),
        "AutoLockManagers": parsed.on("autolock"),
        "Availability": availability,
        "Spec": spec,
    }
    client = _reach(parsed)
    try:
        node = client.call("POST", "/swarm/init", body)
    except KeyboardInterrupt:
        return _interrupted("make the cluster")
    except CommandError as error:
        if "could not choose an IP address to advertise" in error.message or (
            "could not find the system's IP address" in error.message
        ):
            raise CommandError(f"{error.message} - specify one with --advertise-addr", error.code) from None
        raise
    out(f"Swarm initialized: current node ({node}) is now a manager.\n")
    _print_join(client, node, "worker")
    out("To add a manager to this swarm, run 'swarmpy join-token manager' and follow the instructions.")
    if parsed.on("autolock"):
        _print_unlock(client)
    return 0


def _print_unlock(client: Client) -> None:
    key = client.get("/swarm/unlockkey")["UnlockKey"]
    out(
        "\nTo unlock a swarm manager after it restarts, run the `swarmpy swarm unlock`\n"
        f"command and provide the following key:\n\n    {key}\n\n"
        "Remember to store this key in a password manager, since without it you\n"
        "will not be able to restart the manager."
    )


def _print_join(client: Client, node: str, role: str) -> None:
    """The command that adds a node of that role; nothing where the node is no manager."""
    address = (client.get(f"/nodes/{node}").get("ManagerStatus") or {}).get("Addr", "")
    tokens = client.get("/swarm")["JoinTokens"]
    if address:
        out(
            f"To add a {role} to this swarm, run the following command:\n\n"
            f"    swarmpy join --token {tokens[role.capitalize()]} {address}\n"
        )


def join(parsed: Parsed) -> int:
    """Join a cluster."""
    body = {
        "ListenAddr": _listen(parsed),
        "AdvertiseAddr": parsed.text("advertise-addr"),
        "DataPathAddr": parsed.text("data-path-addr"),
        "RemoteAddrs": [parsed.args[0]],
        "JoinToken": parsed.text("token"),
        "Availability": _availability(parsed),
    }
    client = _reach(parsed)
    try:
        client.call("POST", "/swarm/join", body)
        role = "manager" if client.get("/info")["Swarm"].get("ControlAvailable") else "worker"
    except KeyboardInterrupt:
        return _interrupted("join the cluster")
    out(f"This node joined a swarm as a {role}.")
    return 0


def join_token(parsed: Parsed) -> int:
    """Show or rotate a join token."""
    role = parsed.args[0]
    if role not in ("worker", "manager"):
        raise CommandError(f"unknown role {role}")
    client = Client(parsed.host)
    if parsed.on("rotate"):
        cluster = client.get("/swarm")
        query = _rotations(cluster)
        query[f"rotate{role.capitalize()}Token"] = "true"
        client.call("POST", "/swarm/update", cluster["Spec"], query=query)
        if not parsed.on("quiet"):
            out(f"Successfully rotated {role} join token.\n")
    if parsed.on("quiet"):
        out(client.get("/swarm")["JoinTokens"][role.capitalize()])
        return 0
    _print_join(client, client.get("/info")["Swarm"]["NodeID"], role)
    return 0


def _rotations(cluster: dict[str, Any]) -> dict[str, str]:
    return {
        "version": str(cluster["Version"]["Index"]),
        "rotateWorkerToken": "false",
        "rotateManagerToken": "false",
        "rotateManagerUnlockKey": "false",
    }


def leave(parsed: Parsed) -> int:
    """Leave the cluster."""
    client = Client(parsed.host)
    try:
        client.call("POST", "/swarm/leave", query={"force": "1"} if parsed.on("force") else None)
    except KeyboardInterrupt:
        return _interrupted("leave the cluster")
    out("Node left the swarm.")
    return 0


def update(parsed: Parsed) -> int:
    """Change the cluster's spec; without flags, help."""
    verb = NOUN.find("update")
    if verb is None:
        raise AssertionError("the table has no update")
    if not parsed.given:
        from swarmpy.cli.helptext import verb_help

        out(verb_help(verb, parsed.path))
        return 0
    client = Client(parsed.host)
    pools = parsed.list("default-addr-pool-add")
    if pools:
        client.call("POST", "/swarmpy/v1/address-pools", {"Add": pools})
        if parsed.given == {"default-addr-pool-add"}:
            out("Swarm updated.")
            return 0
    cluster = client.get("/swarm")
    spec = cluster["Spec"]
    locked = bool((spec.get("EncryptionConfig") or {}).get("AutoLockManagers"))
    apply_fields(spec, verb.flags, parsed)
    client.call("POST", "/swarm/update", spec, query=_rotations(cluster))
    out("Swarm updated.")
    if parsed.on("autolock") and not locked:
        _print_unlock(client)
    return 0


def later(parsed: Parsed) -> int:
    """Verbs of Docker's that this version does not have."""
    raise CommandError(
        f"'{parsed.path}' is not supported by this version of swarmpy: it neither rotates the cluster's root "
        "certificate nor locks managers; join tokens can be rotated with `swarmpy join-token --rotate`",
        125,
    )
