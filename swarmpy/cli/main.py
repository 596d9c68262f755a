"""The `swarmpy` command: finds the command's table, parses, runs, and turns every end into an exit code.

Exit codes are Docker's: 0 done; 1 refused by the daemon, or wrong arguments; 64 bad --format template; 125 a
flag that does not parse or is not supported; 130 interrupted. What does not belong here: commands (a file
per noun), grammar (`flags`).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from swarmpy.cli import commands, flags
from swarmpy.cli.tables import CommandError, CountError, FlagError, Noun, Parsed, Verb

BAD_FLAG = 125
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code. Never raises for what a user can do."""
    try:
        try:
            code = _dispatch(_readable(list(sys.argv[1:] if argv is None else argv)))
            sys.stdout.flush()
        except CommandError as error:
            sys.stdout.flush()
            sys.stderr.write(error.message + "\n")
            code = error.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) went away; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    return code


def _readable(words: list[str]) -> list[str]:
    """The words, which are UTF-8: no name that is not could be sent to the daemon. Raises CommandError."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = word.encode(errors="backslashreplace").decode()
            raise CommandError(f'swarmpy: the argument "{shown}" is not valid UTF-8') from None
    return words


def _dispatch(words: list[str]) -> int:
    whole = Verb("swarmpy", "", "", args="COMMAND", count=(0, -1), flags=commands.GLOBAL_FLAGS,
                 options_first=True)  # fmt: skip
    top = Parsed("swarmpy", "")
    try:
        flags.parse(whole, words, top)
    except FlagError as error:
        raise CommandError(f"{error}\n\nUsage:  swarmpy [OPTIONS] COMMAND\n\n"
                           "Run 'swarmpy --help' for more information", BAD_FLAG) from None  # fmt: skip
    if top.on("version"):
        from swarmpy import __version__

        print(f"swarmpy version {__version__}")
        return 0
    rest = top.args
    if rest and rest[0] == "help":
        rest = [*rest[1:], "--help"]
    if top.on("help") or not rest or rest[0] in ("-h", "--help"):
        from swarmpy.cli.helptext import top_help

        print(top_help())
        return 0
    return _command(rest, top.text("host"))


def _command(words: list[str], host: str) -> int:
    word, rest = words[0], words[1:]
    if word == "__complete":
        from swarmpy.cli.completion import complete

        return complete(rest, host)
    if word in commands.TOP:
        return _verb(commands.top_verb(word), f"swarmpy {word}", rest, host)
    if word in commands.LATER:
        raise commands.refuse_later(word)
    if word not in commands.NOUNS:
        raise CommandError(f"swarmpy: unknown command: swarmpy {word}\n\n"
                           "Run 'swarmpy --help' for more information")  # fmt: skip
    return _noun(commands.noun(word), rest, host)


def _noun(noun: Noun, words: list[str], host: str) -> int:
    path = f"swarmpy {noun.name}"
    if not words or words[0] in ("-h", "--help"):
        from swarmpy.cli.helptext import noun_help

        print(noun_help(noun))
        return 0
    if words[0].startswith("-"):
        raise CommandError(f"unknown flag: {words[0]}\n\nUsage:  {path} COMMAND\n\n"
                           f"Run '{path} --help' for more information", BAD_FLAG)  # fmt: skip
    verb = noun.find(words[0])
    if verb is None:
        raise CommandError(f"swarmpy: unknown command: {path} {words[0]}\n\n"
                           f"Usage:  {path}\n\nRun '{path} --help' for more information")  # fmt: skip
    return _verb(verb, f"{path} {verb.name}", words[1:], host)


def _verb(verb: Verb, path: str, words: list[str], host: str) -> int:
    parsed = Parsed(path, host)
    usage = f"\n\nUsage:  {verb.usage(path)}\n\nRun '{path} --help' for more information"
    try:
        flags.parse(verb, words, parsed)
    except FlagError as error:
        raise CommandError(f"{error}{usage}", BAD_FLAG) from None
    except CountError as error:
        raise CommandError(f"swarmpy: {error}{usage}") from None
    if parsed.on("help"):
        from swarmpy.cli.helptext import verb_help

        print(verb_help(verb, path))
        return 0
    module, _, function = verb.run.partition(":")
    code: int = getattr(import_module(module), function)(parsed)
    return code


if __name__ == "__main__":
    sys.exit(main())
