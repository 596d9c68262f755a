"""The grammar of a command line, as Docker's users type it.

`--name value`, `--name=value`, `-nvalue`, `-n value`, joined switches (`-dq`), switches with a value
(`--detach=false`), `--` to end flags, and flags after arguments unless the verb says otherwise. The messages
are those of Docker's parser. argparse cannot express this grammar: it refuses values that begin with a dash
(`--args "-v"`, `--oom-score-adj -5`), has no `--switch=false`, and does not take flags between arguments.
What does not belong here: what a value means (`values`, `grammars`).
"""

from __future__ import annotations

from swarmpy.cli.tables import CountError, Flag, FlagError, Parsed, Verb


def parse(verb: Verb, words: list[str], parsed: Parsed) -> Parsed:
    """Fill `parsed` from the words after the verb. Raises FlagError or CountError.

    `--help` anywhere among the flags sets the value "help" and ends the parsing.
    """
    for flag in verb.flags:
        if flag.kind.many:
            parsed.values[flag.name] = []
    if verb.raw:
        parsed.args = words
        return parsed
    long = {flag.name: flag for flag in verb.flags}
    short = {flag.short: flag for flag in verb.flags if flag.short}
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            parsed.args.extend(reversed(rest))
            break
        if word.startswith("--"):
            _long(word, rest, long, parsed)
        elif word.startswith("-") and word != "-":
            _short(word, rest, short, parsed)
        else:
            parsed.args.append(word)
            if verb.options_first:
                parsed.args.extend(reversed(rest))
                break
        if "help" in parsed.values:
            return parsed
    _count(verb, parsed)
    return parsed


def _long(word: str, rest: list[str], long: dict[str, Flag], parsed: Parsed) -> None:
    name, equals, value = word[2:].partition("=")
    flag = long.get(name)
    if flag is None:
        if name == "help":
            parsed.values["help"] = True
            return
        if not name or name.startswith("-"):
            raise FlagError(f"bad flag syntax: {word}")
        raise FlagError(f"unknown flag: --{name}")
    if equals:
        _set(flag, value, parsed)
    elif flag.kind.switch:
        _set(flag, "true", parsed)
    elif rest:
        _set(flag, rest.pop(), parsed)
    else:
        raise FlagError(f"flag needs an argument: --{name}")


def _short(word: str, rest: list[str], short: dict[str, Flag], parsed: Parsed) -> None:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = short.get(letter)
        if flag is None:
            if letter == "h":
                parsed.values["help"] = True
                return
            raise FlagError(f"unknown shorthand flag: {letter!r} in -{letter}{letters}")
        if letters.startswith("="):
            _set(flag, letters[1:], parsed)
            return
        if flag.kind.switch:
            _set(flag, "true", parsed)
            continue
        if letters:
            _set(flag, letters, parsed)
        elif rest:
            _set(flag, rest.pop(), parsed)
        else:
            raise FlagError(f"flag needs an argument: {letter!r} in {word}")
        return


def _set(flag: Flag, text: str, parsed: Parsed) -> None:
    if flag.refused:
        raise FlagError(f"--{flag.name} is not supported by this version of swarmpy: {flag.refused}")
    try:
        value = flag.kind.parse(text)
    except ValueError as error:
        raise FlagError(f'invalid argument "{text}" for "{flag.shown}" flag: {error}') from None
    if flag.kind.many:
        parsed.values[flag.name].extend(value if isinstance(value, list) else [value])
    else:
        parsed.values[flag.name] = value
    parsed.given.add(flag.name)


def _count(verb: Verb, parsed: Parsed) -> None:
    least, most = verb.most
    given = len(parsed.args)
    if least <= given and (most < 0 or given <= most):
        return
    name = f"'{parsed.path}'"
    if most == 0:
        raise CountError(f"{name} accepts no arguments")
    if least == most:
        raise CountError(f"{name} requires {least} argument{'s' if least > 1 else ''}")
    if most < 0:
        raise CountError(f"{name} requires at least {least} argument{'s' if least > 1 else ''}")
    raise CountError(f"{name} requires at least {least} and at most {most} arguments")
