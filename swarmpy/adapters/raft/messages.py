"""What members say to each other, and the check of what others say to us.

What belongs here: the fields, types and ranges of each message. What does not: their meaning (core.py) and
who said them (transport.py: identity comes from the channel, never from the body).

Terms and indexes are below 2**62; unknown types and extra fields are refused: both ends run this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LIMIT = 2**62
MAX_ENTRIES = 100_000

Check = Callable[[Any], bool]


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < LIMIT


def _truth(value: Any) -> bool:
    return type(value) is bool


def _bytes(value: Any) -> bool:
    return type(value) is bytes


def _entry(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 2
        and type(value[0]) is bytes
        and len(value[0]) > 0
        and value[0][0] <= 2
        and _natural(value[1])
    )


def _entries(value: Any) -> bool:
    return type(value) is list and len(value) <= MAX_ENTRIES and all(map(_entry, value))


FIELDS: Mapping[str, Mapping[str, Check]] = {
    # A candidate asks for a vote. `pre`: would you vote for me in this term? Nothing is promised by it.
    # `force`: the old leader asked for this election, so its followers need not protect it.
    "request_vote": {
        "term": _natural,
        "last_log_index": _natural,
        "last_log_term": _natural,
        "pre": _truth,
        "force": _truth,
    },
    # The answer. `term` is the term asked for when granted, the answerer's own when refused.
    "response_vote": {"term": _natural, "pre": _truth, "granted": _truth},
    # Entries after (prevLogIdx, prevLogTerm), each [bytes, term]. `seq` counts the leader's messages.
    "append_entries": {
        "term": _natural,
        "commit_index": _natural,
        "prevLogIdx": _natural,
        "prevLogTerm": _natural,
        "entries": _entries,
        "seq": _natural,
    },
    # The answer. With `success`, everything below `next_node_idx` is proved equal to the leader's log by
    # the very message that is answered; without, the leader should go on from there.
    "next_node_idx": {
        "term": _natural,
        "next_node_idx": _natural,
        "success": _truth,
        "seq": _natural,
    },
    # A piece of a snapshot: `data` at `offset` of `total` bytes whose CRC32C is `crc`.
    "install": {
        "term": _natural,
        "index": _natural,
        "total": _natural,
        "crc": _natural,
        "offset": _natural,
        "data": _bytes,
        "seq": _natural,
    },
    # The answer: how much of that snapshot has arrived in order.
    "installed": {"term": _natural, "index": _natural, "offset": _natural, "seq": _natural},
    # The leader hands over: campaign at once.
    "timeout_now": {"term": _natural},
    # You are no longer a member, as a committed entry says.
    "removed": {"term": _natural},
}


def check(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The message when it is well-formed; None when it has to be dropped."""
    kind = body.get("type")
    fields = FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None or len(body) != len(fields) + 1:
        return None
    for name, good in fields.items():
        if name not in body or not good(body[name]):
            return None
    return dict(body)
