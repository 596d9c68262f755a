"""Tables, --format and inspect: everything that list and inspect commands print.

What belongs here: layout. What does not: which fields an object has (a file per noun), words (`human`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from swarmpy.cli.tables import CommandError

PADDING = 3
NARROWEST = 10


def out(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """One line on stderr."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def columns(rows: Iterable[list[str]], *, narrowest: int = NARROWEST, padding: int = PADDING) -> list[str]:
    """Rows of cells as aligned lines; the last cell of a row is not padded."""
    table = list(rows)
    widths: list[int] = []
    for row in table:
        for place, cell in enumerate(row[:-1]):
            if place == len(widths):
                widths.append(narrowest)
            widths[place] = max(widths[place], len(cell) + padding)
    return [
        "".join(cell.ljust(widths[place]) for place, cell in enumerate(row[:-1])) + row[-1] for row in table
    ]


def listing(rows: list[dict[str, Any]], headers: dict[str, str], shown: tuple[str, ...], *, format_: str,
            quiet: bool) -> None:  # fmt: skip
    """Print a list command's rows.

    `rows` have the fields that --format may name; `headers` their column titles; `shown` the columns of the
    default table (a field may be given as a whole template). A custom format wins over --quiet, as in Docker.
    """
    if format_ in ("", "table"):
        if quiet:
            for row in rows:
                out(str(row["ID"]))
            return
        lines = [[headers[field] for field in shown]]
        lines += [[str(row[field]) for field in shown] for row in rows]
        for line in columns(lines):
            out(line)
        return
    from swarmpy.cli.template import Template, go_json

    # Fields in Docker's order, without those that only the default table uses.
    rows = [{key: row[key] for key in sorted(row) if not key.startswith("_")} for row in rows]
    if format_ == "json":
        for row in rows:
            # Go escapes these in JSON that it may have to show in a page.
            text = go_json(row)
            for sign in "<>&":
                text = text.replace(sign, f"\\u{ord(sign):04x}")
            out(text)
        return
    table = format_.startswith("table ")
    text = format_[len("table ") :] if table else format_
    template = Template(text.replace("\\t", "\t").replace("\\n", "\n"))
    texts = [template.render(row, strict=True) for row in rows]
    if not table:
        for line in texts:
            out(line)
        return
    header = template.render(headers, strict=True, header=True)
    for line in columns([piece.split("\t") for piece in [header, *texts]]):
        out(line)


def inspect(references: list[str], fetch: Callable[[str], Any], format_: str,
            pretty: Callable[[Any], str] | None = None) -> int:  # fmt: skip
    """Print the objects as an array of JSON, by a template, or prettily. Returns the exit code.

    Goes on past what is not found; every failure is said on stderr at the end.
    """
    found: list[Any] = []
    failures: list[str] = []
    for reference in references:
        try:
            found.append(fetch(reference))
        except CommandError as error:
            failures.append(error.message)
    if pretty is not None:
        for item in found:
            sys.stdout.write(pretty(item))
    elif format_ in ("", "json"):
        layout: dict[str, Any] = {"indent": 4} if not format_ else {"separators": (",", ":")}
        out(json.dumps(found, ensure_ascii=False, **layout))
    else:
        from swarmpy.cli.template import Template

        template = Template(format_)
        for item in found:
            out(template.render(item))
    for failure in failures:
        warn(failure)
    return 1 if failures else 0
