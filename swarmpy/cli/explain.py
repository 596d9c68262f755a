"""`swarmpy explain`: why a task or service runs where it does, or does not.

The judgement is the daemon's; this prints it: the summary, what each task waits for, every node's verdict,
the smallest change that would help, and whatever else a newer daemon answers. What does not belong here:
judging.
"""

from __future__ import annotations

from typing import Any

from swarmpy.cli.client import Client
from swarmpy.cli.human import human_duration, title
from swarmpy.cli.output import columns, out
from swarmpy.cli.tables import Parsed
from swarmpy.cli.template import go_json


def explain(parsed: Parsed) -> int:
    """Print the daemon's explanation."""
    answer = Client(parsed.host).get("/swarmpy/v1/explain", ref=parsed.args[0])
    if parsed.on("json"):
        out(go_json(answer))
        return 0
    for line in text(answer):
        out(line)
    return 0


_KNOWN = {"kind", "id", "name", "summary", "at", "tasks", "nodes", "smallest_change", "notes"}


def text(answer: dict[str, Any]) -> list[str]:
    """An explanation as lines."""
    lines = [f"{answer.get('name', '')}: {answer.get('summary', '')}"]
    tasks = answer.get("tasks") or []
    if tasks:
        rows = [_task(task, int(answer.get("at") or 0)) for task in tasks]
        lines += ["", *columns([["TASK", "STATE", "DESIRED", "NODE", "WAITS"], *rows])]
    nodes = answer.get("nodes") or []
    if nodes:
        head = ["NODE", "FITS", "WHY NOT", "WHAT WOULD HELP"]
        lines += ["", *columns([head, *(_node(node) for node in nodes)])]
    if answer.get("smallest_change"):
        lines += ["", f"Smallest change: {answer['smallest_change']}"]
    if answer.get("notes"):
        lines += ["", *(str(note) for note in answer["notes"])]
    more = {key: value for key, value in answer.items() if key not in _KNOWN}
    if more:
        lines += ["", *_lines(more, "")]
    return [line.rstrip() for line in lines]


def _task(task: dict[str, Any], at: int) -> list[str]:
    name = str(task.get("name", "")).removesuffix(f".{task.get('id', '')}")
    waits = _scalar(task.get("waits") or [])
    left = int(task.get("until") or 0) - at
    if left > 0:
        waits += f" (for {human_duration(left / 1e9).lower()} more)"
    state, desired = title(str(task.get("state", ""))), title(str(task.get("desired", "")))
    return [name, state, desired, _scalar(task.get("node")), waits]


def _node(verdict: dict[str, Any]) -> list[str]:
    fits = _scalar(bool(verdict.get("fits")))
    reasons = _scalar(verdict.get("reasons") or [])
    return [
        str(verdict.get("node") or verdict.get("node_id", "")),
        fits,
        reasons,
        _scalar(verdict.get("change")),
    ]


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
