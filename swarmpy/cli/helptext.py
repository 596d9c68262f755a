"""What --help prints, from the tables, in the layout that Docker's users know.

What does not belong here: the reference page (`reference`), completion (`completion`).
"""

from __future__ import annotations

import os
import textwrap

from swarmpy.cli.commands import GLOBAL_FLAGS, NOUNS, TOP
from swarmpy.cli.tables import Flag, Noun, Verb


def width() -> int:
    """Columns of the terminal (COLUMNS, or the terminal's own), 80 where there is none."""
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size().columns or 80
    except OSError:
        return 80


def _left(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    word = f" {flag.kind.word}" if flag.kind.word else ""
    return f"  {short}--{flag.name}{word}"


def flag_help(flag: Flag) -> str:
    """A flag's help with its default and whether it is supported."""
    text = flag.help
    if flag.default:
        text += f' (default "{flag.default}")' if flag.kind.word == "string" else f" (default {flag.default})"
    return f"{text} (not supported yet)" if flag.refused else text


def _flags(flags: tuple[Flag, ...]) -> list[str]:
    column = max((len(_left(flag)) for flag in flags), default=0) + 3
    lines: list[str] = []
    for flag in sorted(flags, key=lambda item: item.name):
        texts = textwrap.wrap(flag_help(flag), max(width() - column, 24)) or [""]
        lines.append(_left(flag).ljust(column) + texts[0])
        lines += [" " * column + text for text in texts[1:]]
    return lines


def _words(pairs: list[tuple[str, str]]) -> list[str]:
    column = max(len(word) for word, _ in pairs) + 2
    return [f"  {word.ljust(column)}{text}" for word, text in pairs]


def verb_help(verb: Verb, path: str) -> str:
    """Help of one command."""
    lines = [f"Usage:  {verb.usage(path)}", "", verb.help]
    if verb.aliases:
        parent = path.rpartition(" ")[0]
        lines += ["", "Aliases:", "  " + ", ".join(f"{parent} {name}" for name in (verb.name, *verb.aliases))]
    if verb.flags:
        lines += ["", "Options:", *_flags(verb.flags)]
    return "\n".join(lines)


def noun_help(noun: Noun) -> str:
    """Help of a noun: its verbs."""
    path = f"swarmpy {noun.name}"
    lines = [f"Usage:  {path} COMMAND", "", noun.help, "", "Commands:"]
    lines += _words(sorted((verb.name, verb.help) for verb in noun.verbs))
    return "\n".join([*lines, "", f"Run '{path} COMMAND --help' for more information on a command."])


def top_help() -> str:
    """Help of swarmpy itself."""
    lines = ["Usage:  swarmpy [OPTIONS] COMMAND", "", "Run containers across many machines", "", "Commands:"]
    lines += _words([(word, text) for word, (text, _) in TOP.items()])
    lines += ["", "Groups of commands:", *_words([(word, text) for word, (text, _) in NOUNS.items()])]
    lines += ["", "Options:", *_flags(GLOBAL_FLAGS)]
    return "\n".join([*lines, "", "Run 'swarmpy COMMAND --help' for more information on a command."])
