"""Go templates for --format: a small, strict subset.

Text; `{{.Field.Sub}}`, `{{.}}`, `{{$.Field}}`; literals; pipes; the functions json, upper, lower, title, len,
join, index, println; parentheses, with fields of what is inside them; `if`/`else`/`end`;
`range`/`else`/`end`; trim marks (`{{-`, `-}}`); comments. Anything
else is refused with a sentence and exit code 64, never guessed. What does not belong here: tables (`output`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from swarmpy.cli.tables import CommandError

BAD_TEMPLATE = 64
_ACTION = re.compile(r"\{\{(- )?\s*(.*?)\s*( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*("(?:[^"\\]|\\.)*"|`[^`]*`|-?\d+|\$?(?:\.[A-Za-z_]\w*)+|\$|\.|[A-Za-z_]\w*|\||\(|\))"""
)
_WORDS = ("end", "else", "if", "range")


class TemplateError(CommandError):
    """The template does not parse, or names what is not there."""

    def __init__(self, text: str) -> None:
        super().__init__(f"template parsing error: {text}", BAD_TEMPLATE)


def go_text(value: Any) -> str:
    """A value as Go's templates print it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(go_text(item) for item in value) + "]"
    return str(value)


def go_json(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        try:
            value = value.get(key) if isinstance(value, dict) else value[key]
        except (TypeError, IndexError, AttributeError):
            raise TemplateError(f"error calling index: {go_json(key)} is not in {go_json(value)}") from None
    return value


def _join(value: Any, separator: Any = "") -> str:
    return str(separator).join(go_text(item) for item in value or ())


def _len(value: Any) -> int:
    try:
        return len(value)
    except TypeError:
        raise TemplateError(f"error calling len: {go_text(value)} has no length") from None


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": go_json,
    "upper": lambda value: go_text(value).upper(),
    "lower": lambda value: go_text(value).lower(),
    "title": lambda value: go_text(value)[:1].upper() + go_text(value)[1:],
    "len": _len,
    "index": _index,
    "join": _join,
    "println": lambda *values: " ".join(go_text(value) for value in values) + "\n",
}
_AS_IS = {"json", "upper", "lower", "title", "join", "len"}


class Template:
    """A parsed template. Raises TemplateError when the text does not parse."""

    def __init__(self, text: str) -> None:
        self._parts = _split(text)
        self._place = 0
        self._body, stop = self._block()
        if stop:
            raise TemplateError(f"unexpected {{{{{stop}}}}}")

    def render(self, data: Any, *, strict: bool = False, header: bool = False) -> str:
        """The text for this value. `strict` refuses fields that are not there; `header` leaves values as
        they are (for the header line of a table)."""
        scope = _Scope(data, strict, header)
        return "".join(_run(self._body, data, scope))

    def _block(self) -> tuple[list[Any], str]:
        body: list[Any] = []
        while self._place < len(self._parts):
            kind, text = self._parts[self._place]
            self._place += 1
            if kind == "text":
                body.append(text)
                continue
            word = text.split(None, 1)[0] if text else ""
            if word in ("end", "else"):
                return body, text
            if word in ("if", "range"):
                body.append(self._branch(word, text[len(word) :]))
            elif not text.startswith("/*"):
                body.append(("print", _pipeline(text)))
        return body, ""

    def _branch(self, word: str, condition: str) -> Any:
        yes, stop = self._block()
        no: list[Any] = []
        if stop == "else":
            no, stop = self._block()
        elif stop.startswith("else if"):
            no = [self._branch("if", stop[len("else if") :])]
            stop = "end"
        if stop != "end":
            raise TemplateError(f"unexpected EOF: {{{{{word}{condition}}}}} has no {{{{end}}}}")
        return (word, _pipeline(condition), yes, no)


class _Scope:
    """What the whole of one rendering shares."""

    __slots__ = ("header", "root", "strict")

    def __init__(self, root: Any, strict: bool, header: bool) -> None:
        self.root = root
        self.strict = strict
        self.header = header


def _split(text: str) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    place = 0
    trim = False
    for match in _ACTION.finditer(text):
        before = text[place : match.start()]
        before = before.lstrip() if trim else before
        before = before.rstrip() if match[1] else before
        parts.append(("text", _literal(before)))
        if not match[2]:
            raise TemplateError("missing value for command")
        parts.append(("action", match[2]))
        trim = bool(match[3])
        place = match.end()
    rest = text[place:].lstrip() if trim else text[place:]
    parts.append(("text", _literal(rest)))
    return parts


def _literal(text: str) -> str:
    if "{{" in text:
        raise TemplateError("unclosed action")
    return text


def _pipeline(text: str) -> list[list[Any]]:
    """Commands joined by pipes; each a list of operands, the first maybe a function's name."""
    place = 0
    commands: list[list[Any]] = [[]]
    stack: list[list[list[Any]]] = []
    text = text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise TemplateError(f'unexpected "{text[place:].strip()[:1]}" in {{{{{text}}}}}')
        place = match.end()
        piece = match[1]
        if piece == "|":
            commands.append([])
        elif piece == "(":
            stack.append(commands)
            commands = [[]]
        elif piece == ")":
            if not stack:
                raise TemplateError(f'unexpected ")" in {{{{{text}}}}}')
            inner, commands = commands, stack.pop()
            commands[-1].append(("group", inner))
        elif piece[0] == "." and len(piece) > 1 and text[match.start(1) - 1 : match.start(1)] == ")":
            # Right behind a parenthesis: fields of what is inside, `(index .List 0).Name`.
            commands[-1].append(("part", (commands[-1].pop(), _operand(piece)[1])))
        else:
            commands[-1].append(_operand(piece))
    if stack or not all(commands):
        raise TemplateError(f"missing value for command in {{{{{text}}}}}")
    return commands


