"""How times, sizes, numbers and names are shown: Docker's words.

What belongs here: pure functions from a value to text. What does not: tables (`output`).
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def instant(text: str) -> float:
    """RFC 3339 text as seconds since the epoch; unset times (year 1) are far in the past."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return -62135596800.0


def human_duration(seconds: float) -> str:
    """Docker's rough words for a length of time."""
    whole = int(seconds)
    minutes = int(seconds / 60)
    hours = int(seconds / 3600 + 0.5)
    for below, words in (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 7 * 2, f"{hours // 24} days"),
        (hours < 24 * 30 * 2, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    ):
        if below:
            return words
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(text: str) -> str:
    """How long ago an RFC 3339 time was: "3 minutes ago"."""
    return human_duration(time.time() - instant(text)) + " ago"


def go_duration(nanoseconds: int) -> str:
    """Go's text for a duration: 5s, 1m30s, 2160h0m0s, 1.5s, 300ms."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for scale, unit in ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms")):
        if rest < scale:
            return f"{sign}{_decimal(rest, scale // 1000)}{unit}"
    minutes, left = divmod(rest, 60_000_000_000)
    text = f"{_decimal(left, 1_000_000_000)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{minutes}m{text}"
        if hours:
            text = f"{hours}h{text}"
    return sign + text


def _decimal(number: int, scale: int) -> str:
    whole, part = divmod(number, scale)
    if not part:
        return str(whole)
    digits = str(part).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def bytes_size(number: float) -> str:
    """Bytes with a binary unit and four significant digits: 64MiB, 1.952GiB."""
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number /= 1024
        unit += 1
    return f"{number:.4g}{_UNITS[unit]}"


def title(word: str) -> str:
    """The word with a capital first letter."""
    return word[:1].upper() + word[1:]


def natural(text: str) -> list[tuple[int, int]]:
    """Sort key under which numbers inside names count as numbers: web.2 before web.10.

    Digits come before everything else, as in Docker's lists.
    """
    key: list[tuple[int, int]] = []
    for digits, other in re.findall(r"(\d+)|(\D)", text):
        key.append((-1, int(digits)) if digits else (ord(other), 0))
    return key


def short_id(text: str) -> str:
    """The first twelve characters of an id."""
    return text[:12]


def cut(text: str, width: int) -> str:
    """The text cut to `width` characters, the last of them an ellipsis when something was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def familiar_image(image: str) -> str:
    """The image's name as people write it: without Docker Hub's prefixes and without a digest."""
    name = image.partition("@")[0]
    for prefix in ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/"):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def tagged(image: str) -> bool:
    """Whether the image has a tag (with or without a digest)."""
    return ":" in image.partition("@")[0].rpartition("/")[2]


def shown_image(image: str) -> str:
    """The image in a table: short where it has a tag, else as it is."""
    return familiar_image(image) if tagged(image) else image


def moment(text: str) -> str:
    """An RFC 3339 time as Docker prints it in --pretty: 2026-01-02 03:04:05.000000006 +0000 utc."""
    match = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?", text)
    if match is None:
        return str(datetime.fromtimestamp(instant(text), UTC))
    fraction = (match[3] or "").rstrip("0").rstrip(".")
    return f"{match[1]} {match[2]}{fraction} +0000 utc"
