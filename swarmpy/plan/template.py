"""Go templates in a container spec (`{{.Service.Name}}` in Env, Hostname and Mounts): a strict evaluator.

What belongs here: the part of Go's text/template that Swarm's placeholders use — field chains, string and
number literals, parentheses, pipes, trim markers, comments, and the functions `join`, `index`, `printf`.
Anything else is an error that names the piece, never a silent copy. Admission calls `check_container` so that
a bad template is refused when the service is created; the agent calls `expand_container`.
What does not belong here: which Docker field an expanded value lands in (container.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from swarmpy.model.specs import ContainerSpec, DriverConfig, Mount, VolumeOptions

Value = str | int | Mapping[str, Any]

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s+
      | (?P<field>\.[A-Za-z_]\w*(?:\.[A-Za-z_][\w]*)*)
      | (?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
      | (?P<number>-?\d+)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<mark>[()|])""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
_KEYWORDS = frozenset(
    ["if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"]
)


class TemplateError(ValueError):
    """The template is malformed or names something that does not exist; one sentence for the user."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a template may know of the node: `.Node.{ID,Hostname,Platform.{OS,Architecture}}`."""

    id: str
    hostname: str = ""
    os: str = "linux"
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What a template may name. `slot` is the node's id for a task without a slot, as in Swarm."""

    service_id: str
    service_name: str
    task_id: str
    task_name: str
    slot: str
    node: NodeFacts
    service_labels: Mapping[str, str] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """The tree that field chains walk."""
        labels = dict(self.service_labels)
        return {
            "Service": {"ID": self.service_id, "Name": self.service_name, "Labels": labels},
            "Node": {
                "ID": self.node.id,
                "Hostname": self.node.hostname,
                "Platform": {"OS": self.node.os, "Architecture": self.node.architecture},
            },
            "Task": {"ID": self.task_id, "Name": self.task_name, "Slot": self.slot},
        }


def expand(text: str, context: Context) -> str:
    """The text with every `{{…}}` replaced. Raises TemplateError."""
    if "{{" not in text:
        return text
    fields = context.fields()
    pieces: list[str] = []
    place = 0
    trim_next = False
    for found in _ACTION.finditer(text):
        literal = text[place : found.start()]
        if trim_next:
            literal = literal.lstrip()
        pieces.append(literal.rstrip() if found.group(1) else literal)
        _no_open_action(literal, text)
        pieces.append(_evaluate(found.group(2), fields, text))
        trim_next = found.group(3) is not None
        place = found.end()
    rest = text[place:]
    _no_open_action(rest, text)
    pieces.append(rest.lstrip() if trim_next else rest)
    return "".join(pieces)


def _no_open_action(literal: str, text: str) -> None:
    if "{{" in literal:
        raise TemplateError(f"the template {text!r} has an opening '{{{{' without its '}}}}'")


def _evaluate(body: str, fields: Mapping[str, Any], text: str) -> str:
    body = body.strip()
    if body.startswith("/*") and body.endswith("*/"):
        return ""
    try:
        parser = _Parser(list(_tokens(body)), fields)
        value = parser.pipeline()
        parser.expect_end()
    except TemplateError as error:
        raise TemplateError(f"the template {text!r} cannot be expanded: {error}") from None
    return _print(value)


def _tokens(body: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(body):
        found = _TOKEN.match(body, place)
        if found is None:
            raise TemplateError(f"unexpected {body[place:]!r}")
        if found.lastgroup is not None:
            yield found.lastgroup, found.group()
        place = found.end()


def _print(value: Value) -> str:
    """As Go's fmt prints it."""
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_print(value[key])}" for key in sorted(value)) + "]"
    return str(value)


class _Parser:
    """Recursive descent over one action's tokens, evaluating as it goes."""

    def __init__(self, tokens: list[tuple[str, str]], fields: Mapping[str, Any]) -> None:
        self._tokens = tokens
        self._place = 0
        self._fields = fields

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._place += 1
        return token

    def expect_end(self) -> None:
        """Nothing may follow. Raises TemplateError."""
        kind, text = self._peek()
        if kind != "end":
            raise TemplateError(f"unexpected {text!r}")

    def pipeline(self) -> Value:
        """command { '|' command }: each value becomes the last argument of the next command."""
        value = self._command([])
        while self._peek() == ("mark", "|"):
            self._next()
            if self._peek()[0] != "name":
                raise TemplateError("a function must follow '|'")
            value = self._command([value])
        return value

    def _command(self, piped: list[Value]) -> Value:
        kind, text = self._peek()
        if kind == "name":
            self._next()
            return _call(text, [*self._operands(), *piped])
        operands = self._operands()
        if not operands:
            raise TemplateError("a value is missing")
        if len(operands) > 1:
            raise TemplateError("only a function takes arguments (known: " + ", ".join(_FUNCTIONS) + ")")
        return operands[0]

    def _operands(self) -> list[Value]:
        operands: list[Value] = []
        while True:
            kind, text = self._peek()
            if kind == "field":
                operands.append(self._field(text))
            elif kind == "text":
                operands.append(_unquote(text))
            elif kind == "number":
                operands.append(int(text))
            elif (kind, text) == ("mark", "("):
                operands.append(self._group())
                continue
            else:
                return operands
            self._next()

    def _group(self) -> Value:
        self._next()
        value = self.pipeline()
        if self._next() != ("mark", ")"):
            raise TemplateError("a closing ')' is missing")
        return value

    def _field(self, chain: str) -> Value:
        value: Any = self._fields
        walked = ""
        for name in chain[1:].split("."):
            if not isinstance(value, Mapping) or name not in value:
                known = ", ".join(sorted(value)) if isinstance(value, Mapping) else "nothing"
                raise TemplateError(f"{walked or 'the root'} has no {name!r} (it has: {known or 'nothing'})")
            value = value[name]
            walked += "." + name
        result: Value = value
        return result