def _operand(piece: str) -> Any:
    if piece[0] == '"':
        return ("value", json.loads(piece))
    if piece[0] == "`":
        return ("value", piece[1:-1])
    if piece[0] in ".$":
        names = [name for name in piece.lstrip("$").split(".") if name]
        return ("root" if piece[0] == "$" else "field", names)
    if piece.lstrip("-").isdigit():
        return ("value", int(piece))
    if piece in ("true", "false"):
        return ("value", piece == "true")
    if piece not in FUNCTIONS:
        raise TemplateError(f'function "{piece}" not defined (known: {", ".join(sorted(FUNCTIONS))})')
    return ("call", piece)


def _evaluate(commands: list[list[Any]], data: Any, scope: _Scope) -> Any:
    result: Any = None
    for number, operands in enumerate(commands):
        values = [_value(operand, data, scope) for operand in operands if operand[0] != "call"]
        if number:
            values.append(result)
        if operands[0][0] == "call":
            name = operands[0][1]
            if scope.header and name in _AS_IS:
                result = values[0] if values else ""
                continue
            try:
                result = FUNCTIONS[name](*values)
            except TypeError:
                raise TemplateError(f"wrong number of arguments for {name}") from None
        elif len(values) == 1:
            result = values[0]
        else:
            raise TemplateError("can't give argument to non-function")
    return result


def _value(operand: Any, data: Any, scope: _Scope) -> Any:
    kind, content = operand
    if kind == "value":
        return content
    if kind == "group":
        return _evaluate(content, data, scope)
    if kind == "part":
        group, content = content
        value = _value(group, data, scope)
    else:
        value = scope.root if kind == "root" else data
    for name in content:
        if not isinstance(value, dict):
            if value is None and not scope.strict:
                return None
            raise TemplateError(f"can't evaluate field {name} in {go_text(value)}")
        if name not in value and scope.strict:
            raise TemplateError(f"can't evaluate field {name}: the fields are {', '.join(sorted(value))}")
        value = value.get(name)
    return value


def _run(body: list[Any], data: Any, scope: _Scope) -> list[str]:
    out: list[str] = []
    for node in body:
        if isinstance(node, str):
            out.append(node)
        elif node[0] == "print":
            out.append(go_text(_evaluate(node[1], data, scope)))
        else:
            value = _evaluate(node[1], data, scope)
            if node[0] == "if" or not value:
                out += _run(node[2] if value else node[3], data, scope)
            else:
                items = [value[key] for key in sorted(value)] if isinstance(value, dict) else value
                for item in items:
                    out += _run(node[2], item, scope)
    return out
