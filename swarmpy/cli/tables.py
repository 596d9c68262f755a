"""The command tables: what a verb is called, which flags it takes, what it runs.

Help texts, parsing, shell completion and the reference page are all made from these tables, so they cannot
disagree. What belongs here: the shapes of the tables and the errors a command ends with. What does not: the
tables themselves (a file per noun), the grammar of a command line (`flags`).

The classes are plain on purpose: `dataclasses` costs 15 ms at import, which the whole command may not take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class CommandError(Exception):
    """The command ends with this message on stderr and this exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class FlagError(Exception):
    """A flag was unknown, lacked its value or had one that does not parse: usage is shown, exit code 125."""


class CountError(Exception):
    """Too few or too many arguments: usage is shown, exit code 1."""


class Kind:
    """What a flag's value is. `word` is shown in help; `parse` raises ValueError with a sentence."""

    __slots__ = ("choices", "many", "parse", "switch", "word")

    def __init__(self, word: str, parse: Callable[[str], Any], *, many: bool = False, switch: bool = False,
                 choices: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.word = word
        self.parse = parse
        self.many = many
        self.switch = switch
        self.choices = choices


class Flag:
    """One flag: its name, the spec field it sets ("" where code decides), its kind and its help.

    `zero` is kept as value where the field is a pointer in Docker's API (`pointer`), else the field goes
    away. A flag with `refused` is known, and refused with that sentence.
    """

    __slots__ = ("default", "field", "help", "kind", "name", "pointer", "refused", "short")

    def __init__(self, name: str, kind: Kind, help: str, *, short: str = "", default: str = "",  # noqa: A002  the flag's own word
                 field: str = "", pointer: bool = False, refused: str = "") -> None:  # fmt: skip
        self.name = name
        self.kind = kind
        self.help = help
        self.short = short
        self.default = default
        self.field = field
        self.pointer = pointer
        self.refused = refused

    @property
    def shown(self) -> str:
        """The flag as error messages name it: `-q, --quiet` or `--replicas`."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Verb:
    """One command: name, arguments and how many, help, flags, and what runs it as "module:function".

    `subject` names what the arguments are, for completion: service, node, task, image, "" or words.
    `options_first` ends flags at the first argument, as in `service create IMAGE COMMAND -x`.
    `raw` verbs get their arguments unparsed (they belong to another room's own command line).
    """

    __slots__ = ("aliases", "args", "flags", "help", "most", "name", "options_first", "raw", "run", "subject")

    def __init__(self, name: str, help: str, run: str, *, args: str = "",  # noqa: A002, PLR0913  the flag's own word
                 count: tuple[int, int] = (0, 0),
                 flags: tuple[Flag, ...] = (), aliases: tuple[str, ...] = (), options_first: bool = False,
                 subject: str | tuple[str, ...] = "", raw: bool = False) -> None:  # fmt: skip
        self.name = name
        self.help = help
        self.run = run
        self.args = args
        self.most = count
        self.flags = flags
        self.aliases = aliases
        self.options_first = options_first
        self.subject = subject
        self.raw = raw

    def usage(self, path: str) -> str:
        """The usage line for this verb when it is reached as `path` (for example "swarmpy service ls")."""
        words = [path] + (["[OPTIONS]"] if self.flags else []) + ([self.args] if self.args else [])
        return " ".join(words)


class Noun:
    """A group of verbs."""

    __slots__ = ("help", "name", "verbs")

    def __init__(self, name: str, help: str, verbs: tuple[Verb, ...]) -> None:  # noqa: A002  the flag's own word
        self.name = name
        self.help = help
        self.verbs = verbs

    def find(self, word: str) -> Verb | None:
        """The verb with that name or alias."""
        for verb in self.verbs:
            if word == verb.name or word in verb.aliases:
                return verb
        return None


class Parsed:
    """A parsed command line: flag values, which flags were given, and the arguments."""

    __slots__ = ("args", "given", "host", "path", "values")

    def __init__(self, path: str, host: str) -> None:
        self.path = path
        self.host = host
        self.values: dict[str, Any] = {}
        self.given: set[str] = set()
        self.args: list[str] = []

    def has(self, *names: str) -> bool:
        """Whether any of the flags was given."""
        return any(name in self.given for name in names)

    def on(self, name: str) -> bool:
        """The value of a switch."""
        return bool(self.values.get(name, False))

    def text(self, name: str, default: str = "") -> str:
        """The value of a text flag."""
        value = self.values.get(name, default)
        return default if value is None else str(value)

    def list(self, name: str) -> list[Any]:
        """The values of a flag that may be repeated."""
        return list(self.values.get(name, ()))
