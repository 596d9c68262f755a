"""The table of the commands without a noun that are swarmpy's own."""

from __future__ import annotations

from swarmpy.cli.tables import Flag, Noun, Verb
from swarmpy.cli.values import STRING, SWITCH

NOUN = Noun(
    "",
    "",
    (
        Verb(
            "info",
            "Show what this node is and what it sees of its cluster",
            "swarmpy.cli.info:info",
            flags=(Flag("format", STRING, "Format output: 'json', or a Go template", short="f"),),
        ),
        Verb(
            "explain",
            "Say why a task or service runs where it does, or does not",
            "swarmpy.cli.explain:explain",
            args="TASK|SERVICE",
            count=(1, 1),
            subject="service",
            flags=(Flag("json", SWITCH, "Print the whole answer as JSON"),),
        ),
        Verb(
            "daemon",
            "Run this node's daemon",
            "swarmpy.cli.delegate:daemon",
            args="[OPTIONS]",
            count=(0, -1),
            raw=True,
        ),
        Verb(
            "lab",
            "Run a whole cluster on this machine",
            "swarmpy.cli.delegate:lab",
            args="COMMAND",
            count=(0, -1),
            raw=True,
            subject=("up", "down", "status", "exec", "env", "kill", "start", "partition", "heal"),
        ),
        Verb("sim", "Run the simulator", "swarmpy.cli.delegate:sim", args="COMMAND", count=(0, -1), raw=True),
        Verb(
            "completion",
            "Print a shell's completion script",
            "swarmpy.cli.completion:script",
            args="bash|zsh|fish",
            count=(1, 1),
            subject=("bash", "zsh", "fish"),
        ),
    ),
)
