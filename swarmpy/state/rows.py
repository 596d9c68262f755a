"""Rows: mappings by key that are never changed, and that share most of themselves with older ones.

A small one is a plain dict, copied whole. A large one keeps what differs from an older, shared dict beside
it, so that a change costs what it changes and not what there is. Read in whole it is merged first, once.
What does not belong here: what the rows are (snapshot.py).
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Generic, TypeVar, cast, overload

V = TypeVar("V")
D = TypeVar("D")

LARGE = 2000
"""Rows from which on a mapping is not copied whole for each change."""
SHARE = 16
"""What differs is at most this part of what is shared: beyond, all is copied and shared anew."""

_ABSENT: Any = object()
_GONE: Any = object()
"""Stands beside the shared rows for one of them that was removed."""


class Rows(Mapping[str, V]):
    """A large mapping: shared rows, and what differs from them."""

    __slots__ = ("_base", "_over", "_size", "_whole")

    def __init__(self, base: dict[str, V], over: dict[str, V], size: int) -> None:
        self._base, self._over, self._size = base, over, size
        self._whole: dict[str, V] | None = None

    def whole(self) -> dict[str, V]:
        """All rows, as one dict that is not to be changed."""
        whole = self._whole
        if whole is None:
            whole = dict(self._base)
            for key, value in self._over.items():
                if value is _GONE:
                    del whole[key]
                else:
                    whole[key] = value
            self._whole = whole
        return whole

    def parts(self) -> tuple[dict[str, V], dict[str, V]]:
        """What may be shared with a mapping made of this one, and what differs from it, for `edit`."""
        return (self._base, self._over) if self._whole is None else (self._whole, {})

    def __getitem__(self, key: str) -> V:
        found: V = self._over.get(key, _ABSENT)
        if found is _ABSENT:
            return self._base[key]
        if found is _GONE:
            raise KeyError(key)
        return found

    @overload
    def get(self, key: str, /) -> V | None: ...
    @overload
    def get(self, key: str, /, default: V | D) -> V | D: ...
    def get(self, key: str, /, default: Any = None) -> Any:
        """The row, or the default."""
        found = self._over.get(key, _ABSENT)
        if found is _ABSENT:
            return self._base.get(key, default)
        return default if found is _GONE else found

    def __contains__(self, key: object) -> bool:
        found = self._over.get(cast("str", key), _ABSENT)
        return key in self._base if found is _ABSENT else found is not _GONE

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole())

    def keys(self) -> KeysView[str]:
        """All keys."""
        return self.whole().keys()

    def values(self) -> ValuesView[V]:
        """All rows."""
        return self.whole().values()

    def items(self) -> ItemsView[str, V]:
        """All keys and rows."""
        return self.whole().items()


class Edit(Generic[V]):
    """A mapping that is being made of another one, which stays as it is."""

    __slots__ = ("_base", "_over", "_size")

    def __init__(self, old: Mapping[str, V]) -> None:
        self._size = len(old)
        if isinstance(old, Rows):
            base, over = old.parts()
            self._base, self._over = base, dict(over)
        elif len(old) < LARGE:
            self._base, self._over = {}, dict(old)
        else:
            self._base, self._over = cast("dict[str, V]", old), {}

    def get(self, key: str) -> V | None:
        """The row, or None."""
        found = self._over.get(key, _ABSENT)
        if found is _ABSENT:
            return self._base.get(key)
        return None if found is _GONE else found

    def __contains__(self, key: str) -> bool:
        found = self._over.get(key, _ABSENT)
        return key in self._base if found is _ABSENT else found is not _GONE

    def __setitem__(self, key: str, value: V) -> None:
        found = self._over.get(key, _ABSENT)
        if found is _GONE or (found is _ABSENT and key not in self._base):
            self._size += 1
        self._over[key] = value

    def put(self, key: str, value: V, *, fresh: bool) -> None:
        """Set a row of which it is known whether it is a new one."""
        self._over[key] = value
        self._size += fresh

    def pop(self, key: str) -> V | None:
        """Remove the row and return it, None where there is none."""
        found = self.get(key)
        if key in self:
            self._size -= 1
            if key in self._base:
                self._over[key] = _GONE
            else:
                del self._over[key]
        return found

    def done(self) -> Mapping[str, V]:
        """The new mapping. The edit is over."""
        if not self._base:
            return self._over
        rows = Rows(self._base, self._over, self._size)
        if self._size < LARGE or len(self._over) * SHARE > len(self._base):
            return rows.whole()
        return rows
