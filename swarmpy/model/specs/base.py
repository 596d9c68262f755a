"""What all specs share: base struct, stored text, cached typed view. See the package's charter."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec

from swarmpy.model.errors import InvalidArgument

SECOND = 1_000_000_000

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
UInt64 = Annotated[int, msgspec.Meta(ge=0)]
UInt32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""Numbers as Go's clients know them: one that is too large, once stored, would break their every listing.
None at all may be above 2**64 - 1."""


class Spec(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Base: PascalCase names, frozen, unknown fields ignored."""


S = TypeVar("S", bound=Spec)


def _without_nulls(value: Any) -> Any:
    """Go's clients send null where they mean absent. Raises InvalidArgument for numbers beyond 64 bits."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise InvalidArgument(
            f"invalid number {str(value)[:40]}: numbers of more than 64 bits are not known to clients"
        )
    return value


def compact(raw: Any) -> str:
    """The JSON text under which a spec is stored: key order as sent, no spaces."""
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False)


def view(kind: type[S], text: str) -> S:
    """The typed view of a stored spec. Raises InvalidArgument with the path of what is wrong."""
    result: S = _view(kind, text)
    return result


@lru_cache(maxsize=20_000)
def _view(kind: type[Spec], text: str) -> Any:
    try:
        return msgspec.convert(_without_nulls(json.loads(text or "{}")), kind)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"the spec is not JSON: {error}") from None
    except RecursionError:
        raise InvalidArgument("the spec is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid {kind.__name__}: {error}") from None
