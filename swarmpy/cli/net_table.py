"""The table of `swarmpy net`: what Docker has no word for."""

from __future__ import annotations

from swarmpy.cli.tables import Flag, Noun, Verb
from swarmpy.cli.values import choice

NOUN = Noun(
    "net",
    "Look after the cluster's network",
    (
        Verb(
            "doctor",
            "Have all nodes look at their networks and say what is wrong",
            "swarmpy.cli.net:doctor",
            args="[NETWORK]",
            count=(0, 1),
            flags=(Flag("format", choice("text", "json"), 'Format output ("text", "json")', short="f"),),
        ),
    ),
)