def _unquote(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    return re.sub(r"\\(.)", _escape, text[1:-1])


def _escape(found: re.Match[str]) -> str:
    letter = found.group(1)
    if letter not in _ESCAPES:
        raise TemplateError(f"unknown escape '\\{letter}' in a string")
    return _ESCAPES[letter]


def _call(name: str, values: list[Value]) -> Value:
    if name in _KEYWORDS:
        raise TemplateError(f"{name!r} is not supported: only values and functions are")
    if name not in _FUNCTIONS:
        raise TemplateError(f"function {name!r} is not known (known: {', '.join(_FUNCTIONS)})")
    return _FUNCTIONS[name](values)


def _join(values: list[Value]) -> Value:
    if not values:
        raise TemplateError("join needs a separator")
    if not all(isinstance(value, str) for value in values):
        raise TemplateError("join takes strings only")
    separator, *rest = (str(value) for value in values)
    return separator.join(rest)


def _index(values: list[Value]) -> Value:
    """Unlike a field chain, a missing key gives the empty string: so does Go."""
    if not values:
        raise TemplateError("index needs a map")
    value: Any = values[0]
    for key in values[1:]:
        if not isinstance(value, Mapping) or not isinstance(key, str):
            raise TemplateError("index walks maps by string keys only")
        value = value.get(key, "")
    result: Value = value
    return result


def _printf(values: list[Value]) -> Value:
    if not values or not isinstance(values[0], str):
        raise TemplateError("printf needs a format string")
    rest = iter(values[1:])

    def fill(found: re.Match[str]) -> str:
        verb = found.group(1)
        if verb == "%":
            return "%"
        try:
            value = next(rest)
        except StopIteration:
            raise TemplateError("printf has more verbs than values") from None
        if verb not in "svdq" or (verb == "d" and not isinstance(value, int)):
            raise TemplateError(f"printf cannot print that value with %{verb}")
        return '"' + _print(value) + '"' if verb == "q" else _print(value)

    result = re.sub(r"%(.)", fill, values[0])
    if next(rest, None) is not None:
        raise TemplateError("printf has more values than verbs")
    return result


_FUNCTIONS: dict[str, Callable[[list[Value]], Value]] = {"join": _join, "index": _index, "printf": _printf}


def expand_container(spec: ContainerSpec, context: Context) -> ContainerSpec:
    """The spec with the fields that Swarm expands (Env, Hostname, Mounts) expanded. Raises TemplateError."""

    def go(text: str) -> str:
        return expand(text, context)

    return msgspec.structs.replace(
        spec,
        env=tuple(go(entry) for entry in spec.env),
        hostname=go(spec.hostname),
        mounts=tuple(_expand_mount(mount, go) for mount in spec.mounts),
    )


def _expand_mount(mount: Mount, go: Callable[[str], str]) -> Mount:
    options = mount.volume_options
    if options is not None:
        options = _expand_volume(options, go)
    return msgspec.structs.replace(
        mount, source=go(mount.source), target=go(mount.target), volume_options=options
    )


def _expand_volume(options: VolumeOptions, go: Callable[[str], str]) -> VolumeOptions:
    driver = options.driver_config
    if driver is not None:
        expanded = {key: go(text) for key, text in driver.options.items()}
        driver = DriverConfig(name=driver.name, options=expanded)
    labels = {key: go(text) for key, text in options.labels.items()}
    return msgspec.structs.replace(options, labels=labels, driver_config=driver)


def check_container(spec: ContainerSpec, service_name: str, service_labels: Mapping[str, str]) -> None:
    """Refuse a spec whose templates cannot be expanded on any node. Raises TemplateError."""
    node = NodeFacts(id="nodeid", hostname="hostname", os="linux", architecture="x86_64")
    sample = Context("serviceid", service_name, "taskid", "taskname", "1", node, service_labels)
    expand_container(spec, sample)
