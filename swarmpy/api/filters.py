"""Filters of list endpoints, in both spellings that clients use, and how they match.

`{"k": {"v": true}}` is Go's, `{"k": ["v"]}` docker-py's. Different keys must all match, of the values of one
key any; labels must all match. What does not belong here: which filters an endpoint knows (its own file).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from swarmpy.api.errors import HttpError


@dataclass(frozen=True, slots=True)
class Filters:
    """Parsed filters: key to values."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def get(self, key: str) -> tuple[str, ...]:
        """The values of a key; empty where it is not filtered."""
        return self.values.get(key, ())

    def __contains__(self, key: str) -> bool:
        return bool(self.values.get(key))

    def only(self, known: Collection[str]) -> Filters:
        """Itself, or 400 for a key that the endpoint does not know."""
        for key in self.values:
            if key not in known:
                raise HttpError(400, f"Invalid filter '{key}'")
        return self

    def prefix(self, key: str, *texts: str) -> bool:
        """Whether one of the texts begins with one of the values."""
        values = self.get(key)
        return not values or any(text.startswith(values) for text in texts)

    def exact(self, key: str, *texts: str) -> bool:
        """Whether one of the texts is one of the values."""
        values = self.get(key)
        return not values or any(text in values for text in texts)

    def labels(self, key: str, labels: Mapping[str, str]) -> bool:
        """Whether all values, `k` or `k=v`, match the labels."""
        return all(_label(value, labels) for value in self.get(key))

    def words(self, key: str, known: Iterable[str]) -> tuple[str, ...]:
        """The values of a key that knows only some words; Docker answers 500 for others."""
        allowed = set(known)
        chosen = []
        for value in self.get(key):
            if value.lower() in allowed:
                chosen.append(value.lower())
            elif value:
                raise HttpError(500, f"Invalid {key} filter: '{value}'")
        return tuple(chosen)


def _label(value: str, labels: Mapping[str, str]) -> bool:
    key, _, wanted = value.partition("=")
    found = labels.get(key)
    return found is not None and (not wanted or wanted == found)


def parse(text: str) -> Filters:
    """Parse the `filters` parameter. 400 where it is neither spelling."""
    if not text:
        return Filters()
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise HttpError(400, 'invalid filter: it must be JSON such as {"name": ["web"]}') from None
    if raw is None:
        return Filters()
    if not isinstance(raw, dict):
        raise HttpError(400, "invalid filter: it must be an object of names and values")
    return Filters({key: _values(key, item) for key, item in raw.items()})


def _values(key: str, item: object) -> tuple[str, ...]:
    if item is None:
        return ()
    if isinstance(item, dict) and all(isinstance(flag, bool) for flag in item.values()):
        return tuple(item)
    if isinstance(item, list) and all(isinstance(one, str) for one in item):
        return tuple(item)
    raise HttpError(400, f"invalid filter '{key}': its values must be a list of strings")
