"""Rules of the house that no linter knows, as one function each: used by tests/test_tidy.py.

python tests/tidy.py     prints what is wrong, one line each
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 400
FUNCTION_LINES = 60
OUTSIDE = ("adapters", "lab", "cli", "api", "sim")
"""Rooms whose clock and chance are the machine's own, and the one that makes them up."""
BANNED_CALLS = re.compile(
    r"\b(time\.time|time\.time_ns|time\.monotonic|random\.(?!Random\b)\w+|uuid\.uuid4|datetime\.now|datetime\.utcnow)\("
)
SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore|nosec|pragma)[^#]*")
REASONED = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?|type:\s*ignore(?:\[[\w,\s-]+\])?)\s+\S"
)


def sources(*folders: str) -> list[Path]:
    """All Python files below the folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _where(path: Path, line: int = 0) -> str:
    name = path.relative_to(ROOT).as_posix()
    return f"{name}:{line}" if line else name


def sizes() -> Iterator[str]:
    """Files and functions that no longer fit the eye."""
    for path in sources("swarmpy"):
        text = path.read_text()
        lines = text.count("\n")
        if lines > FILE_LINES:
            yield f"{_where(path)} has {lines} lines: split it (limit {FILE_LINES})"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                size = node.end_lineno - node.lineno + 1
                if size > FUNCTION_LINES:
                    where = _where(path, node.lineno)
                    yield f"{where} {node.name} has {size} lines (limit {FUNCTION_LINES})"


def charters() -> Iterator[str]:
    """Files that do not say what belongs in them."""
    for path in sources("swarmpy"):
        if not ast.get_docstring(ast.parse(path.read_text())):
            yield f"{_where(path)} opens without saying what belongs in it"


def comments() -> Iterator[str]:
    """Promises and suppressions without a reason."""
    for path in sources("swarmpy"):
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type != tokenize.COMMENT:
                continue
            if re.search(r"\b(TODO|FIXME|XXX)\b", token.string):
                yield f"{_where(path, token.start[0])} leaves a promise: {token.string}"
            if SUPPRESSION.search(token.string) and not REASONED.search(token.string):
                yield f"{_where(path, token.start[0])} suppresses a check without saying why"


def dangers() -> Iterator[str]:
    """Pickle anywhere; real clocks and chance where the simulator must rule."""
    for path in sources("swarmpy"):
        text = path.read_text()
        room = path.relative_to(ROOT / "swarmpy").parts[0]
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(r"\s*(import|from) (pickle|marshal|shelve)\b", line):
                yield f"{_where(path, number)} imports {line.split()[1]}: code for whoever sends the bytes"
            if room not in OUTSIDE and BANNED_CALLS.search(line):
                yield f"{_where(path, number)} reads the real clock or chance: use a port"


def planners_tested() -> Iterator[str]:
    """Every file of judgement has its tests: a file named after it, or tests that speak of it."""
    tests = "\n".join(path.name + "\n" + path.read_text() for path in sources("tests/plan"))
    for path in sources("swarmpy/plan"):
        word = path.stem.rstrip("_")
        if path.stem not in ("__init__", "types") and not re.search(rf"(?<![a-z]){word}", tests):
            yield f"{_where(path)} is spoken of by no test"


RULES = (sizes, charters, comments, dangers, planners_tested)

if __name__ == "__main__":
    found = [complaint for rule in RULES for complaint in rule()]
    print("\n".join(found))
    sys.exit(bool(found))
