"""The reference page of the command line, made from the tables: `python -m swarmpy.cli.reference FILE`.

What does not belong here: anything a table does not say.
"""

from __future__ import annotations

import sys

from swarmpy.cli import commands
from swarmpy.cli.helptext import flag_help
from swarmpy.cli.output import out
from swarmpy.cli.tables import Verb

_INTRODUCTION = """# The `swarmpy` command

This page is made from the command tables; write it again with
`python -m swarmpy.cli.reference docs/reference/cli.md`.

`swarmpy` talks to the daemon of this machine over a unix socket: `-H`/`--host`, else the variable
`SWARMPY_HOST`, else `unix:///run/swarmpy/swarmpy.sock`.

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | refused by the daemon (`Error response from daemon: ...`), no daemon, or wrong arguments |
| 64 | the `--format` template is wrong |
| 125 | a flag or its value is wrong, or not supported by this version |
| 130 | interrupted (Ctrl-C) |

`--format` takes `table`, `table TEMPLATE`, `json`, or a template: text with `{{.Field}}`, pipes, the
functions `json upper lower title len join index println`, `if`/`else`/`end` and `range`/`else`/`end`.
"""


def _verb(verb: Verb, path: str) -> list[str]:
    lines = [f"## {path}", "", f"{verb.help}.", "", f"    {verb.usage(path)}", ""]
    if verb.aliases:
        lines += [f"Also: {', '.join(verb.aliases)}.", ""]
    if verb.flags:
        lines += ["| Flag | Value | Meaning |", "|---|---|---|"]
        for flag in sorted(verb.flags, key=lambda one: one.name):
            short = f"`-{flag.short}`, " if flag.short else ""
            text = flag_help(flag).replace("|", "\\|")
            lines.append(f"| {short}`--{flag.name}` | {flag.kind.word} | {text.replace('<', '&lt;')} |")
        lines.append("")
    return lines


def page() -> str:
    """The whole page."""
    lines = [_INTRODUCTION]
    for word in commands.TOP:
        lines += _verb(commands.top_verb(word), f"swarmpy {word}")
    for word in commands.NOUNS:
        for verb in commands.noun(word).verbs:
            lines += _verb(verb, f"swarmpy {word} {verb.name}")
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    """Write the page to the file named, or print it."""
    if not arguments:
        out(page().rstrip("\n"))
        return 0
    text = page()
    with open(arguments[0], "w", encoding="utf-8") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
