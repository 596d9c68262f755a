"""The map of the command line: every word after `swarmpy`, and where its table is.

Only this file is loaded to find out which noun's file to load. What does not belong here: flags (a file per
noun), parsing (`flags`), running (`main`).
"""

from __future__ import annotations

from importlib import import_module

from swarmpy.cli.tables import CommandError, Flag, Noun, Verb
from swarmpy.cli.values import STRING, SWITCH

NOUNS = {
    "network": ("Manage networks", "swarmpy.cli.network_table"),
    "net": ("Look after the cluster's network", "swarmpy.cli.net_table"),
    "node": ("Manage the cluster's nodes", "swarmpy.cli.node_table"),
    "service": ("Manage services", "swarmpy.cli.service_table"),
    "swarm": ("Manage the cluster (Docker's words)", "swarmpy.cli.swarm_table"),
}
TOP = {
    "init": ("Make a new cluster with this machine as its first manager", "swarmpy.cli.swarm_table"),
    "join": ("Join this machine to a cluster", "swarmpy.cli.swarm_table"),
    "join-token": ("Show or rotate the tokens that let machines join", "swarmpy.cli.swarm_table"),
    "leave": ("Leave the cluster", "swarmpy.cli.swarm_table"),
    "info": ("Show what this node is and what it sees of its cluster", "swarmpy.cli.other_table"),
    "explain": ("Say why a task or service runs where it does, or does not", "swarmpy.cli.other_table"),
    "daemon": ("Run this node's daemon", "swarmpy.cli.other_table"),
    "lab": ("Run a whole cluster on this machine", "swarmpy.cli.other_table"),
    "sim": ("Run the simulator", "swarmpy.cli.other_table"),
    "completion": ("Print a shell's completion script", "swarmpy.cli.other_table"),
}
LATER = {
    "stack": "stacks of services from Compose files",
    "secret": "secrets",
    "config": "configs",
    "volume": "cluster volumes",
}
"""Swarm's nouns that this version does not have; each is refused with a sentence."""

GLOBAL_FLAGS = (
    Flag("host", STRING, "The daemon's address (default: SWARMPY_HOST, else unix:///run/swarmpy/swarmpy.sock)",
         short="H"),
    Flag("version", SWITCH, "Print the version and quit", short="v"),
)  # fmt: skip
UNSUPPORTED = 125


def noun(word: str) -> Noun:
    """The table of a noun."""
    module = import_module(NOUNS[word][1])
    table: Noun = module.NOUN
    return table


def top_verb(word: str) -> Verb:
    """The table of a command without a noun."""
    module = import_module(TOP[word][1])
    verb: Verb | None = module.NOUN.find(word)
    if verb is None:
        raise AssertionError(f"{TOP[word][1]} has no verb {word!r}")
    return verb


def refuse_later(word: str) -> CommandError:
    """The sentence for one of Swarm's nouns that is not there yet."""
    return CommandError(
        f"swarmpy: '{word}' is not supported by this version of swarmpy: it has no {LATER[word]} yet; "
        "`swarmpy service` runs containers on all nodes without them",
        UNSUPPORTED,
    )
