"""How flag values are read: numbers, durations, sizes, switches, labels, variables, addresses.

Every parser takes the text of one flag and returns what goes into the API's JSON, or raises ValueError with
the sentence that Docker's command line would print. Durations are integer nanoseconds, CPUs nano-CPUs,
memory bytes. Grammars with fields (mounts, ports, ulimits, ...) are in `grammars`.
"""

from __future__ import annotations

import os
import re

from swarmpy.cli.tables import Kind
from swarmpy.model.durations import duration

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)*) ?([kKmMgGtTpP])?[iI]?[bB]?\Z")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RATIONAL = re.compile(r"[+-]?(?:[0-9]+/[0-9]+|[0-9]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)")
_LONGEST = 1000
"""Digits of a number, leading zeros included: beyond that it is no slip of the hand, and slow to read."""
_INT64 = 2**63
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_DOMAIN = re.compile(
    r"[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?(?:\.[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*\.?\Z"
)


def plain(text: str) -> str:
    """Any text."""
    return text


def boolean(text: str) -> bool:
    """A switch's value: true or false in Go's spellings."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _integer(text: str, function: str, low: int, high: int) -> int:
    try:
        if text != text.strip() or text.startswith("_") or not text.isascii() or len(text) > _LONGEST:
            raise ValueError(text)
        octal = re.fullmatch(r"([+-]?)0([0-7]+)", text)
        number = int(octal[1] + octal[2], 8) if octal else int(text, 0)
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax') from None
    if not low <= number <= high:
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return number


def decimal(text: str) -> int:
    """A signed 64-bit number in base ten."""
    if not re.fullmatch(r"[+-]?[0-9]{1,1000}", text):
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if not -_INT64 <= int(text) < _INT64:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)


def uint(text: str) -> int:
    """An unsigned 64-bit number."""
    if text[:1] in ("-", "+"):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return _integer(text, "ParseUint", 0, 2**64 - 1)


def uint32(text: str) -> int:
    """An unsigned 32-bit number."""
    number = uint(text)
    if number >= 2**32:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return number


def integer(text: str) -> int:
    """A signed 64-bit number."""
    return _integer(text, "ParseInt", -(2**63), 2**63 - 1)


def ratio(text: str) -> float:
    """A floating-point number."""
    if not _FLOAT.fullmatch(text):
        raise ValueError(f'strconv.ParseFloat: parsing "{text}": invalid syntax')
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError(f'strconv.ParseFloat: parsing "{text}": value out of range')
    return number


def positive_duration(text: str) -> int:
    """A duration of at least zero."""
    value = duration(text)
    if value < 0:
        raise ValueError("duration cannot be negative")
    return value


def size(text: str) -> int:
    """Bytes in powers of 1024: `512m`, `1.5GiB`, `64`."""
    match = _SIZE.match(text)
    if match is None or match[1].count(".") > 1:
        raise ValueError(f"invalid size: '{text}'")
    number = float(match[1]) * 1024 ** _POWERS[(match[2] or "").lower()]
    if number >= _INT64:
        raise ValueError(f"invalid size: '{text}': larger than any machine")
    return int(number)


def swap_size(text: str) -> int:
    """Bytes, or -1 for no limit."""
    return -1 if text == "-1" else size(text)


def nano_cpus(text: str) -> int:
    """CPUs (`0.5`, `2`, `1/4`) as nano-CPUs."""
    from fractions import Fraction

    try:
        # Short exponents only: 1e999999999 would be written out.
        if len(text) > _LONGEST or not _RATIONAL.fullmatch(text):
            raise ValueError(text)
        cpus = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if cpus.denominator != 1:
        raise ValueError("value is too precise")
    if abs(cpus) >= _INT64:
        raise ValueError(f"failed to parse {text}: more CPUs than any machine has")
    return int(cpus)


def label(text: str) -> str:
    """`KEY` or `KEY=VALUE`."""
    if not text.partition("=")[0].strip():
        raise ValueError(f"invalid label '{text}': empty name")
    return text.lstrip()


def variable(text: str) -> str:
    """`KEY=VALUE`, or `KEY` for the value that this process's own environment has."""
    key, equals, _ = text.partition("=")
    if not key:
        raise ValueError(f"invalid environment variable: {text}")
    if not equals and key in os.environ:
        return f"{key}={os.environ[key]}"
    return text


def ip_address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    from ipaddress import ip_address as read

    try:
        return str(read(text.strip()))
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def dns_search(text: str) -> str:
    """A search domain, or "." for none."""
    domain = text.strip()
    if domain == ".":
        return domain
    if not domain or len(domain) > 255 or not _DOMAIN.match(domain):
        raise ValueError(f"{text} is not a valid domain")
    return domain


def extra_host(text: str) -> str:
    """`NAME:IP` (or `NAME=IP`) as `IP NAME`, the form in which the API has it."""
    match = re.match(r"([^:=]+)[:=](.+)\Z", text)
    if match is None:
        raise ValueError(f'bad format for add-host: "{text}"')
    address = match[2]
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        try:
            address = ip_address(address)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{match[2]}"') from None
    return f"{address} {match[1]}"


def command(text: str) -> list[str]:
    """A command line, split as a shell does."""
    import shlex

    try:
        return shlex.split(text)
    except ValueError:
        raise ValueError("EOF found when expecting closing quote") from None


def filter_pair(text: str) -> tuple[str, str]:
    """`KEY=VALUE` of --filter."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def words(text: str) -> list[str]:
    """Values with commas between them; quotes protect commas."""
    import csv

    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise ValueError(f"its comma-separated values cannot be read: {error}") from None


def pairs(texts: list[str]) -> dict[str, str]:
    """`KEY=VALUE` texts as a mapping; the last of a key wins."""
    result: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        result[key] = value
    return result


SWITCH = Kind("", boolean, switch=True)
STRING = Kind("string", plain)
LIST = Kind("list", plain, many=True)
UINT = Kind("uint", uint)
UINT32 = Kind("uint32", uint32)
INT = Kind("int", integer)
FLOAT = Kind("float", ratio)
DURATION = Kind("duration", duration)
POSITIVE_DURATION = Kind("duration", positive_duration)
BYTES = Kind("bytes", size)
SWAP = Kind("bytes", swap_size)
DECIMAL = Kind("decimal", nano_cpus)
LABELS = Kind("list", label, many=True)
VARIABLES = Kind("list", variable, many=True)
ADDRESSES = Kind("list", ip_address, many=True)
DOMAINS = Kind("list", dns_search, many=True)
HOSTS = Kind("list", extra_host, many=True)
COMMAND = Kind("command", command)
FILTER = Kind("filter", filter_pair, many=True)
MAP = Kind("map", plain, many=True)
STRINGS = Kind("strings", words, many=True)
ENDPOINT_MODE = Kind("string", str.lower, choices=("vip", "dnsrr"))


def choice(*words: str) -> Kind:
    """Text for which completion offers these words; the daemon judges it."""
    return Kind("string", plain, choices=words)
