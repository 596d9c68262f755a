"""Requests, read strictly: JSON bodies, query parameters, the registry's credentials.

What belongs here: everything that turns bytes of a request into checked values, with a sentence where it
cannot. What does not: what the values mean (the nouns' files), filters (filters.py).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from swarmpy.api.errors import HttpError

T = TypeVar("T")

MAX_BODY = 2 * 1024 * 1024
MAX_AUTH = 64 * 1024
MAX_DEPTH = 100
"""Objects and lists inside each other. Docker's deepest spec needs ten; readers walk them by recursion."""
AUTH_HEADER = "X-Registry-Auth"

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_UINT64 = 2**64 - 1
_INT64_MIN = -(2**63)


async def read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the request's body; an empty body is an empty object, as in Docker."""
    data = await request.read()
    kind = request.headers.get("Content-Type", "")
    if not data and not kind:
        return {}
    mime = kind.split(";", 1)[0].strip().lower()
    if mime != "application/json":
        raise HttpError(400, f"unsupported Content-Type header ({kind}): must be 'application/json'")
    if not data:
        return {}
    return parse_object(data)


def parse_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object. Refuses what cannot be stored: NaN, numbers beyond 64 bits, broken Unicode, and
    what is nested deeper than anybody means it."""
    try:
        value = json.loads(
            data.decode("utf-8-sig"), parse_constant=_no_constant, parse_int=_int, parse_float=_float
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise HttpError(400, f"invalid JSON: {error}") from None
    except RecursionError:
        raise _too_deep() from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HttpError(400, "invalid JSON: the body must be an object")
    _check_depth(value)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HttpError(400, "invalid JSON: a string holds half of a surrogate pair") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _int(text: str) -> int:
    number = int(text) if len(text) <= 20 else _UINT64 + 1
    if not _INT64_MIN <= number <= _UINT64:
        raise ValueError(f"the number {text[:24]} does not fit into 64 bits")
    return number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:24]} is too large")
    return number


def _check_depth(value: Any) -> None:
    """Level by level, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
            elif isinstance(one, list):
                inner.extend(one)
        if not inner:
            return
        level = inner
    raise _too_deep()


def _too_deep() -> HttpError:
    return HttpError(400, f"invalid JSON: nested too deeply (at most {MAX_DEPTH} levels)")


def convert(kind: type[T], raw: dict[str, Any]) -> T:
    """A typed request out of a decoded object; 400 with the path of what is wrong."""
    try:
        return msgspec.convert({key: item for key, item in raw.items() if item is not None}, kind)
    except msgspec.ValidationError as error:
        raise HttpError(400, f"invalid JSON: {error}") from None


def version_index(request: web.Request, noun: str) -> int:
    """The `version` parameter that an update must carry."""
    text = request.query.get("version", "")
    if not (text.isascii() and text.isdigit()):
        problem = "invalid syntax"
    elif len(text) > 20 or int(text) > _UINT64:
        problem = "value out of range"
    else:
        return int(text)
    quoted = json.dumps(text)
    raise HttpError(400, f"invalid {noun} version '{text}': strconv.ParseUint: parsing {quoted}: {problem}")


def strict_flag(request: web.Request, name: str) -> bool:
    """A boolean parameter; 400 where it is neither true nor false."""
    text = request.query.get(name, "")
    if text in _TRUE:
        return True
    if text in _FALSE or text == "":
        return False
    raise HttpError(400, f"invalid value for {name}: {text}")


def loose_flag(request: web.Request, name: str) -> bool:
    """A boolean parameter as Docker reads most of them: anything but "", 0, no, false and none is true."""
    return request.query.get(name, "").strip().lower() not in {"", "0", "no", "false", "none"}


def registry_auth(request: web.Request) -> str:
    """The X-Registry-Auth header as sent ("" for none), checked to be base64 of a JSON object."""
    text = request.headers.get(AUTH_HEADER, "")
    if not text:
        return ""
    refusal = HttpError(400, f"invalid {AUTH_HEADER} header: it must be base64url of a JSON object")
    if len(text) > MAX_AUTH:
        raise refusal
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_")
        value = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise refusal from None
    if not isinstance(value, dict):
        raise refusal
    return text
