"""`swarmpy net doctor`: what is wrong with the cluster's networks, in sentences.

The judgement is the daemon's; this prints it. Exit code 0: nothing is wrong (what was found and mended
counts as nothing), 1: something is.
"""

from __future__ import annotations

from typing import Any

from swarmpy.cli.client import Client
from swarmpy.cli.output import out
from swarmpy.cli.tables import CommandError, Parsed


def doctor(parsed: Parsed) -> int:
    """Print the daemon's findings."""
    if parsed.text("format") not in ("", "text", "json"):
        raise CommandError(f'invalid --format "{parsed.text("format")}": text and json are supported')
    query = {"network": parsed.args[0]} if parsed.args else {}
    answer = Client(parsed.host).get("/swarmpy/v1/net/doctor", **query)
    if parsed.text("format") == "json":
        from swarmpy.cli.template import go_json

        out(go_json(answer))
    else:
        for line in text(answer):
            out(line)
    return 0 if answer.get("healthy") else 1


def text(answer: dict[str, Any]) -> list[str]:
    """The findings as lines: problems, notes, then what was mended."""
    networks = ", ".join(str(one["name"]) for one in answer.get("networks") or []) or "none"
    reported, silent = answer.get("reported") or [], answer.get("silent") or []
    lines = [
        f"Networks: {networks}",
        f"Nodes: {len(reported)} reported, {len(silent)} did not; "
        f"{answer.get('tried', 0)} ways between nodes were tried",
    ]
    for finding in answer.get("findings") or []:
        where = " ".join(
            part
            for part in (finding["node"], f"({finding['network']})" if finding["network"] else "")
            if part
        )
        lines += ["", f"{str(finding['kind']).upper()} {where}: {finding['what']}"]
        if finding.get("help"):
            lines.append(f"  What would help: {finding['help']}")
    return [*lines, "", "Everything is as it should be." if answer.get("healthy") else "Something is wrong."]
