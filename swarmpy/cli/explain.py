"""`swarmpy explain`: why a task or service runs where it does, or does not.

The judgement is the daemon's; this prints whatever it answers: sentences, and tables where it lists things
(such as every node with its verdict). What does not belong here: judging.
"""

from __future__ import annotations

from typing import Any

from swarmpy.cli.client import Client
from swarmpy.cli.output import columns, out
from swarmpy.cli.tables import Parsed
from swarmpy.cli.template import go_json


def explain(parsed: Parsed) -> int:
    """Print the daemon's explanation."""
    answer = Client(parsed.host).get("/swarmpy/v1/explain", ref=parsed.args[0])
    if parsed.on("json"):
        out(go_json(answer))
        return 0
    for line in _lines(answer, ""):
        out(line)
    return 0


def _words(key: str) -> str:
    """A field's name as words: `smallest_change` and `SmallestChange` are "Smallest change"."""
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in key).replace("_", " ")
    return spaced.strip().capitalize()


def _scalar(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_scalar(one) for one in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_scalar(one)}" for key, one in value.items()) or "-"
    return str(value)


def _flat(value: Any) -> bool:
    """Whether it fits into one cell of a table."""
    if isinstance(value, list):
        return not any(isinstance(one, (dict, list)) for one in value)
    return not isinstance(value, dict) or all(
        _flat(one) and not isinstance(one, dict) for one in value.values()
    )


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows with the same kind of fields, one column a field."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    head = [_words(key).upper() for key in keys]
    return columns([head, *([_scalar(row.get(key)) for key in keys] for row in rows)])


def _lines(value: Any, indent: str) -> list[str]:
    """Any answer as lines: fields by name, lists of flat objects as tables, deeper things indented."""
    if isinstance(value, dict):
        lines = []
        for key, one in value.items():
            if isinstance(one, (dict, list)) and one and not (isinstance(one, list) and _flat(one)):
                lines += [f"{indent}{_words(key)}:", *_lines(one, indent + "  ")]
            else:
                lines.append(f"{indent}{_words(key)}: {_scalar(one)}")
        return lines
    if isinstance(value, list):
        if all(isinstance(one, dict) and all(_flat(cell) for cell in one.values()) for one in value):
            return [f"{indent}{line.rstrip()}" for line in _table(value)]
        return [line for one in value for line in [*_lines(one, indent), ""]]
    return [f"{indent}{_scalar(value)}"]
